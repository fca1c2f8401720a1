"""Measure one case: overlap, distances, volumes and uncertainty against the truth, on the truth's own grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError, GeometryError
from medmargin.evaluation.bands import band
from medmargin.evaluation.filtering import filtering_figures
from medmargin.evaluation.overlap import dice
from medmargin.evaluation.rater_figures import measure_raters
from medmargin.evaluation.structures import measure_structures
from medmargin.evaluation.volumes import VolumeInterval, measure_volumes
from medmargin.evaluation.voxels import VoxelCounter, VoxelTally, count_voxels, voxel_figures
from medmargin.imaging.volume import Grid

# 2 px as the MedSAM challenge; not its 2 mm, which forgive a structure of 10 mm (hippocampus) too much.
NSD_TOLERANCE = {"mm": 1.0, "px": 2.0}
_SLAB_VOXELS = 2_000_000
_ROUNDING = 1e-4  # by which a mean of single-precision probabilities may exceed 1


@dataclass(frozen=True)
class CaseResult:
    """Everything measured in one case.

    Attributes:
        case, patient: names.
        unit: "mm" or "px".
        nsd_tolerance: in `unit`.
        entry: the case as in the `cases` of `evaluate --json`.
        whole, band: sums over all voxels, and over those near a border, for pooling over cases.
    """

    case: str
    patient: str
    unit: str
    nsd_tolerance: float
    entry: dict[str, Any]
    whole: VoxelTally
    band: VoxelTally


def measure_case(
    case: str,
    patient: str,
    truth: NDArray[Any],
    labels: NDArray[Any],
    *,
    grid: Grid,
    structures: Mapping[str, int],
    probabilities: Mapping[str, NDArray[Any]] | None = None,
    uncertainty: NDArray[Any] | None = None,
    volumes: Mapping[str, VolumeInterval] | None = None,
    floors: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
    raters: Sequence[NDArray[Any]] = (),
    attributes: Mapping[str, str] | None = None,
    nsd_tolerance: float | None = None,
    seconds: float | None = None,
) -> CaseResult:
    """Measure a predicted label map.

    Args:
        case, patient: names; the patient groups cases in the confidence intervals.
        truth, labels: [I, J, K] integers on `grid`: 0 and the values of `structures`.
        grid: geometry; where its unit is "px" nothing is given in mm or ml.
        structures: name -> label value.
        probabilities: name -> [I, J, K] in [0, 1] before any post-processing, or None.
        uncertainty: [I, J, K] >= 0 in nats, or None.
        volumes: predicted volumes with intervals, by structure.
        floors: "box" and "ellipse" -> structure -> [I, J, K] mask of what the prompt alone gives; masks of nested
            structures may overlap.
        raters: label maps [I, J, K] of further raters, beside `truth`, which is the first rater's.
        attributes: facts of the patient or image (sex, age, site ..), to compare subgroups by.
        nsd_tolerance: in the grid's unit; by default 1 mm or 2 px.
        seconds: time the prediction took.

    Raises:
        GeometryError: an array does not have the grid's shape.
        DataError: a label value is no structure, or a number is not finite or outside its range.
    """
    label_maps = {"truth": truth, "prediction": labels}
    label_maps |= {f"label map of rater {number}": values for number, values in enumerate(raters, start=2)}
    _check(case, grid, structures, label_maps, probabilities or {}, uncertainty)
    for floor, masks in (floors or {}).items():
        _check_shapes(case, grid, {f"{floor} floor of {name}": mask for name, mask in masks.items()})
    tolerance = NSD_TOLERANCE[grid.unit] if nsd_tolerance is None else nsd_tolerance
    entry: dict[str, Any] = {"case": case, "patient": patient, "seconds": seconds}
    if seconds is None:
        entry["seconds_reason"] = "the prediction was not timed"
    if attributes:
        entry["attributes"] = dict(attributes)
    entry["structures"] = measure_structures(truth, labels, structures, grid, tolerance)
    entry |= measure_volumes(truth, labels, grid, structures, volumes or {})
    if floors:
        entry["floors"] = {
            floor: {name: dice(truth == value, masks[name]) for name, value in structures.items()}
            for floor, masks in floors.items()
        }
    region = band(truth, labels)
    whole, near = _count(truth, labels, structures, probabilities, uncertainty, region)
    entry["uncertainty"], entry["uncertainty"]["band"] = (
        voxel_figures(tally) | {"structures": filtering_figures(tally.filtered, structures)} for tally in (whole, near)
    )
    if raters:
        entry["raters"] = measure_raters((truth, *raters), labels, structures, probabilities, uncertainty)
    entry["uncertainty"] |= _case_score(labels, uncertainty)
    return CaseResult(case, patient, grid.unit, tolerance, entry, whole, near)


def _count(
    truth: NDArray[Any],
    labels: NDArray[Any],
    structures: Mapping[str, int],
    probabilities: Mapping[str, NDArray[Any]] | None,
    uncertainty: NDArray[Any] | None,
    region: NDArray[np.bool_],
) -> tuple[VoxelTally, VoxelTally]:
    """Count slab by slab along the last axis, so that the class vector of a large volume never exists as a whole."""
    whole, near = VoxelCounter(), VoxelCounter()
    thickness = max(1, _SLAB_VOXELS // (truth.shape[0] * truth.shape[1]))
    for start in range(0, truth.shape[2], thickness):
        slab = (slice(None), slice(None), slice(start, start + thickness))
        count_voxels(
            [(whole, None), (near, region[slab])],
            truth=truth[slab],
            labels=labels[slab],
            structures=structures,
            probabilities=probabilities and {name: values[slab] for name, values in probabilities.items()},
            uncertainty=None if uncertainty is None else uncertainty[slab],
        )
    return whole.tally(), near.tally()


def _case_score(labels: NDArray[Any], uncertainty: NDArray[Any] | None) -> dict[str, Any]:
    """Mean uncertainty near the predicted borders (everywhere where nothing is predicted): needs no truth."""
    if uncertainty is None:
        return {"case_score": None, "case_score_reason": "no uncertainty map was given"}
    near = band(labels)
    return {"case_score": float(uncertainty[near].mean() if near.any() else uncertainty.mean())}


def _check(
    case: str,
    grid: Grid,
    structures: Mapping[str, int],
    label_maps: Mapping[str, NDArray[Any]],
    probabilities: Mapping[str, NDArray[Any]],
    uncertainty: NDArray[Any] | None,
) -> None:
    maps = {f"probability of {name}": values for name, values in probabilities.items()}
    if uncertainty is not None:
        maps["uncertainty"] = uncertainty
    _check_shapes(case, grid, {**label_maps, **maps})
    for name, array in label_maps.items():
        if sum(np.count_nonzero(array == value) for value in {0, *structures.values()}) != array.size:
            strange = sorted({int(value) for value in np.unique(array)} - {0, *structures.values()})
            known = ", ".join(f"{value} {structure}" for structure, value in {"background": 0, **structures}.items())
            raise DataError(f"{case}: the {name} holds the values {strange}, which are no structure (known: {known})")
    for name, array in maps.items():
        low, high = float(array.min()), float(array.max())  # NaN fails both comparisons
        limit = 1.0 if name != "uncertainty" else np.inf
        if not (low >= 0.0 and high <= limit + _ROUNDING and high < np.inf):
            raise DataError(f"{case}: the {name} runs from {low} to {high}; expected finite numbers from 0 to {limit}")


def _check_shapes(case: str, grid: Grid, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        if array.shape != grid.shape:
            raise GeometryError(
                f"{case}: the {name} has shape {array.shape}, the image {grid.shape}. Compare files on the same grid."
            )
