"""Weights computed from a formula, so that a full-size network can be compared without storing its weights.

With `names` the sorted list of all state-dict keys, k a name's index in it and n the flat index in its tensor, in
unsigned 64-bit arithmetic: x = n * 6364136223846793005 + (k + 1) * 1442695040888963407; x ^= x >> 33;
x *= 0xff51afd7ed558ccd; x ^= x >> 33; u = (x >> 11) / 2^53 in [0, 1).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def hash_uniform(k: int, count: int) -> NDArray[np.float64]:
    """Compute the first `count` values of sequence k: [count] in [0, 1)."""
    offset = (k + 1) * 1442695040888963407 % 2**64
    x = np.arange(count, dtype=np.uint64) * np.uint64(6364136223846793005) + np.uint64(offset)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    return (x >> np.uint64(11)).astype(np.float64) / 2.0**53


def hash_state(network: nn.Module) -> dict[str, Tensor]:
    """Compute a state dict for `network`; every value depends on the names of all its keys, and on nothing random."""
    own = network.state_dict()
    return {name: _values(name, k, own[name]) for k, name in enumerate(sorted(own))}


def _values(name: str, k: int, like: Tensor) -> Tensor:
    if not like.dtype.is_floating_point:
        return torch.zeros(like.shape, dtype=like.dtype)
    u = hash_uniform(k, like.numel())
    c = 2 * u - 1
    if name.endswith("gaussian_matrix"):
        values = math.sqrt(3) * c
    elif name.endswith("running_var"):
        values = 1 + 0.5 * u
    elif like.ndim >= 2:
        values = math.sqrt(3) * c / math.sqrt(like.numel() / like.shape[0])
    elif name.endswith("weight"):
        values = 1 + 0.1 * c
    else:  # biases and running means
        values = 0.1 * c
    return torch.from_numpy(values.astype(np.float32)).reshape(like.shape)
