"""Running sums over voxels: calibration and error detection of one case, or of any number of them.

Conventions, decided here once:
- Structures have one probability each and may overlap. A voxel's class vector is (background, structures..) with
  background = max(0, 1 - sum of the structures), divided by its sum; a structure without a map has probability 0.
- Overlapping structures (regions) are questions of their own: every voxel counts once per structure, with the vector
  (1 - p, p); an error is then a voxel where any structure's mask is wrong.
- ECE is that of the most probable class (its probability against whether it is the true one), 15 equal bins. The
  class-wise and the adaptive one look at the probability of every class, or of every region.
- An error is a voxel whose final label is not the true one; the uncertainty map is its score.
- The QU-BraTS figures are means over the structures; those of each structure are in `filtering`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.task import mask_of
from medmargin.evaluation.calibration import (
    Reliability,
    coarsened,
    equal_mass_error,
    equal_width,
    expected_error,
    fine_reliability,
    maximum_error,
    mean_over_classes,
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
from medmargin.evaluation.filtering import AREAS, curves_of_counts, filter_levels, joint_counts, structures_counted
from medmargin.evaluation.patches import patch_counts, patch_figures
from medmargin.evaluation.risk_coverage import aurc, risk_coverage_of_errors
from medmargin.evaluation.scoring_rules import brier_terms, likelihood_terms
from medmargin.uncertainty.calibration.classes import fill_background

ECE_BINS = 15
MCE_VOXELS = 30  # a bin with fewer voxels has no say in the largest gap
ADAPTIVE_RANGES = 15
_OF_PROBABILITIES = ("ece", "mce", "rmsce", "ece_classwise", "ece_adaptive", "brier", "nll")
_NO_VOXEL = "no voxel in this region"
_SLAB_VOXELS = 2_000_000
_OF_RANKING = ("auroc", "average_precision", "fpr95", "ueo", "ueo_max", "ueo_max_threshold", "aurc")
_OF_FILTERING = ("qu_brats", *(f"qu_brats_{area}" for area in AREAS))


@dataclass(frozen=True)
class VoxelTally:
    """What is known of a set of voxels.

    Attributes:
        voxels, errors: number of voxels, and of wrong ones.
        bins: reliability of the most probable class, or None without probabilities.
        brier, likelihood: sums of the Brier score and of -ln p (nats) over `bins.items` voxels (of each region).
        ranked: voxels by falling uncertainty with the wrong ones as positives, or None without a map.
        filtered: [41, K + 1, K + 1] voxels by uncertainty, true and predicted class, of R regions [R, 41, 2, 2] (see
            `filtering`), or None.
        classes: fine bins of the probability of each class, or of each region, or None.
        patches: [2, 2] squares by accuracy and uncertainty (see `patches`), or None.
    """

    voxels: int
    errors: int
    bins: Reliability | None
    brier: float
    likelihood: float
    ranked: Ranking | None
    filtered: NDArray[np.int64] | None = None
    classes: tuple[Reliability, ...] | None = None
    patches: NDArray[np.int64] | None = None


class VoxelCounter:
    """Adds voxels or whole tallies up; memory does not grow with their number."""

    def __init__(self) -> None:
        self._voxels = self._errors = 0
        self._bins: Reliability | None = None
        self._brier = self._likelihood = 0.0
        self._scores: ScoreHistogram | None = None
        self._filtered: NDArray[np.int64] | None = None
        self._classes: tuple[Reliability, ...] | None = None
        self._patches: NDArray[np.int64] | None = None

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

    def add_classes(self, classes: Sequence[Reliability]) -> None:
        """Count fine bins of the probability of each class."""
        given = self._classes
        self._classes = tuple(classes if given is None else (a + b for a, b in zip(given, classes, strict=True)))

    def add_patches(self, counts: NDArray[np.int64]) -> None:
        """Count squares [2, 2], as `patch_counts` returns them."""
        self._patches = counts if self._patches is None else self._patches + counts

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
        if tally.classes is not None:
            self.add_classes(tally.classes)
        if tally.patches is not None:
            self.add_patches(tally.patches)

    def tally(self) -> VoxelTally:
        """Return the sums so far."""
        ranked = None if self._scores is None else self._scores.ranking()
        return VoxelTally(
            self._voxels, self._errors, self._bins, self._brier, self._likelihood, ranked, self._filtered,
            self._classes, self._patches,
        )  # fmt: skip

    def _add_bins(self, bins: Reliability, brier: float, nats: float) -> None:
        self._bins = bins if self._bins is None else self._bins + bins
        self._brier += brier
        self._likelihood += nats

    def _histogram(self) -> ScoreHistogram:
        if self._scores is None:
            self._scores = ScoreHistogram()
        return self._scores


def count_slabs(
    counters: Sequence[tuple[VoxelCounter, NDArray[np.bool_] | None]],
    *,
    truth: NDArray[Any],
    labels: NDArray[Any],
    structures: Mapping[str, int],
    probabilities: Mapping[str, NDArray[Any]] | None,
    uncertainty: NDArray[Any] | None,
    regions: Mapping[str, int | Sequence[int]] | None = None,
) -> None:
    """Count the voxels of a whole image as `count_voxels` does, slab by slab along the last axis.

    So the class vector of a large volume never exists as a whole.
    """
    thickness = max(1, _SLAB_VOXELS // (truth.shape[0] * truth.shape[1]))
    for start in range(0, truth.shape[2], thickness):
        slab = np.s_[:, :, start : start + thickness]
        count_voxels(
            [(counter, None if region is None else region[slab]) for counter, region in counters],
            truth=truth[slab],
            labels=labels[slab],
            structures=structures,
            probabilities=probabilities and {name: values[slab] for name, values in probabilities.items()},
            uncertainty=None if uncertainty is None else uncertainty[slab],
            regions=regions,
        )


def count_voxels(
    counters: Sequence[tuple[VoxelCounter, NDArray[np.bool_] | None]],
    *,
    truth: NDArray[Any],
    labels: NDArray[Any],
    structures: Mapping[str, int],
    probabilities: Mapping[str, NDArray[Any]] | None,
    uncertainty: NDArray[Any] | None,
    regions: Mapping[str, int | Sequence[int]] | None = None,
) -> None:
    """Count the voxels of one slab into each counter, or those of its region.

    Args:
        counters: pairs of a counter and its region [I, J, K], None for all voxels.
        truth, labels: [I, J, K] with the values of `structures` and 0.
        structures: name -> label value.
        probabilities: name -> [I, J, K] in [0, 1], or None.
        uncertainty: [I, J, K] >= 0, or None.
        regions: name -> the label values in it, in the order of `structures`, where structures overlap.
    """
    error = truth != labels
    if uncertainty is not None:
        for counter, region in counters:
            counter.add_patches(patch_counts(error, uncertainty, region))
    if regions:
        _count_regions(counters, error, truth, labels, regions, probabilities, uncertainty)
        return
    numbers, classes = _class_numbers(structures), len(structures) + 1
    true_class = numbers[truth.ravel()]
    if uncertainty is not None:
        levels, label_class = filter_levels(uncertainty.ravel(), classes), numbers[labels.ravel()]
    for counter, region in counters:
        chosen = _chosen(region)
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
        chosen = _chosen(region)
        counter.add_probabilities(
            confidence[chosen], right[chosen], float(brier[chosen].sum()), float(nats[chosen].sum())
        )
        true = true_class[chosen]
        counter.add_classes([fine_reliability(values[chosen], true == k) for k, values in enumerate(vector)])


def _count_regions(
    counters: Sequence[tuple[VoxelCounter, NDArray[np.bool_] | None]],
    error: NDArray[np.bool_],
    truth: NDArray[Any],
    labels: NDArray[Any],
    regions: Mapping[str, int | Sequence[int]],
    probabilities: Mapping[str, NDArray[Any]] | None,
    uncertainty: NDArray[Any] | None,
) -> None:
    """Count the voxels of one slab: errors once, everything else once per region."""
    none = np.zeros(truth.shape, np.float32)
    true, mask = (
        {name: mask_of(array, values).ravel() for name, values in regions.items()} for array in (truth, labels)
    )
    levels = None if uncertainty is None else filter_levels(uncertainty.ravel(), 2)
    for counter, region in counters:
        chosen = _chosen(region)
        counter.add_errors(error.ravel()[chosen], None if uncertainty is None else uncertainty.ravel()[chosen])
        if levels is not None:
            counts = [joint_counts(levels[chosen], true[name][chosen], mask[name][chosen], 2) for name in regions]
            counter.add_filtered(np.stack(counts))
        if probabilities is None:
            continue
        classes = []
        for name in regions:
            inside = np.asarray(probabilities.get(name, none), np.float32).ravel()[chosen]
            vector, true_class = np.stack([1.0 - inside, inside]), true[name][chosen].astype(np.int64)
            counter.add_probabilities(
                vector.max(axis=0),
                (inside > 0.5) == true[name][chosen],
                float(brier_terms(vector, true_class).sum()),
                float(likelihood_terms(vector, true_class).sum()),
            )
            classes.append(fine_reliability(inside, true[name][chosen]))
        counter.add_classes(classes)


def _chosen(region: NDArray[np.bool_] | None) -> Any:
    """Index of a region's voxels among all."""
    return slice(None) if region is None else np.flatnonzero(region)


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
        ece, mce, rmsce, ece_classwise, ece_adaptive, brier, nll (of probabilities); auroc, average_precision, fpr95,
        ueo, ueo_max, ueo_max_threshold, aurc, pavpu and its two shares (does uncertainty find errors); qu_brats and its
        three areas; error_rate.
    """
    figures = _calibration_figures(tally) | _ranking_figures(tally) | _filtering_means(tally)
    figures |= patch_figures(tally.patches, "no uncertainty map was given" if tally.voxels else _NO_VOXEL)
    figures["error_rate"] = tally.errors / tally.voxels if tally.voxels else None
    if not tally.voxels:
        figures["error_rate_reason"] = _NO_VOXEL
    return figures


def _calibration_figures(tally: VoxelTally) -> dict[str, Any]:
    if tally.bins is None or not tally.bins.items:
        return _missing(_OF_PROBABILITIES, _NO_VOXEL if tally.bins is not None else "no probabilities were given")
    classes = tally.classes or ()
    figures: dict[str, Any] = {
        "ece": expected_error(tally.bins),
        "mce": maximum_error(tally.bins, minimum_count=MCE_VOXELS),
        "rmsce": root_mean_square_error(tally.bins),
        "ece_classwise": mean_over_classes([coarsened(bins, ECE_BINS) for bins in classes]) if classes else None,
        "ece_adaptive": float(np.mean([equal_mass_error(bins, ADAPTIVE_RANGES) for bins in classes]))
        if classes
        else None,
        "brier": tally.brier / tally.bins.items,
        "nll": tally.likelihood / tally.bins.items,
    }
    if figures["mce"] is None:
        figures["mce_reason"] = f"no bin holds {MCE_VOXELS} voxels"
    return figures


def _ranking_figures(tally: VoxelTally) -> dict[str, Any]:
    ranked = tally.ranked
    if not tally.voxels or ranked is None:
        return _missing(_OF_RANKING, "no uncertainty map was given" if tally.voxels else _NO_VOXEL)
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
        return _missing(_OF_FILTERING, "no uncertainty map was given" if tally.voxels else _NO_VOXEL)
    curves = [curves_of_counts(tally.filtered, number) for number in range(1, structures_counted(tally.filtered) + 1)]
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
