"""Two results on the same patients: is one better, by how much, and how sure can so few patients make us?

Wilcoxon 1945, Biometrics Bulletin 1(6):80 (signed-rank test); Kerby 2014, doi:10.2466/11.IT.3.1 (matched-pairs
rank-biserial correlation); Lakens 2013, doi:10.3389/fpsyg.2013.00863 (d_z); Holm 1979, Scand J Statist 6(2):65.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medmargin.evaluation.statistics import patient_interval

FEWEST_PAIRS = 6  # with 5 the smallest two-sided p is 1/16: no result, however clear, could reach 0.05
_MOST_EXACT, _MOST_EXACT_TIED = 50, 13  # pairs; beyond, the normal approximation with tie correction
_DECIMALS = 12  # differences that only rounding makes are none


def paired_difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, Any]:
    """Compare two columns of one number per patient.

    Args:
        first, second: [P] values of the same patients in the same order, finite.

    Returns:
        n; `difference` = first - second: mean, median, ci95 = [low, high] of the mean over patients; the entries of
        `signed_rank`; `rank_biserial` in [-1, 1] and `cohens_dz` = mean / standard deviation of the differences, both
        positive where the first is larger. What does not exist is None, its reason beside it as `<name>_reason`.
    """
    differences = np.round(np.asarray(first, np.float64) - second, _DECIMALS)
    interval = patient_interval(differences.tolist(), [str(index) for index in range(differences.size)])
    figures: dict[str, Any] = {"mean": float(differences.mean()), "median": float(np.median(differences))}
    figures["ci95"] = None if interval is None else list(interval)
    if interval is None:
        figures["ci95_reason"] = "an interval needs at least two patients"
    return {"n": differences.size, "difference": figures, **signed_rank(differences), **_effect(differences)}


def signed_rank(differences: NDArray[np.float64]) -> dict[str, Any]:
    """Test whether the differences are symmetric about 0, two-sided. Patients without a difference are left out.

    Args:
        differences: [P], one per patient.

    Returns:
        `n_zero`, patients left out; `p`, None with its reason where fewer than 6 patients differ; `test`, "exact" or
        "normal approximation"; `smallest_p` that this many differing patients can reach, whatever the results.
    """
    nonzero = differences[differences != 0]
    found: dict[str, Any] = {"n_zero": int(differences.size - nonzero.size), "p": None, "test": None}
    found["smallest_p"] = 2.0 ** (1 - nonzero.size) if nonzero.size else None
    if not nonzero.size:
        reason = "no patient differs"
        return found | {"smallest_p_reason": reason, "p_reason": reason, "test_reason": reason}
    if nonzero.size < FEWEST_PAIRS:
        count = f"{nonzero.size} patient differs" if nonzero.size == 1 else f"{nonzero.size} patients differ"
        reason = f"only {count}: p could not be below {found['smallest_p']:.4g}; at least {FEWEST_PAIRS} are needed"
        return found | {"p_reason": reason, "test_reason": reason}
    is_tied = np.unique(np.abs(nonzero)).size < nonzero.size
    method: Any = "asymptotic"
    if is_tied and nonzero.size <= _MOST_EXACT_TIED:
        method = stats.PermutationMethod(n_resamples=2**nonzero.size)  # as many as there are: all of them
    elif not is_tied and nonzero.size <= _MOST_EXACT:
        method = "exact"
    p = float(stats.wilcoxon(nonzero, method=method).pvalue)
    return found | {"p": p, "test": "normal approximation" if method == "asymptotic" else "exact"}


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of one family of tests, so that the chance of any false finding among them stays bounded.

    Equation: in rising order p_(i), adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), m tests.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted.tolist()


def _effect(differences: NDArray[np.float64]) -> dict[str, Any]:
    found: dict[str, Any] = {"rank_biserial": None, "cohens_dz": None}
    nonzero = differences[differences != 0]
    if nonzero.size:
        ranks = stats.rankdata(np.abs(nonzero))
        found["rank_biserial"] = float((ranks * np.sign(nonzero)).sum() / ranks.sum())
    else:
        found["rank_biserial_reason"] = "no patient differs"
    if differences.size > 1 and np.ptp(differences) > 0:
        found["cohens_dz"] = float(differences.mean() / differences.std(ddof=1))
    else:
        one = differences.size < 2
        found["cohens_dz_reason"] = "needs at least two patients" if one else "all patients differ by the same amount"
    return found
