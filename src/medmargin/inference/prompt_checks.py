"""Prompts made ready for the image they were given for: inside it, with three coordinates in voxels of its own grid."""

from __future__ import annotations

from dataclasses import replace

from medmargin.errors import PromptError
from medmargin.imaging import Volume
from medmargin.prompts.placement import check_inside
from medmargin.prompts.types import Box, Point, Prompt

_REACH = 1.0  # voxels a box may reach beyond the outermost voxel: challenge files write 0..width for 0..width - 1


def fitted(prompt: Prompt, volume: Volume) -> tuple[Prompt, list[str]]:
    """Check a prompt against its image and give its box and points three coordinates.

    Returns:
        The prompt, its box cut at the image's border where it reaches at most one voxel beyond, and a warning that says
        so.

    Raises:
        PromptError: the prompt has other dimensions than the image, reaches outside it, or its mask is empty.
    """
    case = case_of(volume)
    _check_picture(prompt, volume)
    _check_mask(prompt, volume)
    box, warnings = prompt.box, []
    if box is not None:
        cut = _cut(box, volume.grid.shape)
        if cut != box:
            warnings = [f"{case}: the box of '{prompt.structure}' reached beyond the image and was cut at its border"]
        box = cut
    check_inside(replace(prompt, box=box), volume.grid, case=case)
    points = tuple(Point(_three(point.position), point.positive) for point in prompt.points)
    if box is not None:
        box = Box(_three(box.minimum), _three(box.maximum))
    return replace(prompt, box=box, points=points), warnings


def case_of(volume: Volume) -> str:
    """Name the image in messages."""
    return volume.source.name if volume.source is not None else "the image"


def _check_picture(prompt: Prompt, volume: Volume) -> None:
    box = [] if prompt.box is None else [prompt.box.minimum, prompt.box.maximum]
    positions = [*box, *(point.position for point in prompt.points)]
    if volume.dims == 2 and any(len(position) == 3 and position[2] != 0 for position in positions):
        raise PromptError(
            f"{case_of(volume)}: structure '{prompt.structure}': the prompt has a z, and the image is a 2-D picture; "
            "give x and y alone"
        )


def _check_mask(prompt: Prompt, volume: Volume) -> None:
    mask, shape = prompt.mask, volume.grid.shape
    if mask is None or (mask.shape == shape and mask.any()):
        return
    found = "is empty" if mask.shape == shape else f"has shape {mask.shape}"
    raise PromptError(
        f"{case_of(volume)}: structure '{prompt.structure}': the mask {found}; expected at least one voxel on the "
        f"image's grid {shape}"
    )


def _cut(box: Box, shape: tuple[int, int, int]) -> Box:
    """Cut a box at the image's border where it reaches at most `_REACH` beyond the outermost voxel centres."""

    def inside(position: tuple[float, ...]) -> tuple[float, ...]:
        pairs = zip(position, shape, strict=False)
        return tuple(
            min(max(value, 0), size - 1) if -_REACH <= value <= size - 1 + _REACH else value for value, size in pairs
        )

    return Box(inside(box.minimum), inside(box.maximum))


def _three(position: tuple[float, ...]) -> tuple[float, ...]:
    """Give a position in a single slice its third coordinate."""
    return (*position, 0.0)[:3]
