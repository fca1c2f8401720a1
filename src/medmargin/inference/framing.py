"""Which part of a picture the network looks at: all of it, or as few square windows as its objects need.

LiteMedSAM looks at the whole picture ("image"). A network of 64 px cannot draw the edge of an object that covers 5 %
of its view, so "object" puts a square window around the prompts. Objects share a window, and so an image embedding, as
long as each still fills enough of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import ConfigError
from medmargin.transforms.frame import Frame, Rectangle


class FrameGroup(NamedTuple):
    """A frame and the objects (indices into the list that was grouped) that are looked for in it."""

    frame: Frame
    objects: tuple[int, ...]


@dataclass(frozen=True)
class Framing:
    """Policy of the frames, and the way of prompts into them.

    Args:
        kind: "image" looks at the whole picture, as LiteMedSAM; "object" at windows around the prompts.
        margin: free space on each side of a window, as a fraction of the longest side of what it holds.
        smallest_fraction: the longest side of every object in a shared window is at least this fraction of its side.

    Raises:
        ConfigError: a value out of range, or a margin so wide that a lone object breaks `smallest_fraction`.
    """

    kind: Literal["image", "object"] = "image"
    margin: float = 0.25
    smallest_fraction: float = 0.4

    def __post_init__(self) -> None:
        if self.kind not in ("image", "object"):
            raise ConfigError(f"frame kind '{self.kind}': expected 'image' or 'object'")
        if not 0 <= self.margin <= 10 or not 0 < self.smallest_fraction <= 1:
            raise ConfigError(
                f"margin {self.margin}, smallest_fraction {self.smallest_fraction}: expected 0..10 and above 0 to 1"
            )
        if self.kind == "object" and 1 / (1 + 2 * self.margin) < self.smallest_fraction:
            raise ConfigError(
                f"a margin of {self.margin} leaves a lone object {1 / (1 + 2 * self.margin):.2f} of its window, less "
                f"than smallest_fraction {self.smallest_fraction}. Lower one of them."
            )

    def groups(self, rectangles: Sequence[Rectangle | None], *, height: int, width: int, size: int) -> list[FrameGroup]:
        """Put objects into frames.

        Args:
            rectangles: extent of each object's prompt in pixels, or None where it may be anywhere in the picture.
            height, width: of the picture. size: side of the network input.

        Returns:
            Groups that hold every object once. Objects join, from the largest to the smallest, the first group that can
            take them, which gives few frames, though not provably the fewest.
        """
        if self.kind == "image":
            everything = tuple(range(len(rectangles)))
            return [FrameGroup(Frame.whole(height, width, size), everything)] if everything else []
        anywhere = tuple(index for index, rectangle in enumerate(rectangles) if rectangle is None)
        groups = [FrameGroup(Frame.whole(height, width, size), anywhere)] if anywhere else []
        known = {index: rectangle for index, rectangle in enumerate(rectangles) if rectangle is not None}
        shared: list[tuple[Rectangle, list[int]]] = []
        for index, rectangle in sorted(known.items(), key=lambda item: -_longest_side(item[1])):
            for position, (union, objects) in enumerate(shared):
                wider = _union(union, rectangle)
                # Objects arrive by falling size, so the newcomer is the smallest of its group.
                if _longest_side(rectangle) >= self.smallest_fraction * self._frame(wider, size).width:
                    shared[position] = (wider, [*objects, index])
                    break
            else:
                shared.append((rectangle, [index]))
        return groups + [FrameGroup(self._frame(union, size), tuple(sorted(objects))) for union, objects in shared]

    def network_box(self, frame: Frame, box: Rectangle) -> NDArray[np.float32]:
        """Bring a box (x_min, y_min, x_max, y_max) from picture pixels to network pixels: [4] float32.

        "image" truncates every scaled coordinate as LiteMedSAM does: int(x * size / longest side). "object" keeps whole
        pixels whole: the box covers in the network what the pixels x_min..x_max cover in the picture.
        """
        low = np.array([box[0] - frame.x, box[1] - frame.y], np.float64)
        high = np.array([box[2] - frame.x, box[3] - frame.y], np.float64)
        if self.kind == "image":
            return np.trunc(np.concatenate([low, high]) * frame.scale).astype(np.float32)
        return np.concatenate([low * frame.scale, (high + 1) * frame.scale - 1]).astype(np.float32)

    def network_points(self, frame: Frame, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring points [P, 2] (x, y) from picture pixels to network pixels; see `network_box` for the two kinds."""
        moved = points - np.array([frame.x, frame.y], np.float32)
        if self.kind == "image":
            return moved * np.float32(frame.scale)
        return (moved + 0.5) * np.float32(frame.scale) - 0.5

    def _frame(self, rectangle: Rectangle, size: int) -> Frame:
        return Frame.around(rectangle, size, margin=self.margin)


def _longest_side(rectangle: Rectangle) -> float:
    return max(rectangle[2] - rectangle[0], rectangle[3] - rectangle[1]) + 1


def _union(a: Rectangle, b: Rectangle) -> Rectangle:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
