"""Equity-scaled scores over patient groups: Tian et al. 2024 (FairSeg), arXiv:2311.02189."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Equity:
    """A score and how evenly groups share it.

    Attributes:
        overall: mean over all items.
        groups: mean of each group.
        scaled: overall / (1 + alpha sum_g abs(group mean - overall)).
        worst: name of the group with the lowest mean.
        gap: highest minus lowest group mean.
    """

    overall: float
    groups: dict[str, float]
    scaled: float
    worst: str
    gap: float


def equity(scores: Mapping[str, Sequence[float]], *, alpha: float = 1.0) -> Equity:
    """Scale a score (higher is better) by the differences between groups.

    Args:
        scores: group name -> scores of its items, at least one each.
        alpha: weight of the differences.
    """
    groups = {name: float(np.mean(values)) for name, values in scores.items()}
    overall = float(np.mean(np.concatenate([np.asarray(values, np.float64) for values in scores.values()])))
    differences = sum(abs(mean - overall) for mean in groups.values())
    means = list(groups.values())
    worst = min(groups, key=lambda name: groups[name])
    return Equity(overall, groups, overall / (1.0 + alpha * differences), worst, max(means) - min(means))
