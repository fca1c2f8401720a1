"""Prompts read off a true label map, and the scores such prompts give away. FOR EVALUATION ONLY.

An object is what a user would draw one box around: in a picture each connected component (8 neighbours) of a
structure, in a volume each structure's cut through a slice of axis k, or the whole structure where one box starts slice
propagation.
A true box tells half of the answer: `box_floor` and `ellipse_floor` are the masks that need nothing but the box, and a
result that does not beat them has learned nothing from the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmargin.errors import PromptError
from medmargin.prompts.types import Box, Prompt

Shape = tuple[int, int, int]


def boxes_from_labels(
    labels: NDArray, structures: Mapping[str, int], *, dims: int, per_slice: bool = True
) -> list[Prompt]:
    """Draw the true box of every object of a label map.

    Args:
        labels: [I, J, K] integers on the image's grid.
        structures: structure name -> label value; absent structures get no prompt.
        dims: 2 for a picture (K = 1, boxes of two coordinates), 3 for a volume (boxes of three).
        per_slice: volumes only: one box per structure and slice of axis k (z_min == z_max); False gives one box
            around the whole structure, the prompt of slice propagation.

    Returns:
        Prompts in the order of `structures`, then of slices or components.

    Raises:
        PromptError: `labels` is not [I, J, K], `dims` is not 2 or 3, or a picture has several slices.
    """
    if labels.ndim != 3 or dims not in (2, 3) or (dims == 2 and labels.shape[2] != 1):
        raise PromptError(
            f"labels of shape {labels.shape} are no label map of {dims} dimensions; expected [I, J, K], K = 1 in 2-D"
        )
    prompts = []
    for name, value in structures.items():
        mask = labels == value
        if dims == 2:
            boxes = _component_boxes(mask[:, :, 0])
        elif per_slice:
            boxes = _slice_boxes(mask)
        else:
            boxes = _extent(mask)
        prompts += [Prompt(structure=name, box=box) for box in boxes]
    return prompts


def box_floor(prompts: Sequence[Prompt], *, shape: Shape, structures: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """Answer every box with the filled box: the mask of a model that looks at the prompt and never at the image.

    Args:
        prompts: prompts with boxes, in voxels of the grid of `shape`.
        shape: voxels along (i, j, k).
        structures: names that need an answer; one without a prompt gets an empty mask.

    Returns:
        One [I, J, K] mask per structure. Structures are filled independently of each other: in one label map a nested
        structure would cut its own shape out of the one around it and flatter the floor.
    """
    return _filled(prompts, shape, structures, inscribed=False)


def ellipse_floor(
    prompts: Sequence[Prompt], *, shape: Shape, structures: Iterable[str]
) -> dict[str, NDArray[np.bool_]]:
    """Answer every box with its inscribed ellipse (ellipsoid, where the box spans slices); otherwise as `box_floor`.

    Equation: voxel v belongs to the ellipse when sum_d ((v_d - c_d) / a_d)^2 <= 1 with centre c = (min + max) / 2 and
    semi-axes a = (max - min + 1) / 2, because a box reaches half a voxel beyond the centres of its outer voxels.
    """
    return _filled(prompts, shape, structures, inscribed=True)


def _component_boxes(mask: NDArray[np.bool_]) -> Iterator[Box]:
    """Yield the box of each 8-connected component of a picture's mask [I, J]."""
    components = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=8)
    for columns, rows in ndimage.find_objects(components):
        yield Box((columns.start, rows.start), (columns.stop - 1, rows.stop - 1))


def _slice_boxes(mask: NDArray[np.bool_]) -> Iterator[Box]:
    """Yield the box of a structure in each slice of axis k that it meets."""
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        yield from _extent(mask[:, :, k : k + 1], first_slice=int(k))


def _extent(mask: NDArray[np.bool_], *, first_slice: int = 0) -> Iterator[Box]:
    """Yield the one box around a mask [I, J, K], nothing for an empty mask."""
    for i, j, k in ndimage.find_objects(mask.view(np.uint8)):
        yield Box((i.start, j.start, first_slice + k.start), (i.stop - 1, j.stop - 1, first_slice + k.stop - 1))


def _filled(
    prompts: Sequence[Prompt], shape: Shape, structures: Iterable[str], *, inscribed: bool
) -> dict[str, NDArray[np.bool_]]:
    masks = {name: np.zeros(shape, bool) for name in structures}
    for prompt in prompts:
        if prompt.box is None or prompt.structure not in masks:
            raise PromptError(
                f"structure '{prompt.structure}': a floor needs boxes of the structures {', '.join(masks)}, "
                f"found {'no box' if prompt.box is None else 'another structure'}"
            )
        if len(prompt.box.minimum) == 2 and shape[2] != 1:
            raise PromptError(
                f"structure '{prompt.structure}': a box without z on {shape[2]} slices; give z_min and z_max"
            )
        _fill(masks[prompt.structure], prompt.box, inscribed=inscribed)
    return masks


def _fill(mask: NDArray[np.bool_], box: Box, *, inscribed: bool) -> None:
    """Set the voxels of a box, or of its inscribed ellipse, in a mask [I, J, K]."""
    minimum, maximum = np.zeros(3), np.zeros(3)
    minimum[: len(box.minimum)], maximum[: len(box.maximum)] = box.minimum, box.maximum
    # A box may end between voxel centres; its voxels are those whose centre lies inside.
    first, last = np.ceil(minimum).astype(int).clip(0), np.floor(maximum).astype(int).clip(-1)
    window = tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))
    if not inscribed:
        mask[window] = True
        return
    centre, radius = (minimum + maximum) / 2, (maximum - minimum + 1) / 2
    axes = np.ogrid[tuple(slice(*part.indices(size)[:2]) for part, size in zip(window, mask.shape, strict=True))]
    mask[window] |= sum(((axis - c) / a) ** 2 for axis, c, a in zip(axes, centre, radius, strict=True)) <= 1
