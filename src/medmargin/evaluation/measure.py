"""Measure one case: overlap, distances, volumes and uncertainty against the truth, on the truth's own grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.task import mask_of
from medmargin.errors import DataError, GeometryError
from medmargin.evaluation.filtering import filtering_figures
from medmargin.evaluation.ignored import IGNORED_REASON, cleared
from medmargin.evaluation.overlap import dice
from medmargin.evaluation.rater_calibration import rater_calibration
from medmargin.evaluation.rater_figures import measure_raters
from medmargin.evaluation.structures import measure_structures
from medmargin.evaluation.volumes import VolumeInterval, measure_volumes
from medmargin.evaluation.voxels import VoxelCounter, VoxelTally, count_slabs, voxel_figures
from medmargin.imaging.volume import Grid
from medmargin.uncertainty.bands import band

# 2 px as the MedSAM challenge; not its 2 mm, which forgive a structure of 10 mm (hippocampus) too much.
NSD_TOLERANCE = {"mm": 1.0, "px": 2.0}
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
    regions: Mapping[str, Sequence[int]] | None = None,
    ignore: int | None = None,
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
        truth, labels: [I, J, K] integers on `grid`: 0 and the values of `structures`; in the truth also `ignore`.
        grid: geometry; where its unit is "px" nothing is given in mm or ml.
        structures: name -> label value.
        regions: name -> the label values in it, where structures overlap (see `datasets.Task`).
        ignore: label value of voxels that count nowhere, in the truth or a rater's map; see `ignored`.
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
    _check(case, grid, structures, ignore, label_maps, probabilities or {}, uncertainty)
    for floor, masks in (floors or {}).items():
        _check_shapes(case, grid, {f"{floor} floor of {name}": mask for name, mask in masks.items()})
    tolerance = NSD_TOLERANCE[grid.unit] if nsd_tolerance is None else nsd_tolerance
    entry: dict[str, Any] = {"case": case, "patient": patient, "seconds": seconds}
    if seconds is None:
        entry["seconds_reason"] = "the prediction was not timed"
    if attributes:
        entry["attributes"] = dict(attributes)
    case_score = _case_score(labels, uncertainty)
    members: dict[str, int | Sequence[int]] = {**structures, **(regions or {})}
    every_truth, predicted = (truth, *raters), labels
    (truth,), labels, ignored = cleared((truth,), labels, ignore)
    counted = None if ignored is None else ~ignored
    entry["structures"] = measure_structures(truth, labels, members, grid, tolerance)
    if ignored is None:
        entry |= measure_volumes(truth, labels, grid, members, volumes or {})
    else:
        entry |= measure_volumes(truth, labels, grid, members, {}, missing=IGNORED_REASON)
    if floors:
        entry["floors"] = {
            floor: {name: dice(mask_of(truth, value), _within(masks[name], counted)) for name, value in members.items()}
            for floor, masks in floors.items()
        }
    near_borders = _within(band(truth, labels), counted)
    overlapping = members if regions else None
    whole, near = _count(truth, labels, structures, overlapping, probabilities, uncertainty, counted, near_borders)
    entry["uncertainty"], entry["uncertainty"]["band"] = (
        voxel_figures(tally) | {"structures": filtering_figures(tally.filtered, structures)} for tally in (whole, near)
    )
    if raters:
        truths, answer, gaps = cleared(every_truth, predicted, ignore)
        entry["raters"] = measure_raters(truths, answer, members, probabilities, uncertainty, ignored=gaps)
        entry["raters"] |= rater_calibration(
            truths, answer, structures, probabilities, regions=overlapping, ignored=gaps
        )
    entry["uncertainty"] |= case_score
    return CaseResult(case, patient, grid.unit, tolerance, entry, whole, near)


def _count(
    truth: NDArray[Any],
    labels: NDArray[Any],
    structures: Mapping[str, int],
    regions: Mapping[str, int | Sequence[int]] | None,
    probabilities: Mapping[str, NDArray[Any]] | None,
    uncertainty: NDArray[Any] | None,
    counted: NDArray[np.bool_] | None,
    near_borders: NDArray[np.bool_],
) -> tuple[VoxelTally, VoxelTally]:
    """Count all voxels that count, and those near borders."""
    whole, near = VoxelCounter(), VoxelCounter()
    count_slabs(
        [(whole, counted), (near, near_borders)],
        truth=truth,
        labels=labels,
        structures=structures,
        probabilities=probabilities,
        uncertainty=uncertainty,
        regions=regions,
    )
    return whole.tally(), near.tally()


def _within(mask: NDArray[np.bool_], counted: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    return mask if counted is None else mask & counted


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
    ignore: int | None,
    label_maps: Mapping[str, NDArray[Any]],
    probabilities: Mapping[str, NDArray[Any]],
    uncertainty: NDArray[Any] | None,
) -> None:
    maps = {f"probability of {name}": values for name, values in probabilities.items()}
    if uncertainty is not None:
        maps["uncertainty"] = uncertainty
    _check_shapes(case, grid, {**label_maps, **maps})
    for name, array in label_maps.items():
        allowed = {0, *structures.values()} | ({ignore} if ignore is not None and name != "prediction" else set())
        if sum(np.count_nonzero(array == value) for value in allowed) != array.size:
            strange = sorted({int(value) for value in np.unique(array)} - allowed)
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
