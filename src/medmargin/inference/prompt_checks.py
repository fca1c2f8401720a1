"""Prompts against the image they were given for, in voxels of the file's own grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import PromptError
from medmargin.imaging import Volume
from medmargin.prompts.types import Box, Point

_REACH = 1.0  # voxels a box may reach beyond the outermost voxel centre: 0..width for 0..width - 1 is meant well


def checked_box(box: Box, *, structure: str, volume: Volume) -> tuple[Box, str | None]:
    """Check a box and give it three coordinates.

    Returns:
        The box, cut at the image's border where it reaches at most one voxel beyond it, and a warning that says so.

    Raises:
        PromptError: the box has other dimensions than the image, or reaches outside it.
    """
    low = _three(box.minimum, f"box {_pair(box)}", structure, volume)
    high = _three(box.maximum, f"box {_pair(box)}", structure, volume)
    last = np.asarray(volume.grid.shape) - 1
    if (low < -_REACH).any() or (high > last + _REACH).any() or (low > last).any() or (high < 0).any():
        what = f"box {_pair(box)} of '{structure}'"
        raise PromptError(f"{case_of(volume)}: {what} lies outside the image; {_range(volume)}")
    cut = Box(tuple(low.clip(0, last).tolist()), tuple(high.clip(0, last).tolist()))
    if (low < 0).any() or (high > last).any():
        return cut, f"box {_pair(box)} of '{structure}' reached beyond the image and was cut at its border"
    return cut, None


def checked_point(point: Point, *, structure: str, volume: Volume) -> Point:
    """Check a point and give it three coordinates.

    Raises:
        PromptError: the point has other dimensions than the image, or lies outside it.
    """
    what = f"point {point.position}"
    position = _three(point.position, what, structure, volume)
    last = np.asarray(volume.grid.shape) - 1
    if not ((position >= -0.5) & (position <= last + 0.5)).all():
        raise PromptError(f"{case_of(volume)}: {what} of '{structure}' lies outside the image; {_range(volume)}")
    return replace(point, position=tuple(position.clip(0, last).tolist()))


def checked_mask(mask: NDArray[Any], *, structure: str, volume: Volume) -> NDArray[Any]:
    """Check a mask prompt.

    Raises:
        PromptError: the mask is empty or not on the image's grid.
    """
    if mask.shape != volume.grid.shape:
        raise PromptError(
            f"{case_of(volume)}: mask of '{structure}' has shape {mask.shape}; expected that of the image, "
            f"{volume.grid.shape}."
        )
    if not mask.any():
        raise PromptError(f"{case_of(volume)}: mask of '{structure}' is empty; give a mask with at least one voxel.")
    return mask


def case_of(volume: Volume) -> str:
    """Name the image in messages."""
    return volume.source.name if volume.source is not None else "the image"


def _three(coordinates: tuple[float, ...], what: str, structure: str, volume: Volume) -> NDArray[np.float64]:
    """Give coordinates a third one where the image has a single slice."""
    slices = volume.grid.shape[2]
    if len(coordinates) == 2 and slices == 1:
        coordinates = (*coordinates, 0.0)
    if len(coordinates) == 2:
        raise PromptError(
            f"{case_of(volume)}: {what} of '{structure}' has 2 coordinates, and the image is a 3-D volume of {slices} "
            "slices. Add the slice as z (z_min and z_max for a box)."
        )
    if volume.dims == 2 and coordinates[2] != 0:
        raise PromptError(
            f"{case_of(volume)}: {what} of '{structure}' has 3 coordinates, and the image is a 2-D picture. "
            "Leave z out."
        )
    return np.asarray(coordinates, np.float64)


def _pair(box: Box) -> str:
    return f"{_plain(box.minimum)} to {_plain(box.maximum)}"


def _plain(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _range(volume: Volume) -> str:
    limits = zip("xyz"[: volume.dims], volume.grid.shape, strict=False)
    return "valid voxels are " + ", ".join(f"{axis} 0..{length - 1}" for axis, length in limits) + "."
