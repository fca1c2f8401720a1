"""Confidence intervals over patients, by the bootstrap (Efron 1979, percentile method)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 1000


def patient_interval(
    values: Sequence[float], patients: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Compute the interval of the mean over cases when patients are drawn anew.

    All cases of a patient are drawn together, since they are not independent.

    Args:
        values: one number per case.
        patients: patient of each case.
        level: probability of the interval.
        seed: of the 1000 draws; the same seed gives the same interval.

    Returns:
        (low, high), or None with fewer than two patients.
    """
    _, group = np.unique(np.asarray(patients), return_inverse=True)
    counts = np.bincount(group)
    if counts.size < 2:
        return None
    sums = np.bincount(group, weights=values)

    def mean(sums: NDArray[np.float64], counts: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        return np.asarray(sums.sum(axis=axis) / counts.sum(axis=axis))

    result = stats.bootstrap(
        (sums, counts),
        mean,
        n_resamples=RESAMPLES,
        paired=True,
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
