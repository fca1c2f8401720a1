"""Strips of rows that a volume is predicted in where the slices held at once would not fit into the memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmargin.transforms.regridding import places_between


@dataclass(frozen=True, eq=False)
class Strip:
    """Some rows of an image, and the rows of the windows' grid that they are interpolated from.

    Attributes:
        target: rows of the image. source: rows of the grid.
        lower, upper: [rows of the image] rows of the strip to mix. share: [rows of the image] of the upper one.
    """

    target: slice
    source: slice
    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    share: NDArray[np.float32]

    def interpolated(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring [A, rows of the grid, W] to the rows of the image, linearly."""
        if np.array_equal(self.lower, np.arange(values.shape[1])) and not self.share.any():
            return values
        share = self.share[:, None]
        return values[:, self.lower] * (1 - share) + values[:, self.upper] * share


def cut_strips(source: int, target: int, count: int) -> list[Strip]:
    """Cut an image of `target` rows, predicted on a grid of `source` rows, into `count` strips (at most one per row).

    Pixels are areas: row r of the image lies at (r + 0.5) source / target - 0.5 of the grid; beyond it its edge counts.
    """
    positions = places_between(source, target)
    below = positions.astype(np.intp)
    above = np.minimum(below + 1, source - 1)
    strips = []
    for rows in np.array_split(np.arange(target), min(count, target)):
        first, lower, upper = int(below[rows[0]]), below[rows], above[rows]
        strips.append(
            Strip(
                slice(int(rows[0]), int(rows[-1]) + 1), slice(first, int(upper[-1]) + 1), lower - first, upper - first,
                (positions[rows] - lower).astype(np.float32),
            )
        )  # fmt: skip
    return strips
