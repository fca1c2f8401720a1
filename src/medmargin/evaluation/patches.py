"""Patch accuracy against patch uncertainty (PAvPU): are the wrong places the uncertain ones, square by square?

Mukhoti and Gal 2018, arXiv:1811.12709. Squares of 4 x 4 voxels lie in the planes of the first two axes and tile them;
those at the edge are smaller, and of a region only the voxels in it count. A square is accurate where more than half of
its voxels are right, and uncertain where their mean uncertainty is above a threshold fixed in advance (half of ln 2,
that of the overlap in `error_overlap`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.evaluation.error_overlap import UEO_THRESHOLD

PATCH_VOXELS = 4
FIGURES = ("pavpu", "accurate_if_certain", "uncertain_if_inaccurate")


def patch_counts(
    error: NDArray[np.bool_], uncertainty: NDArray[Any], region: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Count squares by accuracy and uncertainty.

    Args:
        error: [I, J, ..]. uncertainty: [I, J, ..] >= 0 in nats.
        region: [I, J, ..] voxels that count, None: all.

    Returns:
        [2, 2] accurate and inaccurate ones (rows), certain and uncertain ones (columns).
    """
    counted = np.ones(error.shape, bool) if region is None else region
    sizes = _summed(counted, np.uint8)
    inaccurate = 2 * _summed(error & counted, np.uint8) >= sizes
    uncertain = _summed(np.where(counted, uncertainty, 0), np.float32) > np.float32(UEO_THRESHOLD) * sizes
    kinds = (2 * inaccurate + uncertain)[sizes > 0]
    return np.bincount(kinds, minlength=4).reshape(2, 2).astype(np.int64)


def patch_figures(counts: NDArray[np.int64] | None, reason: str) -> dict[str, Any]:
    """Compute the shares of a set of squares.

    Args:
        counts: of `patch_counts`, added up, or None. reason: why there are none.

    Returns:
        pavpu: share of the squares that are accurate and certain, or inaccurate and uncertain; of the certain ones
        those that are accurate, and of the inaccurate ones those that are uncertain. None with its reason where there
        is no such square.
    """
    if counts is None or not counts.sum():
        return {key: value for name in FIGURES for key, value in ((name, None), (f"{name}_reason", reason))}
    shares = {
        "pavpu": (counts[0, 0] + counts[1, 1], counts.sum(), ""),
        "accurate_if_certain": (counts[0, 0], counts[:, 0].sum(), "no square is certain"),
        "uncertain_if_inaccurate": (counts[1, 1], counts[1].sum(), "no square is inaccurate"),
    }
    found: dict[str, Any] = {}
    for name, (part, whole, missing) in shares.items():
        found |= {name: float(part / whole)} if whole else {name: None, f"{name}_reason": missing}
    return found


def _summed(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Sum [I, J, ..] over the squares: [ceil(I / 4), ceil(J / 4), ..]."""
    for axis in (0, 1):
        before = (slice(None),) * axis
        total = values[(*before, slice(0, None, PATCH_VOXELS))].astype(dtype)
        for start in range(1, min(PATCH_VOXELS, values.shape[axis])):
            part = values[(*before, slice(start, None, PATCH_VOXELS))]
            total[(*before, slice(part.shape[axis]))] += part
        values = total
    return values
