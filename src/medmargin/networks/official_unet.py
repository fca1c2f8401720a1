"""Checkpoints of nnU-Net 2, as its trainer writes them, in this toolkit's U-Nets.

Isensee et al. 2021, doi:10.1038/s41592-020-01008-z. The names of weights are the same; the release stores most of them
several times, because its blocks and its decoder refer to the same layers.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medmargin.errors import CheckpointError
from medmargin.networks.unet import UNet
from medmargin.networks.weight_files import load_strictly, read_weights

_WEIGHTS = "network_weights"
_NUMBER = np.float64(0).__reduce__()[0]
# The trainer's log in the checkpoint holds NumPy numbers. They are data; nothing else is let through.
_NUMPY_NUMBERS: list[Any] = [
    (_NUMBER, "numpy.core.multiarray.scalar"),
    (_NUMBER, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)),
]

_UNREADABLE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    TypeError, ValueError, pickle.UnpicklingError, struct.error,
)  # what PyTorch's reader raises on bytes it does not know or does not trust


def load_official(weights: Path | str | Mapping[str, Any], network: UNet) -> None:
    """Load a checkpoint of nnU-Net 2, all of its weights or none.

    Args:
        weights: `checkpoint_final.pth` or `checkpoint_best.pth`, a bare state dict in a file, or the content of one.
        network: built at the sizes in the plans of the checkpoint, plain or residual.

    Raises:
        CheckpointError: no such file, damaged, code in the file (never executed), values that are not finite, or names
            and shapes that do not fit (all are listed by kind).
    """
    origin = "weights" if isinstance(weights, Mapping) else str(weights)
    content = weights if isinstance(weights, Mapping) else _read(Path(weights))
    state = content.get(_WEIGHTS, content)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{origin}: holds no weights of nnU-Net 2: expected tensors by name in '{_WEIGHTS}'")
    once = without_duplicates(state)
    broken = [name for name, value in once.items() if not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(f"{origin}: NaN or infinite weights in {broken[0]}. Fetch or train the weights again")
    load_strictly(network, once, origin=origin)


def without_duplicates(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep each weight of a state dict of nnU-Net 2 once, under the name of the layer it belongs to."""
    plain = {name.removeprefix("module."): value for name, value in state.items()}  # of training on several devices
    return {
        name: value
        for name, value in plain.items()
        if ".all_modules." not in name and not name.startswith("decoder.encoder.")
    }


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE:
        return read_weights(path)  # safetensors, or a file that is refused there with its reason
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds no checkpoint of nnU-Net 2, found {type(content).__name__}")
    return content
