"""`Frame`: the square window of a picture that a promptable network looks at, and the way back.

LiteMedSAM looks at the whole picture: longest side to `size` (OpenCV INTER_AREA), min-max to [0, 1] on the resized
picture, zero padding at the bottom and right. A smaller frame around the prompted objects is the same operation on a
window of the picture; it shows small objects at a scale where their edge can be drawn.
Source: CVPR24 "Segment Anything in Medical Images on Laptop" baseline (branch LiteMedSAM of bowang-lab/MedSAM).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from medmargin.transforms.intensity import unit_range

Rectangle = tuple[float, float, float, float]  # (x_min, y_min, x_max, y_max), voxel centres, inclusive


@dataclass(frozen=True)
class Frame:
    """A window of a picture, mapped to the top left of a `size` x `size` network input.

    Attributes:
        x, y: column and row of the window's first pixel; may lie outside the picture (such pixels are padding).
        width, height: pixels of the window; the longest side fills `size`.
        size: side of the network input in pixels.
    """

    x: int
    y: int
    width: int
    height: int
    size: int

    @classmethod
    def whole(cls, height: int, width: int, size: int) -> Frame:
        """Take the whole picture, as LiteMedSAM does."""
        return cls(0, 0, width, height, size)

    @classmethod
    def around(cls, box: Rectangle, size: int, *, margin: float, shift: tuple[float, float] = (0.0, 0.0)) -> Frame:
        """Take the square around `box` whose side is (1 + 2 * margin) x the box's longest side.

        Args:
            box: (x_min, y_min, x_max, y_max) in pixels of the picture.
            margin: free space on each side, as a fraction of the box's longest side.
            shift: displacement of the window's centre, as a fraction of its side (for augmentation).
        """
        x_min, y_min, x_max, y_max = box
        side = max(x_max - x_min + 1, y_max - y_min + 1) * (1 + 2 * margin)
        side = max(int(np.ceil(side)), 8)
        x = (x_min + x_max + 1) / 2 - side / 2 + shift[0] * side
        y = (y_min + y_max + 1) / 2 - side / 2 + shift[1] * side
        return cls(int(np.floor(x)), int(np.floor(y)), side, side, size)

    @property
    def scale(self) -> float:
        """Network pixels per picture pixel."""
        return self.size / max(self.width, self.height)

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) of the window inside the network input, before padding."""
        return max(1, int(self.height * self.scale + 0.5)), max(1, int(self.width * self.scale + 0.5))

    def window(self, picture: NDArray) -> NDArray:
        """Cut the window out of `picture` [H, W] or [H, W, C]; what lies outside the picture is 0."""
        height, width = picture.shape[:2]
        inside = (slice(max(self.y, 0), max(min(self.y + self.height, height), 0)),
                  slice(max(self.x, 0), max(min(self.x + self.width, width), 0)))
        if (self.x, self.y, self.width, self.height) == (0, 0, width, height):
            return picture
        cut = np.zeros((self.height, self.width, *picture.shape[2:]), picture.dtype)
        piece = picture[inside]
        if piece.size:
            top, left = inside[0].start - self.y, inside[1].start - self.x
            cut[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
        return cut

    def image(self, picture: NDArray) -> NDArray[np.float32]:
        """Bring a picture to the network's input.

        Args:
            picture: [H, W] or [H, W, C], any numeric dtype.

        Returns:
            [C, size, size] float32 in [0, 1]; a constant picture becomes 0.
        """
        resized = _resize_area(self.window(picture), self.resized).astype(np.float32)
        return self._pad(np.atleast_3d(unit_range(resized))).transpose(2, 0, 1)

    def mask(self, mask: NDArray) -> NDArray[np.uint8]:
        """Bring a label picture [H, W] to the network's grid by nearest neighbour: [size, size] uint8."""
        height, width = self.resized
        resized = cv2.resize(self.window(mask.astype(np.uint8)), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return self._pad(resized[..., None])[..., 0]

    def restore(self, values: NDArray[np.float32], height: int, width: int, *, fill: float) -> NDArray[np.float32]:
        """Bring a network map back to the picture's grid (bilinear, half-pixel centres).

        Args:
            values: [size, size] logits or probabilities on the network's grid.
            height, width: size of the picture.
            fill: value outside the window (a very negative logit, or probability 0).

        Returns:
            [height, width] float32.
        """
        rows, columns = self.resized
        window = cv2.resize(values[:rows, :columns], (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        out = np.full((height, width), fill, np.float32)
        top, left = max(self.y, 0), max(self.x, 0)
        bottom, right = min(self.y + self.height, height), min(self.x + self.width, width)
        if bottom > top and right > left:
            out[top:bottom, left:right] = window[top - self.y : bottom - self.y, left - self.x : right - self.x]
        return out

    def _pad(self, resized: NDArray) -> NDArray:
        height, width = resized.shape[:2]
        return np.pad(resized, ((0, self.size - height), (0, self.size - width), (0, 0)))


def _resize_area(picture: NDArray, shape: tuple[int, int]) -> NDArray:
    """Resize with OpenCV's INTER_AREA, in the picture's own dtype where possible: uint8 must round as LiteMedSAM's."""
    if picture.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
        picture = picture.astype(np.float32)
    return cv2.resize(picture, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
