"""What a user gives a promptable model: boxes, points, and coarse masks, in voxels of the file's own grid.

Voxel coordinates name voxel centres: a tight box around the voxels 3..7 has minimum 3 and maximum 7 (both inside).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import PromptError


@dataclass(frozen=True)
class Box:
    """An axis-aligned box, inclusive at both ends.

    Attributes:
        minimum, maximum: (x, y) or (x, y, z) in voxels; x runs along i, y along j, z along k.
    """

    minimum: tuple[float, ...]
    maximum: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.minimum) != len(self.maximum) or len(self.minimum) not in (2, 3):
            raise PromptError(f"a box has 2 or 3 coordinates at each end, found {self.minimum} and {self.maximum}")
        if not all(np.isfinite((*self.minimum, *self.maximum))):
            raise PromptError(f"box {self.minimum} to {self.maximum} holds a number that is not finite")
        if any(low > high for low, high in zip(self.minimum, self.maximum, strict=True)):
            raise PromptError(f"box {self.minimum} to {self.maximum} is empty: give the smaller corner first")

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """(x_min, y_min, x_max, y_max): the in-plane part of the box."""
        return self.minimum[0], self.minimum[1], self.maximum[0], self.maximum[1]


@dataclass(frozen=True)
class Point:
    """A click: `position` (x, y) or (x, y, z) in voxels; `positive` says whether it lies inside the structure."""

    position: tuple[float, ...]
    positive: bool = True


@dataclass(frozen=True)
class Prompt:
    """All a user says about one structure of one case: at most one box, any number of points, at most one mask.

    Attributes:
        structure: name of the structure (or "object 1", ...).
        mask: [I, J, K] coarse mask in {0, 1} on the image's grid, or None.
    """

    structure: str
    box: Box | None = None
    points: tuple[Point, ...] = ()
    mask: NDArray[Any] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.box is None and not self.points and self.mask is None:
            raise PromptError(f"structure '{self.structure}': a prompt needs a box, a point or a mask")
