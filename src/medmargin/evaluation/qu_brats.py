"""QU-BraTS score of an uncertainty map: Mehta et al. 2022, arXiv:2112.10074.

Voxels with uncertainty above a threshold are filtered. A good map filters the wrong voxels (Dice of the rest rises) and
keeps the right ones (few true positives and true negatives are filtered). A constant map 0 already scores high on the
last two: always show all three areas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.evaluation.overlap import dice

Values = NDArray[Any]
_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class FilteredCurves:
    """What remains after filtering at each threshold.

    Attributes:
        thresholds: [T] falling, in 0..100.
        dice: [T] Dice of the voxels with uncertainty <= threshold (1 where both masks are empty there).
        filtered_true_positives, filtered_true_negatives: [T] share of them that was filtered.
    """

    thresholds: NDArray[np.float64]
    dice: NDArray[np.float64]
    filtered_true_positives: NDArray[np.float64]
    filtered_true_negatives: NDArray[np.float64]

    @property
    def areas(self) -> tuple[float, float, float]:
        """Areas under the three curves, by trapezoids over the thresholds, divided by 100."""
        curves = (self.dice, self.filtered_true_positives, self.filtered_true_negatives)
        steps = -np.diff(self.thresholds) / 100.0
        dice_area, positives, negatives = (float(((y[:-1] + y[1:]) / 2 * steps).sum()) for y in curves)
        return dice_area, positives, negatives

    @property
    def score(self) -> float:
        """(area of Dice + (1 - area of positives) + (1 - area of negatives)) / 3; 1 is best."""
        dice_area, positives, negatives = self.areas
        return (dice_area + (1.0 - positives) + (1.0 - negatives)) / 3.0


def filtered_curves(
    truth: Values, mask: Values, uncertainty: Values, brain: Values, *, released: bool = False
) -> FilteredCurves:
    """Filter one region at 41 thresholds 100, 97.5, .. 0.

    Args:
        truth, mask: binary masks of the region (whole tumour: labels 1, 2, 4; core: 1, 4; enhancing: 4).
        uncertainty: in 0..100, same shape.
        brain: non-zero inside the brain; only the filtered shares use it, Dice does not.
        released: leave out the threshold 100, which the released code loses with NumPy 2.
    """
    thresholds = np.arange(100.0, -1.0, -2.5)[1 if released else 0 :]
    truth, mask, brain = (np.asarray(values) > 0 for values in (truth, mask, brain))
    true_positive, true_negative = truth & mask & brain, ~truth & ~mask & brain
    certain = [uncertainty <= threshold for threshold in thresholds]
    return FilteredCurves(
        thresholds,
        np.array([dice(truth & kept, mask & kept) for kept in certain]),
        np.array([_filtered_share(true_positive, kept) for kept in certain]),
        np.array([_filtered_share(true_negative, kept) for kept in certain]),
    )


def _filtered_share(voxels: NDArray[np.bool_], kept: NDArray[np.bool_]) -> float:
    before = np.count_nonzero(voxels)
    return (before - np.count_nonzero(voxels & kept)) / (before + _EPSILON)
