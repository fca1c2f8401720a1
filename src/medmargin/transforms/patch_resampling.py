"""Resampling of patches by any map of their voxels, fast: a volume is laid out as one picture for OpenCV.

OpenCV interpolates pictures only, several times faster than general tools do volumes. So the slices of the source are
laid out in columns of one picture with an empty row and column between them, both slices about a point are interpolated
in it, and the two answers are mixed. OpenCV rounds positions to 1/32 voxel.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_LONGEST = 32_000  # sides of a picture must stay below 2^15 for OpenCV


def warped(
    image: NDArray[np.float32],
    label: NDArray[np.int16],
    shape: Sequence[int],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    displacement: NDArray[np.float32] | None = None,
    *,
    outside: int,
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Resample image (linear) and label (nearest).

    Equation: answer(o) = source(matrix (o + displacement(o)) + offset), voxel indices (d, h, w).

    Args:
        image: [C, D, H, W]; label: [D, H, W].
        shape: (D', H', W') of the answer.
        displacement: [3, D', H', W'] in voxels, or None.
        outside: label of what lies outside the source; the image is 0 there.

    Returns:
        image [C, D', H', W'], label [D', H', W'].
    """
    channels = [_Layout(channel, 0) for channel in image]
    labels = _Layout(label, outside)
    depth, height, width = shape
    new_image, new_label = np.empty((len(image), *shape), np.float32), np.empty(tuple(shape), np.int16)
    several = max(_LONGEST // height, 1)  # slices of the answer at once
    for first in range(0, depth, several):
        some = slice(first, min(first + several, depth))
        bent = None if displacement is None else displacement[:, some]
        points = range(some.start, some.stop), range(height), range(width)
        d, h, w = _positions(points, matrix, offset, bent, label.shape)
        above, below, share = labels.around(d, h, w)
        for new, layout in zip(new_image, channels, strict=True):
            values = layout.linear(above)
            if share is not None:
                values += share * (layout.linear(below) - values)
            new[some] = values.reshape(new[some].shape)
        new_label[some] = labels.nearest(d, h, w).reshape(new_label[some].shape)
    return new_image, new_label


def upsampled(values: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.float32]:
    """Interpolate [D, H, W] linearly to a finer grid over the same extent; edges are continued."""
    for axis, (side, wanted) in enumerate(zip(values.shape, shape, strict=True)):
        if side == wanted:
            continue
        places = np.clip((np.arange(wanted) + 0.5) * (side / wanted) - 0.5, 0, side - 1)
        lower = places.astype(np.intp)
        weights = np.expand_dims((places - lower).astype(np.float32), tuple(range(1, values.ndim - axis)))
        finer = values.take(lower, axis)
        finer += weights * (values.take(np.minimum(lower + 1, side - 1), axis) - finer)
        values = finer
    return values


class _Layout:
    """The slices of a volume [D, H, W] as one picture, each below and right of an empty line, in columns."""

    def __init__(self, volume: NDArray, outside: float) -> None:
        self.depth, self.height, self.width = volume.shape
        self.rows = _LONGEST // (self.height + 1)  # slices in a column
        if self.rows < 2 or (self.depth + 2) * (self.height + 1) <= _LONGEST:
            self.rows = self.depth + 2
        columns = -(-(self.depth + 2) // self.rows)
        tiles = np.full((self.rows, self.height + 1, columns, self.width + 1), outside, volume.dtype)
        for z in range(self.depth):
            column, row = divmod(z + 1, self.rows)
            tiles[row, 1:, column, 1:] = volume[z]
        self.columns, self.outside = columns, outside
        self.picture = tiles.reshape(self.rows * (self.height + 1), columns * (self.width + 1))

    def around(
        self, d: NDArray[np.float32], h: NDArray[np.float32], w: NDArray[np.float32]
    ) -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray], NDArray[np.float32] | None]:
        """Find points in the slices above and below them, and the share of the lower one; None: all lie in slices."""
        above = np.floor(d)
        share = d - above
        return self._place(above, h, w), self._place(above + 1, h, w), share if share.any() else None

    def linear(self, place: tuple[NDArray, NDArray]) -> NDArray[np.float32]:
        return self._read(place, cv2.INTER_LINEAR)

    def nearest(self, d: NDArray[np.float32], h: NDArray[np.float32], w: NDArray[np.float32]) -> NDArray:
        return self._read(self._place(np.rint(d), np.rint(h), np.rint(w)), cv2.INTER_NEAREST)

    def _place(self, slices: NDArray, h: NDArray, w: NDArray) -> tuple[NDArray, NDArray]:
        """Give (row, column) in the picture of points in given slices, counted with the empty ones."""
        if self.columns == 1:
            return slices * np.float32(self.height + 1) + h, w
        column = np.floor(slices / np.float32(self.rows))
        row = slices - column * np.float32(self.rows)
        return row * np.float32(self.height + 1) + h, column * np.float32(self.width + 1) + w

    def _read(self, place: tuple[NDArray, NDArray], how: int) -> NDArray:
        rows, columns = place
        return cv2.remap(
            self.picture, columns, rows, how, borderMode=cv2.BORDER_CONSTANT, borderValue=float(self.outside)
        )


def _positions(
    points: tuple[range, range, range],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    displacement: NDArray[np.float32] | None,
    source: tuple[int, ...],
) -> list[NDArray[np.float32]]:
    """Compute where voxels (d, h, w) of the answer come from: three arrays [d * h, w].

    They count the empty line before a slice, and stay within one voxel of the source, where everything is empty.
    """
    z, y, x = (np.asarray(side, np.float32) for side in points)
    found = []
    for axis, side in enumerate(source):
        a, b, c = matrix[axis].astype(np.float32)
        place = (a * z + np.float32(offset[axis] + 1))[:, None, None] + (b * y)[:, None] + c * x
        if displacement is not None:
            place += np.tensordot(matrix[axis].astype(np.float32), displacement, axes=1)
        np.clip(place, 0, side + 1, out=place)
        found.append(place.reshape(-1, len(x)))
    return found
