"""`SliceStack`: an image as a stack of pictures in a standard orientation, with the way in and out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError
from medmargin.imaging import Volume, finite_image, require_signal, to_working
from medmargin.prompts.types import Box, Point
from medmargin.transforms.frame import Rectangle
from medmargin.transforms.slices import slice_axes

Normalise = Callable[[NDArray], NDArray]


class PlacedBox(NamedTuple):
    """A box in the stack: its rectangle in pixels and its first and last slice, both inside."""

    rectangle: Rectangle
    first: int
    last: int


class SliceStack:
    """Pictures [height, width] along one axis of the image.

    A volume is brought to the orientation closest to RAS and cut across its superior axis, or, where it has a single
    slice, across the axis of that slice; a picture is taken as it is. Column x runs along the first, row y along the
    second of the remaining axes.

    Args:
        volume: image with 1 or 3 channels.
        normalise: voxels [C, I, J, K] of the whole image -> voxels of the same shape, or None for the raw values.

    Raises:
        DataError: another number of channels, too many values that are not finite, or no signal at all.
    """

    def __init__(self, volume: Volume, normalise: Normalise | None = None) -> None:
        if volume.channels not in (1, 3):
            raise DataError(
                f"{volume.source or 'the image'}: {volume.channels} channels; expected 1 (grey) or 3 (colour). "
                "Give one channel of the image."
            )
        require_signal(volume)
        self._working = to_working(finite_image(volume))
        working = self._working.volume
        self._axes = slice_axes(working.grid.shape)  # working axes of x, y and the slices, as in training
        self._voxels = working.voxels if normalise is None else normalise(working.voxels)  # [C, I, J, K]
        self.warnings = working.warnings

    @property
    def _pictures(self) -> NDArray:
        return self._voxels.transpose(0, *(axis + 1 for axis in self._axes)).T  # [slices, height, width, C], a view

    def across_other_axes(self) -> tuple[SliceStack, ...]:
        """Cut the same voxels across the two other axes; none for a picture and an image of a single slice."""
        if min(self.shape) == 1:
            return ()
        x, y, through = self._axes
        return tuple(self._across(axes) for axes in ((y, through, x), (x, through, y)))

    def _across(self, axes: tuple[int, int, int]) -> SliceStack:
        stack = copy.copy(self)
        stack._axes = axes
        return stack

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, height, width)."""
        slices, height, width, _ = self._pictures.shape
        return slices, height, width

    @property
    def working_shape(self) -> tuple[int, int, int]:
        """Voxels along the working axes, the same for every cut."""
        i, j, k = self._voxels.shape[1:]
        return i, j, k

    def picture(self, index: int) -> NDArray:
        """Return slice `index` as [height, width, 3], a grey image three times."""
        picture = self._pictures[index]
        return np.ascontiguousarray(picture if picture.shape[-1] == 3 else np.repeat(picture, 3, axis=-1))

    def box(self, box: Box) -> PlacedBox:
        """Place a box of three coordinates, given in voxels of the file's own grid; it is clipped to the stack."""
        low, high = self._working.box_to_working(box.minimum, box.maximum)
        slices, height, width = self.shape
        limits = np.array([width, height, slices]) - 1
        low, high = low[list(self._axes)].clip(0, limits), high[list(self._axes)].clip(0, limits)
        rectangle = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        return PlacedBox(rectangle, _nearest(low[2]), _nearest(high[2]))

    def point(self, point: Point) -> tuple[float, float, int]:
        """Place a point of three coordinates: (x, y) in pixels and its slice."""
        position = self._working.point_to_working(point.position)
        x, y, z = (float(position[axis]) for axis in self._axes)
        return x, y, _nearest(np.clip(z, 0, self.shape[0] - 1))

    def mask(self, mask: NDArray, like: Volume) -> NDArray[np.bool_]:
        """Place a mask [I, J, K] on the grid of `like`, the image itself: [slices, height, width]."""
        working = to_working(like.with_voxels((mask != 0).astype(np.uint8)), nearest=True).volume.voxels[0]
        return self.view(working != 0)

    def restore_labels(self, labels: NDArray) -> NDArray:
        """Bring labels [slices, height, width] to the image's own grid [I, J, K]."""
        return self._working.restore_labels(self._unstack(labels))

    def restore_map(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Bring values [slices, height, width] to the image's own grid [I, J, K]; 0 where the stack does not reach."""
        return self._working.restore_map(self._unstack(values), fill=0)

    def view(self, values: NDArray) -> NDArray:
        """Show an array on the working grid [I', J', K'] as [slices, height, width]; writing into it writes there."""
        return values.transpose(self._axes).T

    def _unstack(self, values: NDArray) -> NDArray:
        return values.T.transpose(np.argsort(self._axes))


def _nearest(value: float) -> int:
    return int(np.floor(value + 0.5))
