"""Several raters, several samples: does the spread of the samples match the disagreement of the raters?

Kohl et al. 2018, arXiv:1806.05034 (generalised energy distance); Kohl et al. 2019, arXiv:1905.13077 (Hungarian IoU);
Kahl et al. 2024, arXiv:2401.08501 (NCC). Masks are stacks [S, ..] and [R, ..] of label maps or binary masks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Values = NDArray[Any]


def pairwise_iou(first: Values, second: Values) -> NDArray[np.float64]:
    """Compute the IoU of every mask of one stack with every mask of another.

    With several classes it is the mean over the classes (0 excepted) present in either mask; two empty masks have 1.

    Returns:
        [S, R].
    """
    first, second = first.reshape(len(first), -1), second.reshape(len(second), -1)
    summed = np.zeros((len(first), len(second)))
    present = np.zeros_like(summed)
    for value in np.union1d(first, second):
        if value == 0:
            continue
        a, b = (first == value).astype(np.float64), (second == value).astype(np.float64)
        intersection = a @ b.T
        union = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - intersection
        summed += np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
        present += union > 0
    return np.divide(summed, present, out=np.ones_like(summed), where=present > 0)


def generalised_energy_distance(samples: Values, raters: Values, *, self_pairs: bool = True) -> float:
    """Compute GED^2 = 2 E d(s, y) - E d(s, s') - E d(y, y') with d = 1 - IoU; 0 is best.

    Args:
        samples, raters: at least one mask each; state the number of samples (16 is usual) with the result.
        self_pairs: mean over all ordered pairs (V-statistic, the default); False leaves out a mask with itself
            (U-statistic: another number, which can be negative, and which needs two masks in each stack).
    """
    between = 1.0 - pairwise_iou(samples, raters)
    return float(2.0 * between.mean() - _mean_distance(samples, self_pairs) - _mean_distance(raters, self_pairs))


def sample_diversity(samples: Values) -> float:
    """Compute E d(s, s') over all ordered pairs: 0 where all samples are equal."""
    return _mean_distance(samples, True)


def hungarian_iou(samples: Values, raters: Values) -> float:
    """Compute the mean IoU of the best one-to-one match, both stacks repeated to their least common multiple."""
    common = math.lcm(len(samples), len(raters))
    matrix = pairwise_iou(samples, raters)
    repeated = np.tile(matrix, (common // len(samples), common // len(raters)))
    rows, columns = linear_sum_assignment(repeated, maximize=True)
    return float(repeated[rows, columns].mean())


def normalised_cross_correlation(reference: Values, uncertainty: Values) -> float | None:
    """Compute NCC = sum (a - mean a)(b - mean b) / (N s_a s_b) with sample deviations s; None for a constant map.

    Args:
        reference: variance of the raters, any shape.
        uncertainty: predicted map of the same shape.
    """
    a, b = np.asarray(reference, np.float64), np.asarray(uncertainty, np.float64)
    spread = a.std(ddof=1) * b.std(ddof=1)
    return float(((a - a.mean()) * (b - b.mean())).sum() / (a.size * spread)) if spread > 0 else None


def disagreement(masks: Values) -> NDArray[np.float64]:
    """Compute p (1 - p) with p the share of the binary masks [S, ..] that hold each voxel."""
    share = np.asarray(masks, np.float64).mean(axis=0)
    return share * (1.0 - share)


def _mean_distance(masks: Values, self_pairs: bool) -> float:
    distances = 1.0 - pairwise_iou(masks, masks)
    if self_pairs:
        return float(distances.mean())
    return float(distances.sum() / (len(masks) * (len(masks) - 1)))  # the diagonal is 0
