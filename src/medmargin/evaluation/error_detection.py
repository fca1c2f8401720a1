"""Does uncertainty find errors? AUROC, AUPR, FPR at 95 % sensitivity, and the uncertainty-error overlap.

The positive class is an error, the score is the uncertainty: 0.5 is chance for AUROC, the error rate for AUPR. Jungo et
al. 2020, doi:10.3389/fnins.2020.00282 (overlap); Fawcett 2006, doi:10.1016/j.patrec.2005.10.010 (ROC).

All ranking figures follow from how many errors and items share each score, so they are functions of a `Ranking`. Those
of many images add up in a `ScoreHistogram`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError

Values = NDArray[Any]
_LEVELS = 0x7C00  # bit patterns of the finite float16 numbers >= 0, in rising order


@dataclass(frozen=True)
class Ranking:
    """Items grouped by equal score, the highest score first.

    Attributes:
        scores: [G] strictly falling.
        sizes: [G] items with this score.
        positives: [G] of them, how many are positive.
    """

    scores: NDArray[np.float64]
    sizes: NDArray[np.int64]
    positives: NDArray[np.int64]

    @property
    def items(self) -> int:
        """Number of items."""
        return int(self.sizes.sum())

    @property
    def positive_items(self) -> int:
        """Number of positive items."""
        return int(self.positives.sum())


def ranking(score: Values, positive: Values) -> Ranking:
    """Group items by their exact score.

    Args:
        score: [N] finite; higher means more probably positive.
        positive: [N] booleans.
    """
    values, group = np.unique(np.asarray(score, np.float64).ravel(), return_inverse=True)
    sizes = np.bincount(group, minlength=values.size)
    positives = np.bincount(group[np.asarray(positive, bool).ravel()], minlength=values.size)
    return Ranking(values[::-1], sizes[::-1], positives[::-1])


class ScoreHistogram:
    """Counts of items and positives per score, to rank the voxels of any number of images in constant memory.

    Scores are >= 0 and are rounded to half precision (three significant digits) first: this replaces a random
    subsample of the voxels, keeps every one of them, and the same voxels give the same figures in any order.
    """

    def __init__(self) -> None:
        self._sizes = np.zeros(_LEVELS, np.int64)
        self._positives = np.zeros(_LEVELS, np.int64)

    def add(self, score: Values, positive: Values) -> None:
        """Count items.

        Args:
            score: [N] in [0, 65504].
            positive: [N] booleans.

        Raises:
            DataError: a score is negative, not finite, or too large.
        """
        if score.size and not (float(score.min()) >= 0.0 and float(score.max()) <= 65504.0):
            raise DataError(
                f"uncertainty values run from {score.min()} to {score.max()}; expected finite numbers from 0 to 65504"
            )
        level = (score.astype(np.float16) + np.float16(0)).view(np.uint16)  # + 0 turns -0 into 0
        self._sizes += np.bincount(level, minlength=_LEVELS)
        self._positives += np.bincount(level[positive], minlength=_LEVELS)

    def add_ranking(self, counted: Ranking) -> None:
        """Count items that another histogram counted."""
        level = counted.scores.astype(np.float16).view(np.uint16)
        self._sizes[level] += counted.sizes
        self._positives[level] += counted.positives

    def ranking(self) -> Ranking:
        """Group the items counted so far."""
        level = np.flatnonzero(self._sizes)[::-1]
        scores = level.astype(np.uint16).view(np.float16).astype(np.float64)
        return Ranking(scores, self._sizes[level], self._positives[level])


def auroc(ranked: Ranking) -> float | None:
    """Compute the probability that a positive item scores higher than a negative one, ties counting half.

    Returns:
        A number in [0, 1], or None where there are no positives or no negatives.
    """
    positive, negative = ranked.positive_items, ranked.items - ranked.positive_items
    if not positive or not negative:
        return None
    negatives = ranked.sizes - ranked.positives
    below = negative - np.cumsum(negatives)
    return float((ranked.positives * (below + 0.5 * negatives)).sum() / positive / negative)


def average_precision(ranked: Ranking) -> float | None:
    """Compute AUPR in its step form, sum (recall_i - recall_i-1) precision_i; None where there are no positives."""
    if not ranked.positive_items:
        return None
    precision = np.cumsum(ranked.positives) / np.cumsum(ranked.sizes)
    return float((precision * ranked.positives).sum() / ranked.positive_items)


def false_positive_rate(ranked: Ranking, sensitivity: float = 0.95) -> float | None:
    """Compute the false-positive rate at the highest threshold that reaches `sensitivity`.

    Returns:
        A number in [0, 1], or None where there are no positives or no negatives.
    """
    negative = ranked.items - ranked.positive_items
    if not ranked.positive_items or not negative:
        return None
    reached = np.cumsum(ranked.positives) / ranked.positive_items >= sensitivity
    return float(np.cumsum(ranked.sizes - ranked.positives)[reached][0] / negative)


def uncertainty_error_overlap(uncertainty: Values, error: Values, thresholds: Values) -> NDArray[np.float64]:
    """Compute the Dice overlap of {error} and {uncertainty > t} for every threshold t.

    Args:
        uncertainty, error: any equal shape.
        thresholds: [T]; choose t on validation data, the maximum over t on test data is too good.

    Returns:
        [T] in [0, 1]; 1 where there is neither an error nor an uncertain voxel.
    """
    wrong = np.asarray(error, bool)
    overlaps = []
    for threshold in thresholds:
        uncertain = uncertainty > threshold
        total = np.count_nonzero(wrong) + np.count_nonzero(uncertain)
        overlaps.append(2.0 * np.count_nonzero(wrong & uncertain) / total if total else 1.0)
    return np.array(overlaps)
