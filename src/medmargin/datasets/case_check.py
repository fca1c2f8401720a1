"""Everything that can be said about one case by reading it: `check` runs this on all of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmargin.datasets.case import Case
from medmargin.datasets.faults import Fault
from medmargin.datasets.loading import load_image, mapped, on_grid_of, read_label_of, unknown_values
from medmargin.datasets.task import Task
from medmargin.errors import DataError, GeometryError
from medmargin.imaging import Volume, read_image
from medmargin.imaging.working import LARGEST_SHEAR

RESAMPLE_LABELS, RESAMPLE_CHANNELS, MAP_LABEL = "--resample-labels", "--resample-channels", "--map-label"


@dataclass(frozen=True)
class CaseFindings:
    """What reading one case told.

    Attributes:
        case: name of the case.
        faults: findings about this case alone.
        content: SHA-256 of the image's voxels, or None where it cannot be read.
        voxels: structure name -> voxels in the label, or None where there is no usable label.
    """

    case: str
    faults: tuple[Fault, ...] = ()
    content: str | None = None
    voxels: dict[str, int] | None = field(default=None)


def examine_case(case: Case, task: Task) -> CaseFindings:
    """Read image and label of a case and collect what is wrong with them; never raises for faults of the data."""
    try:
        image = load_image(case, task)
    except DataError as error:
        return CaseFindings(case.name, (_image_fault(case, error),))
    faults = [Fault("W", "image", case.name, warning) for warning in image.warnings]
    if image.grid.shear > LARGEST_SHEAR:
        message = f"{case.images[0]}: sheared grid (gantry tilt?); it is resampled to a straight one for the model"
        faults.append(Fault("W", "sheared-grid", case.name, message))
    voxels = None
    if case.label is not None:
        label, more = _examine_label(case, task, image)
        faults += more
        if label is not None:
            voxels = {name: int(task.mask(label, name).sum()) for name in task.structures}
            faults += _thin_structures(case, task, label)
    return CaseFindings(case.name, tuple(faults), _content(image), voxels)


def _image_fault(case: Case, error: DataError) -> Fault:
    if isinstance(error, GeometryError) and len(case.images) > 1 and _are_readable(case):
        return Fault("E", "channel-grids", case.name, str(error), RESAMPLE_CHANNELS)
    return Fault("E", "image", case.name, str(error))


def _are_readable(case: Case) -> bool:
    """Tell whether each channel alone is sound, so that only their grids disagree."""
    try:
        for path in case.images:
            read_image(path)
    except DataError:
        return False
    return True


def _examine_label(case: Case, task: Task, image: Volume) -> tuple[NDArray | None, list[Fault]]:
    """Read the label [I, J, K] in the task's values; None with the fault where that is impossible."""
    try:
        label = read_label_of(case, task)
    except DataError as error:
        return None, [Fault("E", "label", case.name, str(error))]
    try:
        label = on_grid_of(image, label)
    except GeometryError as error:
        repair = RESAMPLE_LABELS if label.grid.shape == image.grid.shape else None
        return None, [Fault("E", "label-grid", case.name, str(error), repair)]
    warnings = [Fault("W", "label", case.name, warning) for warning in label.warnings]
    try:
        return mapped(label, task).voxels[0], warnings
    except DataError as error:
        suggestion = _suggested_mapping(unknown_values(label.voxels, task), task)
        return None, [*warnings, Fault("E", "label-values", case.name, str(error), suggestion)]


def _suggested_mapping(unknown: dict[int, int], task: Task) -> str:
    """Propose the mapping that is almost always meant: a single unknown value (255, say) in a task of one structure."""
    if len(unknown) == 1 and len(task.structures) == 1:
        value = next(iter(task.original_values.values()))
        return f"{MAP_LABEL} {next(iter(unknown))}={value}"
    return MAP_LABEL


def _thin_structures(case: Case, task: Task, label: NDArray) -> list[Fault]:
    """Report structures of one voxel or, in a volume, of one slice: often a slip of the mouse."""
    faults = []
    alone = ndimage.find_objects(label, len(task.structures))
    for name, values in task.members.items():
        boxes = [box for value in values if (box := alone[value - 1]) is not None]
        if not boxes:
            continue
        box = [slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*boxes, strict=True)]
        extent = [part.stop - part.start for part in box]
        flat = task.dims == 3 and any(n == 1 < size for n, size in zip(extent, label.shape, strict=True))
        if flat or max(extent) == 1:
            what = "one voxel" if max(extent) == 1 else f"one slice ({' x '.join(map(str, extent))} voxels)"
            message = f"{case.label}: '{name}' covers {what}; look whether that is meant"
            faults.append(Fault("W", "thin-label", case.name, message))
    return faults


def _content(image: Volume) -> str:
    """Digest voxel values and shape, so that a re-saved or re-packed copy is still recognised."""
    digest = hashlib.sha256(repr(image.voxels.shape).encode())
    digest.update(np.ascontiguousarray(image.voxels, np.float32).data)
    return digest.hexdigest()
