"""Uncertainty-error overlap (UEO) from counted voxels: at a stated threshold, at the best one, at a held-out one.

Jungo et al. 2020, doi:10.3389/fnins.2020.00282: Dice overlap of {error} and {uncertainty > t}. The maximum over t looks
at the errors it is judged by and is too good; an honest number takes t from elsewhere. Two such are given: a threshold
fixed in advance, and for every patient the threshold that is best on all other patients.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medmargin.evaluation.error_detection import Ranking

UEO_THRESHOLD = 0.5 * math.log(2.0)
"""Nats: half the entropy of a coin toss, reached where the likelier of two answers has a probability of 0.89."""
_GRID = np.append(0.0, np.geomspace(1e-3, 4.0, 400))  # nats; the entropy of 54 equally likely classes is 4


def overlap_at(ranked: Ranking, threshold: float) -> float:
    """Compute the overlap at one threshold (nats): a number in [0, 1]; 1 with neither an error nor an uncertain one."""
    found, uncertain = _above(ranked, np.array([threshold]))
    return float(_overlaps(found, uncertain, ranked.positive_items)[0])


def best_overlap(ranked: Ranking) -> tuple[float, float]:
    """Find the largest overlap over all thresholds >= 0, and the threshold (nats) that gives it."""
    thresholds = ranked.scores if ranked.scores[-1] == 0.0 else np.append(ranked.scores, 0.0)
    overlaps = _overlaps(*_above(ranked, thresholds), ranked.positive_items)
    best = int(overlaps.argmax())
    return float(overlaps[best]), float(thresholds[best])


class HeldOutOverlap:
    """Keeps a few hundred counts per patient, and judges each by the threshold that is best on all others."""

    def __init__(self) -> None:
        self._counts: dict[str, NDArray[np.int64]] = {}

    def add(self, patient: str, ranked: Ranking | None) -> None:
        """Count the voxels of one case; without an uncertainty map there is nothing to count."""
        if ranked is None or not ranked.items:
            return
        found, uncertain = _above(ranked, _GRID)
        counts = np.stack([found, uncertain, np.full_like(found, ranked.positive_items)])
        self._counts[patient] = self._counts.get(patient, 0) + counts

    def overlap(self) -> tuple[float, float] | None:
        """Compute the overlap of all patients' voxels, each at its own held-out threshold, and the median threshold.

        Returns:
            (overlap in [0, 1], nats), or None with fewer than two patients.
        """
        if len(self._counts) < 2:
            return None
        every = np.stack(list(self._counts.values()))  # [P, 3, T]
        others = every.sum(axis=0)[None] - every
        chosen = _overlaps(others[:, 0], others[:, 1], others[:, 2]).argmax(axis=1)  # [P]
        found, uncertain, errors = np.take_along_axis(every, chosen[:, None, None], axis=2)[..., 0].sum(axis=0)
        return float(_overlaps(found, uncertain, errors)), float(np.median(_GRID[chosen]))


def _above(ranked: Ranking, thresholds: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of errors, and of all voxels, with uncertainty > each threshold."""
    groups = np.searchsorted(-ranked.scores, -thresholds, side="left")  # scores fall: those before it are larger
    found, uncertain = (np.append(0, np.cumsum(counts))[groups] for counts in (ranked.positives, ranked.sizes))
    return found, uncertain


def _overlaps(found: NDArray, uncertain: NDArray, errors: NDArray | int) -> NDArray[np.float64]:
    total = np.asarray(uncertain + errors, np.float64)
    return np.divide(2.0 * found, total, out=np.ones_like(total), where=total > 0)
