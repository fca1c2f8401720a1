"""A case with several raters: do the answer's plausible masks spread as the raters do, and how far do raters agree?

Definitions in `raters` (Kohl et al. 2018 and 2019; NCC: Kahl et al. 2024). An answer without samples of its own stands
for 16 masks, the level sets {p > (i + 1/2) / 16} of each structure's probability map: nested outlines from the widest
to the tightest, whose mean is p. Without probabilities its mask is the only sample. Level sets are nested, so all
overlaps follow from how many voxels reach each level, in all and in each rater's mask: no stack of masks is kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from medmargin.datasets.task import mask_of

SAMPLES = 16
FIGURES = ("ged", "hungarian_iou", "sample_diversity", "rater_dice", "mask_dice")
_SLAB_VOXELS = 2_000_000


def measure_raters(
    raters: Sequence[NDArray[Any]],
    labels: NDArray[Any],
    structures: Mapping[str, int | Sequence[int]],
    probabilities: Mapping[str, NDArray[Any]] | None,
    uncertainty: NDArray[Any] | None,
    *,
    ignored: NDArray[np.bool_] | None = None,
) -> dict[str, Any]:
    """Measure an answer against at least two raters.

    Args:
        raters: label maps [I, J, K], the truth first.
        labels: the answer's label map.
        structures: name -> label value, or the values in a region.
        probabilities: name -> [I, J, K] in [0, 1], or None.
        uncertainty: [I, J, K], or None.
        ignored: [I, J, K] voxels that count nowhere; the label maps hold background there. None: all count.

    Returns:
        n (raters), samples and what they are; by structure and as their mean: `ged` (squared, V-statistic),
        `hungarian_iou`, `sample_diversity`, `rater_dice` (mean over pairs of raters), `mask_dice` (mask against each
        rater); `ncc` of the raters' variance and the uncertainty map.
    """
    figures = {}
    for name, value in structures.items():
        probability = None if probabilities is None else probabilities.get(name, np.zeros(labels.shape, np.float32))
        if probability is not None and ignored is not None:
            probability = np.where(ignored, np.zeros((), probability.dtype), probability)
        masks = [mask_of(rater, value) for rater in raters]
        figures[name] = _structure_figures(masks, mask_of(labels, value), probability)
    mean = {key: float(np.mean([found[key] for found in figures.values()])) if figures else None for key in FIGURES}
    samples = "the mask alone" if probabilities is None else "level sets of the probability map"
    measured = {"n": len(raters), "samples": 1 if probabilities is None else SAMPLES, "samples_are": samples}
    return measured | {"structures": figures, "mean": mean} | _correlation(raters, structures, uncertainty, ignored)


def _structure_figures(
    raters: Sequence[NDArray[np.bool_]], mask: NDArray[np.bool_], probability: NDArray[Any] | None
) -> dict[str, float]:
    inside, sizes, rater_sizes = _level_sizes(raters, mask if probability is None else probability)
    between = _ratio(inside, sizes[:, None] + rater_sizes[None] - inside)  # [S, R] IoU
    nested = _ratio(np.minimum.outer(sizes, sizes), np.maximum.outer(sizes, sizes))  # [S, S]
    shared = np.array([[np.count_nonzero(a & b) for b in raters] for a in raters])
    among = _ratio(shared, rater_sizes[:, None] + rater_sizes[None] - shared)  # [R, R]
    pairs = [among[a, b] for a, b in itertools.combinations(range(len(raters)), 2)]
    with_mask = np.array([np.count_nonzero(rater & mask) for rater in raters])
    return {
        "ged": float(2.0 * (1.0 - between).mean() - (1.0 - nested).mean() - (1.0 - among).mean()),
        "hungarian_iou": _best_match(between),
        "sample_diversity": float((1.0 - nested).mean()),
        "rater_dice": float(np.mean([2.0 * iou / (1.0 + iou) for iou in pairs])),
        "mask_dice": float(_ratio(2 * with_mask, rater_sizes + np.count_nonzero(mask)).mean()),
    }


def _level_sizes(
    raters: Sequence[NDArray[np.bool_]], probability: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Voxels of each level set inside each rater's mask [S, R], in all [S], and of each rater's mask [R]."""
    is_mask = probability.dtype == np.bool_
    thresholds = np.array([0.5]) if is_mask else (np.arange(SAMPLES) + 0.5) / SAMPLES
    counts = np.zeros((len(raters) + 1, thresholds.size + 1), np.int64)
    thickness = max(1, _SLAB_VOXELS // math.prod(probability.shape[:2]))
    for start in range(0, probability.shape[2], thickness):
        slab = (..., slice(start, start + thickness))
        level = np.searchsorted(thresholds, probability[slab].astype(np.float64))  # thresholds below the probability
        chosen = [level, *(level[rater[slab]] for rater in raters)]
        counts += [np.bincount(values.ravel(), minlength=thresholds.size + 1) for values in chosen]
    reached = counts[:, ::-1].cumsum(axis=1)[:, ::-1]  # voxels with at least this level
    return reached[1:, 1:].T, reached[0, 1:], reached[1:, 0]


def _best_match(overlaps: NDArray[np.float64]) -> float:
    common = math.lcm(*overlaps.shape)
    repeated = np.tile(overlaps, (common // overlaps.shape[0], common // overlaps.shape[1]))
    return float(repeated[linear_sum_assignment(repeated, maximize=True)].mean())


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """Overlaps; 1 where both masks are empty."""
    return np.divide(part, whole, out=np.ones(whole.shape), where=whole > 0)


def _correlation(
    raters: Sequence[NDArray[Any]],
    structures: Mapping[str, int | Sequence[int]],
    uncertainty: NDArray[Any] | None,
    ignored: NDArray[np.bool_] | None,
) -> dict[str, Any]:
    """NCC over all voxels of sum_k q_k (1 - q_k), with q_k the share of raters that say k, and the uncertainty."""
    if uncertainty is None:
        return {"ncc": None, "ncc_reason": "no uncertainty map was given"}
    moments = np.zeros((3, 3))  # of (1, variance of the raters, uncertainty)
    members = ([found] if isinstance(found, int) else found for found in structures.values())
    label_values = dict.fromkeys((0, *itertools.chain.from_iterable(members)))  # in order, each once
    for index in range(uncertainty.shape[2]):
        spread = np.zeros(uncertainty.shape[:2])
        for value in label_values:
            share = np.mean([rater[..., index] == value for rater in raters], axis=0)
            spread += share * (1.0 - share)
        values = np.stack([np.ones(spread.size), spread.ravel(), uncertainty[..., index].astype(np.float64).ravel()])
        if ignored is not None:
            values = values[:, ~ignored[..., index].ravel()]
        moments += values @ values.T
    means = moments[0, 1:] / moments[0, 0]
    covariance = moments[1:, 1:] / moments[0, 0] - np.outer(means, means)
    variances = covariance.diagonal()
    if not (variances > 1e-15 * means**2).all():
        constant = "raters agree everywhere" if variances[0] <= 1e-15 * means[0] ** 2 else "uncertainty is constant"
        return {"ncc": None, "ncc_reason": f"the {constant}"}
    sample_deviations = math.sqrt(variances[0] * variances[1]) * moments[0, 0] / (moments[0, 0] - 1.0)
    return {"ncc": float(covariance[0, 1] / sample_deviations)}
