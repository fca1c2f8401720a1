"""Rank correlation with an interval over patients: do cases that are promised more Dice have more?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from medmargin.errors import DataError

_RESAMPLES = 1000
_FEWEST_PATIENTS = 4


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho in [-1, 1] with the bootstrap interval over patients; None with its reason where undefined.

    Attributes:
        rho: the correlation. low, high: interval at `level`. patients, cases: how many stand behind it.
        reason: why a number is None; empty otherwise.
    """

    rho: float | None
    low: float | None
    high: float | None
    level: float
    patients: int
    cases: int
    reason: str = ""


def spearman(
    predicted: ArrayLike, true: ArrayLike, patients: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> Correlation:
    """Compute Spearman's rank correlation; its percentile interval comes from 1000 draws of whole patients.

    Args:
        predicted, true: one number per case, equally long, all finite.
        patients: patient of each case; all cases of a patient are drawn together.
        level: probability of the interval. seed: of the draws.

    Raises:
        DataError: lengths differ, or a number is not finite.
    """
    first, second = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    if not first.shape == second.shape == (len(patients),):
        raise DataError(f"correlation of {first.size} and {second.size} numbers of {len(patients)} cases: not paired")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DataError("correlation: a number is NaN or infinite; leave out cases without a prediction")
    _, group = np.unique(np.asarray(patients), return_inverse=True)
    count = int(group.max(initial=-1)) + 1
    rho = rank_correlation(first, second)
    if rho is None:
        return Correlation(None, None, None, level, count, first.size, "one of the two is the same in all cases")
    if count < _FEWEST_PATIENTS:
        reason = f"an interval needs at least {_FEWEST_PATIENTS} patients, found {count}"
        return Correlation(rho, None, None, level, count, first.size, reason)
    rng, members = np.random.default_rng(seed), [np.flatnonzero(group == index) for index in range(count)]
    draws = (np.concatenate([members[index] for index in rng.integers(0, count, count)]) for _ in range(_RESAMPLES))
    drawn = [value for cases in draws if (value := rank_correlation(first[cases], second[cases])) is not None]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Correlation(rho, float(low), float(high), level, count, first.size)


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Compute Pearson's correlation of the average ranks; None where one side has no order."""
    ranks = stats.rankdata([first, second], axis=1) if first.size else np.zeros((2, 0))
    centred = ranks - ranks.mean(axis=1, keepdims=True) if first.size else ranks
    norm = np.sqrt((centred**2).sum(axis=1).prod())
    return float(np.clip((centred[0] * centred[1]).sum() / norm, -1, 1)) if norm > 0 else None
