"""Prompts meet the image they belong to: millimetres to voxels, and the check that they lie inside."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import PromptError
from medmargin.imaging.volume import Grid
from medmargin.prompts.types import Box, Point, Prompt


def to_voxels(prompt: Prompt, grid: Grid) -> Prompt:
    """Turn a prompt in RAS+ mm into voxels of `grid`.

    A box that is oblique to the grid becomes the smallest voxel box around it. Coordinates without z lie in the plane
    z = 0 mm, which only a picture has.

    Raises:
        PromptError: the grid's spacing is unknown, or coordinates without z meet a volume.
    """
    if grid.unit != "mm":
        raise PromptError(f"structure '{prompt.structure}': the image does not state its spacing; give voxels, not mm")
    _check_dimensions(prompt, grid, "image")
    inverse = np.linalg.inv(grid.affine)

    def voxel(position: Iterable[float]) -> NDArray[np.float64]:
        x, y, z = (*position, 0.0)[:3]
        # Rounded to 1e-6 voxel, so that a box on voxel centres stays there in spite of floating-point noise.
        return np.round(inverse @ (x, y, z, 1.0), 6)[:3] + 0.0

    box = prompt.box
    if box is not None:
        length = len(box.minimum)
        corners = np.array(np.meshgrid(*zip(box.minimum, box.maximum, strict=True))).reshape(length, -1).T
        moved = np.array([voxel(corner) for corner in corners])[:, :length]
        box = Box(tuple(moved.min(axis=0).tolist()), tuple(moved.max(axis=0).tolist()))
    points = tuple(
        Point(tuple(voxel(point.position)[: len(point.position)].tolist()), point.positive) for point in prompt.points
    )
    return Prompt(structure=prompt.structure, box=box, points=points, mask=prompt.mask)


def check_inside(prompt: Prompt, grid: Grid, *, case: str) -> None:
    """Refuse a prompt (in voxels) that reaches outside the image or has the wrong number of coordinates.

    Raises:
        PromptError: names the case, the structure, the coordinates and the image's size.
    """
    _check_dimensions(prompt, grid, case)
    corners = [] if prompt.box is None else [("box corner", prompt.box.minimum), ("box corner", prompt.box.maximum)]
    for name, position in [*corners, *(("point", point.position) for point in prompt.points)]:
        # A voxel reaches half its size beyond its centre.
        if any(not -0.5 <= value <= size - 0.5 for value, size in zip(position, grid.shape, strict=False)):
            raise PromptError(
                f"{case}: structure '{prompt.structure}': {name} {position} lies outside the image of {grid.shape} "
                "voxels; coordinates are voxels (x, y, z) of the file's own grid from 0 on, unless --in-mm is given"
            )


def _check_dimensions(prompt: Prompt, grid: Grid, case: str) -> None:
    positions = [point.position for point in prompt.points]
    if prompt.box is not None:
        positions.append(prompt.box.minimum)
    if grid.shape[2] > 1 and any(len(position) == 2 for position in positions):
        raise PromptError(
            f"{case}: structure '{prompt.structure}': the image has {grid.shape[2]} slices and the prompt no z; "
            "give z_min and z_max (z for points)"
        )
