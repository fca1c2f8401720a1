"""Overlap and volume agreement of two masks: Dice 1945, Jaccard 1901."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def dice(truth: NDArray[Any], mask: NDArray[Any]) -> float:
    """Compute the Dice coefficient 2 |T and M| / (|T| + |M|).

    Args:
        truth, mask: any equal shape; non-zero is inside. A volume is measured as a whole, never slice by slice.

    Returns:
        A number in [0, 1]; 1 where both are empty (challenge rule), 0 where one is.
    """
    total = _size(truth) + _size(mask)
    return 2.0 * _intersection(truth, mask) / total if total else 1.0


def iou(truth: NDArray[Any], mask: NDArray[Any]) -> float:
    """Compute the intersection over union |T and M| / |T or M|; empty masks as in `dice`."""
    intersection = _intersection(truth, mask)
    union = _size(truth) + _size(mask) - intersection
    return intersection / union if union else 1.0


def relative_volume_error(truth: NDArray[Any], mask: NDArray[Any]) -> float | None:
    """Compute (|M| - |T|) / |T|: positive where the mask is too large; None where the truth is empty."""
    true_size = _size(truth)
    return (_size(mask) - true_size) / true_size if true_size else None


def _intersection(truth: NDArray[Any], mask: NDArray[Any]) -> int:
    return _size(np.logical_and(truth, mask))


def _size(mask: NDArray[Any]) -> int:
    return int(np.count_nonzero(mask))
