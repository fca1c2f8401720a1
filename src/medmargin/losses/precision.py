"""Losses are computed in at least float32, whatever precision the network ran in."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 if it already is; differentiable.

    Element-wise operations and sums then stay in that precision under autocast, which only touches matrix products
    and convolutions.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
