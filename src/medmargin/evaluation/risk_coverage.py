"""Selective prediction: how the mean risk falls when the least confident items are left to a human.

Geifman, El-Yaniv 2017, arXiv:1705.08500 (selective risk); Jaeger et al. 2023, arXiv:2211.15259 (AURC in the form of
fd-shifts); Traub et al. 2024, arXiv:2407.01032 (AUGRC); Kahl et al. 2024, arXiv:2401.08501 (ValUES). An item is a voxel
(risk = wrong) or an image (risk = 1 - Dice). Lower areas are better; areas of data sets with other mean risks cannot be
compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.evaluation.error_detection import Ranking

Values = NDArray[Any]


@dataclass(frozen=True)
class RiskCoverage:
    """Risk as a function of the share of items kept, from all of them down to none; equal confidences go together.

    Attributes:
        coverages: [G + 1] falling from 1 to 0.
        selective: [G + 1] mean risk of the kept items; the value at coverage 0 repeats the one before.
        generalised: [G + 1] summed risk of the kept items over the number of all items; 0 at coverage 0.
    """

    coverages: NDArray[np.float64]
    selective: NDArray[np.float64]
    generalised: NDArray[np.float64]


def risk_coverage(risk: Values, confidence: Values) -> RiskCoverage:
    """Compute the curve of single items, at least one.

    Args:
        risk: [N] >= 0.
        confidence: [N]; the lowest is given up first.
    """
    values, group = np.unique(confidence, return_inverse=True)
    sizes = np.bincount(group, minlength=values.size)
    return _curve(sizes, np.bincount(group, weights=risk, minlength=values.size))


def risk_coverage_of_errors(ranked: Ranking) -> RiskCoverage:
    """Compute the curve of items that are wrong (risk 1) or right (0), the most uncertain given up first."""
    return _curve(ranked.sizes, ranked.positives)


def aurc(curve: RiskCoverage) -> float:
    """Compute the area under the selective risk (trapezoids over coverage; fd-shifts prints 1000 times this)."""
    return _area(curve.coverages, curve.selective)


def augrc(curve: RiskCoverage) -> float:
    """Compute the area under the generalised risk, which gives tiny coverages less weight than AURC."""
    return _area(curve.coverages, curve.generalised)


def oracle(risk: Values) -> RiskCoverage:
    """Compute the curve of the best possible order: the largest risk is given up first, one item at a time."""
    return _curve(np.ones(risk.size), np.sort(risk)[::-1])


def excess_aurc(risk: Values, confidence: Values) -> float:
    """Compute E-AURC: the area beyond the oracle's, both by the same integration; 0 is best."""
    return aurc(risk_coverage(risk, confidence)) - aurc(oracle(risk))


def values_aurc(risk: Values, confidence: Values, *, released: bool = False) -> float:
    """Compute AURC as the ValUES code does: a point is placed after the first item of each group of equal confidence.

    Within such a group the order of the items changes the result. Here equal items keep their order;
    `released=True` sorts like the released code, whose order of equal items depends on NumPy and the processor.
    """
    order = np.argsort(confidence, kind=None if released else "stable")
    risk, confidence = risk[order], confidence[order]
    count = risk.size
    remaining = risk.sum() - np.cumsum(risk)
    first = np.append(True, confidence[1:] != confidence[:-1])[: count - 1]
    removed = np.flatnonzero(first) + 1  # items gone at each point of the curve
    points = np.append(risk.sum() / count, remaining[removed - 1] / (count - removed))
    steps = np.diff(removed, prepend=0) / count
    rest = count - 1 - (removed[-1] if removed.size else 0)
    if rest:
        points, steps = np.append(points, points[-1]), np.append(steps, rest / count)
    return float(((points[:-1] + points[1:]) / 2 * steps).sum())


def values_excess_aurc(risk: Values, confidence: Values, *, released: bool = False) -> float:
    """Compute E-AURC as the ValUES code does: its area minus the plain mean of the oracle's selective risks."""
    best = np.cumsum(np.sort(risk)) / np.arange(1, risk.size + 1)
    return values_aurc(risk, confidence, released=released) - float(best.mean())


def _curve(sizes: Values, risks: Values) -> RiskCoverage:
    """Build the curve of groups in the order in which they are given up ([G] items and summed risk of each)."""
    count = sizes.sum()
    kept = count - np.append(0, np.cumsum(sizes))[:-1]
    summed = risks.sum() - np.append(0.0, np.cumsum(risks))[:-1]
    selective = summed / kept
    return RiskCoverage(
        np.append(kept / count, 0.0), np.append(selective, selective[-1]), np.append(summed / count, 0.0)
    )


def _area(coverages: Values, heights: Values) -> float:
    return float(((heights[:-1] + heights[1:]) / 2 * (coverages[:-1] - coverages[1:])).sum())
