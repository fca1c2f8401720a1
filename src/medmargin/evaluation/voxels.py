"""Running sums over voxels: calibration and error detection of one case, or of any number of them.

Conventions, decided here once:
- Structures have one probability each and may overlap. A voxel's class vector is (background, structures..) with
  background = max(0, 1 - sum of the structures), divided by its sum; a structure without a map has probability 0.
- ECE is that of the most probable class (its probability against whether it is the true one), 15 equal bins.
- An error is a voxel whose final label is not the true one; the uncertainty map is its score.
- The QU-BraTS figures are means over the structures; those of each structure are in `filtering`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.evaluation.calibration import (
    Reliability,
    equal_width,
    expected_error,
    maximum_error,
    reliability,
    root_mean_square_error,
)
from medmargin.evaluation.error_detection import (
    Ranking,
    ScoreHistogram,
    auroc,
    average_precision,
    false_positive_rate,
)
from medmargin.evaluation.error_overlap import UEO_THRESHOLD, best_overlap, overlap_at
from medmargin.evaluation.filtering import AREAS, curves_of_counts, filter_levels, joint_counts
from medmargin.evaluation.risk_coverage import aurc, risk_coverage_of_errors
from medmargin.evaluation.scoring_rules import brier_terms, likelihood_terms
from medmargin.uncertainty.calibration.classes import fill_background

ECE_BINS = 15
MCE_VOXELS = 30  # a bin with fewer voxels has no say in the largest gap
_OF_PROBABILITIES = ("ece", "mce", "rmsce", "brier", "nll")
_OF_RANKING = ("auroc", "average_precision", "fpr95", "ueo", "ueo_max", "ueo_max_threshold", "aurc")
_OF_FILTERING = ("qu_brats", *(f"qu_brats_{area}" for area in AREAS))


@dataclass(frozen=True)
class VoxelTally:
    """What is known of a set of voxels.

    Attributes:
        voxels, errors: number of voxels, and of wrong ones.
        bins: reliability of the most probable class, or None without probabilities.
        brier, likelihood: sums of the Brier score and of -ln p (nats) over `bins.items` voxels.
        ranked: voxels by falling uncertainty with the wrong ones as positives, or None without a map.
        filtered: [41, K + 1, K + 1] voxels by uncertainty, true and predicted class (see `filtering`), or None.
    """

    voxels: int
    errors: int
    bins: Reliability | None
    brier: float
    likelihood: float
    ranked: Ranking | None
    filtered: NDArray[np.int64] | None = None


class VoxelCounter:
    """Adds voxels or whole tallies up; memory does not grow with their number."""

    def __init__(self) -> None:
        self._voxels = self._errors = 0
        self._bins: Reliability | None = None
        self._brier = self._likelihood = 0.0
        self._scores: ScoreHistogram | None = None
        self._filtered: NDArray[np.int64] | None = None

    def add_errors(self, error: NDArray[np.bool_], uncertainty: NDArray[Any] | None) -> None:
        """Count voxels [N] and, where there is a map, their uncertainty [N] >= 0."""
        self._voxels += error.size
        self._errors += int(np.count_nonzero(error))
        if uncertainty is not None:
            self._histogram().add(uncertainty, error)

    def add_probabilities(self, confidence: NDArray[Any], right: NDArray[np.bool_], brier: float, nats: float) -> None:
        """Count the confidence [N] of the most probable class, whether it is right, and the summed scores."""
        self._add_bins(reliability(confidence, right, equal_width(ECE_BINS)), brier, nats)

    def add_filtered(self, counts: NDArray[np.int64]) -> None:
        """Count voxels by uncertainty, true and predicted class, as `joint_counts` returns them."""
        self._filtered = counts if self._filtered is None else self._filtered + counts

    def add(self, tally: VoxelTally) -> None:
        """Count what another counter counted."""
        self._voxels += tally.voxels
        self._errors += tally.errors
        if tally.bins is not None:
            self._add_bins(tally.bins, tally.brier, tally.likelihood)
        if tally.ranked is not None:
            self._histogram().add_ranking(tally.ranked)
        if tally.filtered is not None:
            self.add_filtered(tally.filtered)

    def tally(self) -> VoxelTally:
        """Return the sums so far."""
        ranked = None if self._scores is None else self._scores.ranking()
        return VoxelTally(self._voxels, self._errors, self._bins, self._brier, self._likelihood, ranked, self._filtered)

    def _add_bins(self, bins: Reliability, brier: float, nats: float) -> None:
        self._bins = bins if self._bins is None else self._bins + bins
        self._brier += brier
        self._likelihood += nats

    def _histogram(self) -> ScoreHistogram:
        if self._scores is None:
            self._scores = ScoreHistogram()
        return self._scores


def count_voxels(
    counters: Sequence[tuple[VoxelCounter, NDArray[np.bool_] | None]],
    *,
    truth: NDArray[Any],
    labels: NDArray[Any],
    structures: Mapping[str, int],
    probabilities: Mapping[str, NDArray[Any]] | None,
    uncertainty: NDArray[Any] | None,
) -> None:
    """Count the voxels of one slab into each counter, or those of its region.

    Args:
        counters: pairs of a counter and its region [I, J, K], None for all voxels.
        truth, labels: [I, J, K] with the values of `structures` and 0.
        structures: name -> label value.
        probabilities: name -> [I, J, K] in [0, 1], or None.
        uncertainty: [I, J, K] >= 0, or None.
    """
    error = truth != labels
    numbers, classes = _class_numbers(structures), len(structures) + 1
    true_class = numbers[truth.ravel()]
    if uncertainty is not None:
        levels, label_class = filter_levels(uncertainty.ravel(), classes), numbers[labels.ravel()]
    for counter, region in counters:
        chosen = slice(None) if region is None else region.ravel()
        counter.add_errors(error.ravel()[chosen], None if uncertainty is None else uncertainty.ravel()[chosen])
        if uncertainty is not None:
            counter.add_filtered(joint_counts(levels[chosen], true_class[chosen], label_class[chosen], classes))
    if probabilities is None:
        return
    vector = class_vector(probabilities, structures, truth.shape).reshape(classes, -1)
    predicted = vector.argmax(axis=0)
    confidence = np.take_along_axis(vector, predicted[None], axis=0)[0]
    right = predicted == true_class
    brier, nats = brier_terms(vector, true_class), likelihood_terms(vector, true_class)
    for counter, region in counters:
        chosen = slice(None) if region is None else region.ravel()
        counter.add_probabilities(
            confidence[chosen], right[chosen], float(brier[chosen].sum()), float(nats[chosen].sum())
        )


def class_vector(
    probabilities: Mapping[str, NDArray[Any]], structures: Mapping[str, int], shape: Sequence[int]
) -> NDArray[np.float32]:
    """Turn one probability per structure into class probabilities [K + 1, *shape] that sum to 1, background first."""
    vector = np.zeros((len(structures) + 1, *shape), np.float32)
    for index, name in enumerate(structures, start=1):
        if name in probabilities:
            vector[index] = probabilities[name]
    fill_background(vector)
    return vector


def voxel_figures(tally: VoxelTally) -> dict[str, Any]:
    """Compute every figure of a set of voxels; one that does not exist is None, its reason beside it.

    Returns:
        ece, mce, rmsce, brier, nll (of probabilities); auroc, average_precision, fpr95, ueo, ueo_max,
        ueo_max_threshold, aurc (does uncertainty find errors); qu_brats and its three areas; error_rate.
    """
    figures = _calibration_figures(tally) | _ranking_figures(tally) | _filtering_means(tally)
    figures["error_rate"] = tally.errors / tally.voxels if tally.voxels else None
    if not tally.voxels:
        figures["error_rate_reason"] = "no voxel in this region"
    return figures


def _calibration_figures(tally: VoxelTally) -> dict[str, Any]:
    if tally.bins is None or not tally.bins.items:
        return _missing(
            _OF_PROBABILITIES, "no voxel in this region" if tally.bins is not None else "no probabilities were given"
        )
    figures: dict[str, Any] = {
        "ece": expected_error(tally.bins),
        "mce": maximum_error(tally.bins, minimum_count=MCE_VOXELS),
        "rmsce": root_mean_square_error(tally.bins),
        "brier": tally.brier / tally.bins.items,
        "nll": tally.likelihood / tally.bins.items,
    }
    if figures["mce"] is None:
        figures["mce_reason"] = f"no bin holds {MCE_VOXELS} voxels"
    return figures


def _ranking_figures(tally: VoxelTally) -> dict[str, Any]:
    ranked = tally.ranked
    if not tally.voxels or ranked is None:
        return _missing(_OF_RANKING, "no uncertainty map was given" if tally.voxels else "no voxel in this region")
    figures: dict[str, Any] = {
        "auroc": auroc(ranked),
        "average_precision": average_precision(ranked),
        "fpr95": false_positive_rate(ranked),
        "ueo": overlap_at(ranked, UEO_THRESHOLD),
        "aurc": aurc(risk_coverage_of_errors(ranked)),
    }
    figures["ueo_max"], figures["ueo_max_threshold"] = best_overlap(ranked)
    reason = "no voxel is wrong" if not tally.errors else "every voxel is wrong"
    return figures | {f"{name}_reason": reason for name, value in figures.items() if value is None}


def _filtering_means(tally: VoxelTally) -> dict[str, Any]:
    if not tally.voxels or tally.filtered is None:
        return _missing(_OF_FILTERING, "no uncertainty map was given" if tally.voxels else "no voxel in this region")
    curves = [curves_of_counts(tally.filtered, number) for number in range(1, tally.filtered.shape[1])]
    if not curves:
        return _missing(_OF_FILTERING, "there is no structure")
    values = np.mean([(curve.score, *curve.areas) for curve in curves], axis=0)
    return dict(zip(_OF_FILTERING, values.tolist(), strict=True))


def _missing(names: Sequence[str], reason: str) -> dict[str, Any]:
    return {key: value for name in names for key, value in ((name, None), (f"{name}_reason", reason))}


def _class_numbers(structures: Mapping[str, int]) -> NDArray[np.int64]:
    """Table from label value to position in the class vector."""
    numbers = np.zeros(max(structures.values(), default=0) + 1, np.int64)
    for index, value in enumerate(structures.values(), start=1):
        numbers[value] = index
    return numbers
