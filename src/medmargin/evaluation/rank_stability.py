"""Would the same result win with other patients? Rankings over bootstrap samples of the patients.

Wiesenfarth et al. 2021, Sci Rep 11:2369 (challengeR): bootstrap rankings and Kendall's tau against the full ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.evaluation.statistics import RESAMPLES

_DECIMALS = 12  # means that only rounding makes differ are equal


def rank_stability(
    values: NDArray[np.float64], names: Sequence[str], *, higher_is_better: bool, seed: int = 0
) -> dict[str, Any]:
    """Rank results by their mean over patients, and again for 1000 samples of patients drawn with replacement.

    Args:
        values: [P, R], one number per patient and result.
        names: of the R results.
        higher_is_better: direction of the metric.
        seed: of the draws.

    Returns:
        `order`: names, the best first; `first`: name -> share of the samples in which it ranks first, shared equally
        among equals; `kendall_tau`: mean and 5th percentile of tau between the samples' ranking and the full one (1 the
        same, -1 reversed). What does not exist is None with its reason.
    """
    merits = np.round(values if higher_is_better else -values, _DECIMALS)
    full = merits.mean(axis=0)
    order = [names[index] for index in np.argsort(-full, kind="stable")]
    if len(merits) < 2:
        reason = "needs at least two patients"
        return {"order": order, "first": None, "first_reason": reason, "kendall_tau": None,
                "kendall_tau_reason": reason}  # fmt: skip
    draws = np.random.default_rng(seed).integers(0, len(merits), (RESAMPLES, len(merits)))
    means = np.round(merits[draws].mean(axis=1), _DECIMALS)  # [1000, R]
    is_first = means == means.max(axis=1, keepdims=True)
    shares = (is_first / is_first.sum(axis=1, keepdims=True)).mean(axis=0)
    found: dict[str, Any] = {"order": order, "first": dict(zip(names, shares.tolist(), strict=True))}
    if np.unique(np.round(full, _DECIMALS)).size < 2:
        return found | {"kendall_tau": None, "kendall_tau_reason": "all means are equal: there is no ranking"}
    taus = kendall_tau(means, np.round(full, _DECIMALS))
    return found | {"kendall_tau": {"mean": float(taus.mean()), "p5": float(np.percentile(taus, 5))}}


def kendall_tau(scores: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute Kendall's tau-a, (concordant - discordant pairs) / all pairs, of each row of scores [N, R] with [R]."""
    first, second = np.triu_indices(reference.size, k=1)
    agreement = np.sign(scores[:, first] - scores[:, second]) * np.sign(reference[first] - reference[second])
    return np.asarray(agreement.mean(axis=1))
