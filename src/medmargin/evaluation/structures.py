"""Measure the structures of one case: overlap and distances, by the rules of `states` for empty masks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmargin.datasets.task import mask_of
from medmargin.evaluation.overlap import dice, iou, relative_volume_error
from medmargin.evaluation.states import State, state_of
from medmargin.evaluation.surface import (
    average_symmetric_distance,
    element_surface,
    hausdorff,
    surface_dice,
    voxel_surface,
)
from medmargin.imaging.volume import Grid

STRUCTURE_METRICS = ("dice", "iou", "nsd", "hd95_mm", "assd_mm", "hd95_px", "assd_px", "relative_volume_error")
SPACING_UNKNOWN = "spacing unknown: the file does not say how large a voxel is"
_MOST_THREADS = 4  # each holds some ten bytes a voxel of its structure's box

Box = tuple[slice, ...]


def measure_structures(
    truth: NDArray[Any],
    labels: NDArray[Any],
    structures: Mapping[str, int | Sequence[int]],
    grid: Grid,
    tolerance: float,
) -> dict[str, dict[str, Any]]:
    """Measure all structures of two label maps, each within the box around it in both maps, several at a time.

    Args:
        truth, labels: [I, J, K] integers on `grid`.
        structures: name -> label value, above 0, or the values in a region.
        grid, tolerance: see `measure_structure`.

    Returns:
        Name -> figures, equal to those of `measure_structure` on the whole masks.
    """
    members = {name: [found] if isinstance(found, int) else found for name, found in structures.items()}
    most = max((value for values in members.values() for value in values), default=1)
    boxes = [ndimage.find_objects(array, most) for array in (truth, labels)]

    def measured(values: Sequence[int]) -> dict[str, Any]:
        box = _joint_box([found[value - 1] for found in boxes for value in values], grid.shape)
        return measure_structure(mask_of(truth[box], values), mask_of(labels[box], values), grid, tolerance)

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
        return dict(zip(structures, threads.map(measured, members.values()), strict=True))


def measure_structure(
    truth: NDArray[np.bool_], mask: NDArray[np.bool_], grid: Grid, tolerance: float
) -> dict[str, Any]:
    """Measure a mask against the truth.

    Args:
        truth, mask: [I, J, K] booleans on `grid`, or one part of both that holds all of the structure.
        grid: geometry of the whole image; with one slice it is measured as a picture. Distances are in its unit.
        tolerance: of the surface Dice, in the grid's unit.

    Returns:
        `STRUCTURE_METRICS` and the state; a number that does not exist is None with `<name>_reason` beside it.
    """
    state = state_of(truth, mask)
    figures: dict[str, Any] = {"dice": dice(truth, mask), "iou": iou(truth, mask)}
    figures["nsd"], hd95, assd = _surface_figures(state, truth, mask, grid, tolerance)
    figures |= _in_unit("hd95", hd95, grid.unit) | _in_unit("assd", assd, grid.unit)
    figures["relative_volume_error"] = relative_volume_error(truth, mask)
    if figures["relative_volume_error"] is None:
        figures["relative_volume_error_reason"] = "the true volume is 0"
    return figures | {"state": str(state)}


def _joint_box(boxes: list[Box | None], shape: tuple[int, ...]) -> Box:
    """Box around both boxes; one voxel where the structure is in neither map."""
    found = [box for box in boxes if box is not None]
    if not found:
        return tuple(slice(0, 1) for _ in shape)
    return tuple(slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*found, strict=True))


def _surface_figures(
    state: State, truth: NDArray[np.bool_], mask: NDArray[np.bool_], grid: Grid, tolerance: float
) -> tuple[float | None, float | None, float | None]:
    """NSD, HD95 and ASSD."""
    if state is State.ABSENT:
        return 1.0, None, None
    thin = [axis for axis in range(3) if grid.shape[axis] == 1]
    dropped = tuple(thin) if len(thin) == 1 else ()  # a picture or a single slice has contours, not surfaces
    spacing = np.delete(grid.spacing, dropped).tolist()
    if state is not State.FOUND:
        diagonal = float(np.linalg.norm(np.delete(grid.shape, dropped) * spacing))
        return 0.0, diagonal, diagonal
    truth, mask = truth.squeeze(dropped), mask.squeeze(dropped)
    voxels = voxel_surface(truth, mask, spacing)
    nsd = surface_dice(element_surface(truth, mask, spacing), tolerance)
    return nsd, hausdorff(voxels), average_symmetric_distance(voxels)


def _in_unit(name: str, distance: float | None, unit: str) -> dict[str, Any]:
    """Entries of a distance: `<name>_mm`, or `<name>_px` beside an empty `<name>_mm` where the spacing is unknown."""
    entries: dict[str, Any] = {}
    if unit != "mm":
        entries |= {f"{name}_mm": None, f"{name}_mm_reason": SPACING_UNKNOWN}
    entries[f"{name}_{unit}"] = distance
    if distance is None:
        entries[f"{name}_{unit}_reason"] = "no distance: absent from truth and mask"
    return entries
