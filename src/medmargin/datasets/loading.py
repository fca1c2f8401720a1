"""From a `Case` to its voxels: image and label on one grid, label values contiguous, faults named by case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.case import Case
from medmargin.datasets.task import IGNORE, Task
from medmargin.errors import DataError, GeometryError
from medmargin.imaging import Volume, finite_image, read_channels, read_label, require_signal


def load_image(case: Case, task: Task) -> Volume:
    """Read the image of a case.

    Returns:
        voxels [C, I, J, K] in the order of `task.channels`, in the file's own dtype; the unit is "px" where the data
        set does not know its spacing. Voxels that are not finite are replaced (fewer than 1 %), with a warning.

    Raises:
        DataError: unreadable, a channel is missing or too many, of other dimensions than the task, or without signal.
        GeometryError: channels on different grids, or an impossible grid.
    """
    with _naming(case):
        volume = finite_image(read_channels(case.images, names=task.channels))
        require_signal(volume)
        if volume.dims != task.dims:
            raise DataError(f"{case.images[0]}: a {volume.dims}-D image, but '{task.name}' is a {task.dims}-D data set")
    return _in_unit(volume, task)


def load_label(case: Case, task: Task, *, image: Volume | None = None) -> Volume:
    """Read the label map of a case on the grid of its image.

    A label map that holds the image's voxels in another axis order or direction is turned to the image's.

    Args:
        image: the image of the case where it has been read already; otherwise it is read for its grid.

    Returns:
        voxels [1, I, J, K], smallest unsigned type: 0 background, 1..K as in `task.structures`, and `task.ignore`.

    Raises:
        DataError: there is no label, it cannot be read, or it holds values the task does not know.
        GeometryError: it lies on another grid than the image.
    """
    image = load_image(case, task) if image is None else image
    label = read_label_of(case, task)
    with _naming(case):
        return mapped(on_grid_of(image, label), task)


def load_case(case: Case, task: Task) -> tuple[Volume, Volume | None]:
    """Read image and label (None where the case has none); see `load_image` and `load_label`."""
    image = load_image(case, task)
    return image, None if case.label is None else load_label(case, task, image=image)


def read_label_of(case: Case, task: Task) -> Volume:
    """Read the label map of a case as its file holds it: own values, own axes.

    Raises:
        DataError: there is no label, or it cannot be read.
    """
    if case.label is None:
        raise DataError(f"case '{case.name}' has no label; choose labelled cases or add its label file")
    with _naming(case):
        return _in_unit(read_label(case.label), task)


def on_grid_of(image: Volume, label: Volume) -> Volume:
    """Turn a label map to the axes of its image and check that it then lies on the same grid.

    Raises:
        GeometryError: names what differs and the repair.
    """
    if label.grid.matches(image.grid):
        return label
    turned = label.reoriented(image.grid.axis_codes)
    if turned.grid.matches(image.grid):
        axes = f"{label.grid.axis_codes}, the image's {image.grid.axis_codes}"
        warning = f"{label.source}: the label's axes run {axes}; turned, which changes no voxel"
        return replace(turned, warnings=(*turned.warnings, warning))
    difference = image.grid.difference(label.grid)
    if label.grid.shape != image.grid.shape:
        cure = "Find the label that belongs to this image, or exclude the case"
    else:
        cure = "Resample it with 'medmargin data fix --resample-labels', or exclude the case"
    raise GeometryError(f"{label.source}: the label's grid differs from the image's: {difference}. {cure}")


def mapped(label: Volume, task: Task) -> Volume:
    """Bring label values from those of the files to 1..K, and `task.ignore`.

    Raises:
        DataError: values the task does not know, with the number of voxels of each.
    """
    known = task.values_of_files
    if unknown := unknown_values(label.voxels, task):
        found = ", ".join(f"{value} ({count} voxels)" for value, count in list(unknown.items())[:10])
        names = {value: name for name, value in {**task.structures, IGNORE: task.ignore}.items()}
        raise DataError(
            f"{label.source}: label values {found} are not in the task; expected 0 (background), "
            f"{', '.join(f'{value} ({names[inside]})' for value, inside in known.items())}. "
            "Map them with 'medmargin data fix --map-label FOUND=WANTED'"
        )
    table = np.zeros(max(known) + 1, np.min_scalar_type(max(known.values())))
    table[list(known)] = list(known.values())
    return label.with_voxels(table[label.voxels])


def unknown_values(voxels: NDArray, task: Task) -> dict[int, int]:
    """Count the voxels of each label value that is no background, structure or `ignore` of the task."""
    values, counts = np.unique(voxels, return_counts=True)
    known = {0, *task.values_of_files}
    return {int(value): int(count) for value, count in zip(values, counts, strict=True) if int(value) not in known}


def _in_unit(volume: Volume, task: Task) -> Volume:
    """Mark the grid as unsized where the data set does not know its spacing, whatever the file's header claims."""
    return replace(volume, grid=replace(volume.grid, unit="px")) if task.unit == "px" else volume


@contextmanager
def _naming(case: Case) -> Iterator[None]:
    """Put the case's name in front of what its files' readers complain about."""
    try:
        yield
    except DataError as error:
        raise type(error)(f"case '{case.name}': {error}") from error
