"""Measure one case: overlap, distances, volumes and uncertainty against the truth, on the truth's own grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError, GeometryError
from medmargin.evaluation.bands import band
from medmargin.evaluation.overlap import dice, iou, relative_volume_error
from medmargin.evaluation.states import State, state_of
from medmargin.evaluation.surface import (
    average_symmetric_distance,
    element_surface,
    hausdorff,
    surface_dice,
    voxel_surface,
)
from medmargin.evaluation.voxels import VoxelCounter, VoxelTally, count_voxels, voxel_figures
from medmargin.imaging.volume import Grid

NSD_TOLERANCE = {"mm": 1.0, "px": 2.0}  # 2 px as the MedSAM challenge; 1 mm because 2 mm forgives a hippocampus too much
_SLAB_VOXELS = 2_000_000
_SPACING_UNKNOWN = "spacing unknown: the file does not say how large a voxel is"


@dataclass(frozen=True)
class VolumeInterval:
    """A predicted volume; in ml where the spacing is known, in voxels where it is not.

    Attributes:
        estimate: volume of the mask.
        low, high: ends of the interval.
        level: probability that the true volume lies inside, in (0, 1).
    """

    estimate: float
    low: float
    high: float
    level: float


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
    floors: Mapping[str, NDArray[Any]] | None = None,
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
        floors: name -> label map [I, J, K] of what the prompts alone give ("box", "ellipse").
        nsd_tolerance: in the grid's unit; by default 1 mm or 2 px.
        seconds: time the prediction took.

    Raises:
        GeometryError: an array does not have the grid's shape.
        DataError: a label value is no structure, or a number is not finite or outside its range.
    """
    _check(case, grid, structures, {"truth": truth, "prediction": labels}, probabilities or {}, uncertainty)
    tolerance = NSD_TOLERANCE[grid.unit] if nsd_tolerance is None else nsd_tolerance
    entry: dict[str, Any] = {"case": case, "patient": patient, "seconds": seconds}
    if seconds is None:
        entry["seconds_reason"] = "the prediction was not timed"
    entry["structures"] = {
        name: _measure_structure(truth == value, labels == value, grid, tolerance) for name, value in structures.items()
    }
    entry |= _volumes(truth, labels, grid, structures, volumes or {})
    if floors is not None:
        entry["floors"] = {
            floor: {name: dice(truth == value, mask == value) for name, value in structures.items()}
            for floor, mask in floors.items()
        }
    region = band(truth, labels)
    whole, near = _count(truth, labels, structures, probabilities, uncertainty, region)
    entry["uncertainty"] = voxel_figures(whole) | {"band": voxel_figures(near)}
    entry["uncertainty"] |= _case_score(labels, uncertainty)
    return CaseResult(case, patient, grid.unit, tolerance, entry, whole, near)


def _measure_structure(
    truth: NDArray[np.bool_], mask: NDArray[np.bool_], grid: Grid, tolerance: float
) -> dict[str, Any]:
    state = state_of(truth, mask)
    figures: dict[str, Any] = {"dice": dice(truth, mask), "iou": iou(truth, mask)}
    if state is State.FOUND:
        thin = [axis for axis in range(3) if grid.shape[axis] == 1]
        if len(thin) == 1:  # a picture or a single slice has contours, not surfaces
            truth, mask = truth.squeeze(thin[0]), mask.squeeze(thin[0])
        spacing = [size for axis, size in enumerate(grid.spacing) if len(thin) != 1 or axis not in thin]
        voxels = voxel_surface(truth, mask, spacing)
        figures["nsd"] = surface_dice(element_surface(truth, mask, spacing), tolerance)
        distances = {"hd95": hausdorff(voxels), "assd": average_symmetric_distance(voxels)}
    else:
        figures["nsd"] = 1.0 if state is State.ABSENT else 0.0
        diagonal = None if state is State.ABSENT else float(np.linalg.norm(np.multiply(grid.shape, grid.spacing)))
        distances = dict.fromkeys(("hd95", "assd"), diagonal)
    for name, distance in distances.items():
        figures |= _in_unit(name, distance, grid.unit, "no distance: absent from truth and mask")
    figures["relative_volume_error"] = relative_volume_error(truth, mask)
    if figures["relative_volume_error"] is None:
        figures["relative_volume_error_reason"] = "the true volume is 0"
    return figures | {"state": str(state)}


def _in_unit(name: str, distance: float | None, unit: str, reason: str) -> dict[str, Any]:
    """Entries of a distance: `<name>_mm`, or `<name>_px` beside an empty `<name>_mm` where the spacing is unknown."""
    entries: dict[str, Any] = {}
    if unit != "mm":
        entries |= {f"{name}_mm": None, f"{name}_mm_reason": _SPACING_UNKNOWN}
    entries[f"{name}_{unit}"] = distance
    if distance is None:
        entries[f"{name}_{unit}_reason"] = reason
    return entries


def _volumes(
    truth: NDArray[Any],
    labels: NDArray[Any],
    grid: Grid,
    structures: Mapping[str, int],
    intervals: Mapping[str, VolumeInterval],
) -> dict[str, Any]:
    size = grid.voxel_volume_ml
    measured: dict[str, dict[str, Any]] = {}
    for name, value in structures.items():
        interval = intervals.get(name)
        true, estimate = (float(np.count_nonzero(array == value) * (size or 1.0)) for array in (truth, labels))
        if interval is None:
            reason = "the prediction came without a volume interval"
            measured[name] = {"true": true, "estimate": estimate, "low": None, "high": None, "level": None}
            measured[name] |= {f"{key}_reason": reason for key in ("low", "high", "level")}
        else:
            measured[name] = {"true": true} | {key: float(value) for key, value in asdict(interval).items()}
    if size is not None:
        return {"volumes_ml": measured}
    empty = {key: None for key in ("true", "estimate", "low", "high", "level")} | {"reason": _SPACING_UNKNOWN}
    return {"volumes_ml": {name: dict(empty) for name in structures}, "volumes_px": measured}


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
    for name, array in {**label_maps, **maps}.items():
        if array.shape != grid.shape:
            raise GeometryError(
                f"{case}: the {name} has shape {array.shape}, the image {grid.shape}. Compare files on the same grid."
            )
    for name, array in label_maps.items():
        if sum(np.count_nonzero(array == value) for value in {0, *structures.values()}) != array.size:
            strange = sorted({int(value) for value in np.unique(array)} - {0, *structures.values()})
            known = ", ".join(f"{value} {structure}" for structure, value in structures.items())
            raise DataError(f"{case}: the {name} holds the values {strange}, which are no structure (known: {known})")
    for name, array in maps.items():
        low, high = float(array.min()), float(array.max())  # NaN fails both comparisons
        limit = 1.0 if name != "uncertainty" else np.inf
        if not (low >= 0.0 and high <= limit and high < np.inf):
            raise DataError(f"{case}: the {name} runs from {low} to {high}; expected finite numbers from 0 to {limit}")
