"""QU-BraTS curves from counts: voxels by uncertainty, true and predicted class, so that no map needs to be kept.

Definitions in `qu_brats`. Conventions: one map speaks for all structures; 100 is the entropy of equally likely classes
(ln of their number, background included; of overlapping structures ln 2), larger values count as 100; the region takes
the place of the brain mask. Overlapping structures are counted apart, each as a class and its background.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.evaluation.qu_brats import FilteredCurves

_THRESHOLDS = np.arange(0.0, 101.0, 2.5)
_EPSILON = float(np.finfo(np.float32).eps)
AREAS = ("dice_auc", "ftp_auc", "ftn_auc")


def filter_levels(uncertainty: NDArray[Any], classes: int) -> NDArray[np.intp]:
    """Find the position of the lowest threshold (0, 2.5, .. 100) that keeps each voxel.

    Args:
        uncertainty: nats >= 0, any shape.
        classes: their number with background.
    """
    share = np.minimum(uncertainty * (100.0 / math.log(max(classes, 2))), 100.0)
    return np.searchsorted(_THRESHOLDS.astype(share.dtype), share)


def joint_counts(
    levels: NDArray[Any], true_class: NDArray[Any], predicted_class: NDArray[Any], classes: int
) -> NDArray[np.int64]:
    """Count voxels by level, true and predicted class: [41, classes, classes] from three arrays [N]."""
    position = (levels * classes + true_class) * classes + predicted_class
    shape = (_THRESHOLDS.size, classes, classes)
    return np.bincount(position, minlength=math.prod(shape)).reshape(shape)


def curves_of_counts(counts: NDArray[np.int64], structure: int) -> FilteredCurves:
    """Compute the curves of one structure as `filtered_curves` does for its masks, the region as brain.

    Args:
        counts: [41, classes, classes], or [R, 41, 2, 2] of R overlapping structures.
        structure: its number, from 1.
    """
    if counts.ndim == 4:
        counts, structure = counts[structure - 1], 1
    kept = counts.cumsum(axis=0)
    both = kept[:, structure, structure]
    truth, mask = kept[:, structure, :].sum(axis=1), kept[:, :, structure].sum(axis=1)
    neither = kept.sum(axis=(1, 2)) - truth - mask + both
    total = (truth + mask).astype(np.float64)
    dice = np.divide(2.0 * both, total, out=np.ones_like(total), where=total > 0)
    shares = [(values[-1] - values) / (values[-1] + _EPSILON) for values in (both, neither)]
    return FilteredCurves(_THRESHOLDS[::-1], dice[::-1], shares[0][::-1], shares[1][::-1])


def structures_counted(counts: NDArray[np.int64]) -> int:
    """Number of structures in counts of either shape (see `curves_of_counts`)."""
    return counts.shape[0] if counts.ndim == 4 else counts.shape[1] - 1


def filtering_figures(counts: NDArray[np.int64] | None, structures: Mapping[str, int] | list[str]) -> dict[str, Any]:
    """Compute score and areas of every structure, in the order of the classes.

    Returns:
        Structure -> qu_brats, dice_auc, ftp_auc, ftn_auc; empty without an uncertainty map.
    """
    if counts is None:
        return {}
    found = {name: curves_of_counts(counts, position) for position, name in enumerate(structures, start=1)}
    return {
        name: {"qu_brats": curves.score, **dict(zip(AREAS, curves.areas, strict=True))}
        for name, curves in found.items()
    }
