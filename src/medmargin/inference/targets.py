"""`Target`: a user's prompt placed in the stack of slices: what is said about one object, slice by slice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import PromptError
from medmargin.imaging import Volume
from medmargin.inference.prompt_checks import case_of, fitted
from medmargin.inference.stack import PlacedBox, SliceStack
from medmargin.prompts.simulation import tight_box
from medmargin.prompts.types import Box, Prompt
from medmargin.transforms.frame import Rectangle


@dataclass(frozen=True)
class Cue:
    """What is said about one object in one slice, in pixels of the slice.

    Attributes:
        box: (x_min, y_min, x_max, y_max), inclusive, or None.
        points: [P, 2] (x, y). positive: [P] whether each lies inside the object.
        mask: [H, W] coarse mask, or None.
    """

    box: Rectangle | None = None
    points: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    positive: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    mask: NDArray[np.bool_] | None = None

    @property
    def extent(self) -> Rectangle | None:
        """Rectangle that a view of the object must hold: box and points; None without a box (it may be anywhere)."""
        if self.box is None:
            return None
        return _around(self.box, self.points)


@dataclass(frozen=True)
class Target:
    """One object to find.

    Attributes:
        structure: index of its structure.
        cues: slice -> cue. Without a sweep these are the slices to segment; with one, points and masks in some of its
            slices.
        sweep: box and slices of an object that is followed from its middle slice, or None.
    """

    structure: int
    cues: Mapping[int, Cue]
    sweep: PlacedBox | None = None

    @property
    def slices(self) -> int:
        """Number of slices that will be segmented."""
        return len(self.cues) if self.sweep is None else self.sweep.last - self.sweep.first + 1

    @property
    def extent(self) -> Rectangle | None:
        """Rectangle that the view of a followed object must hold in every slice; None without a sweep."""
        if self.sweep is None:
            return None
        points = [Cue().points, *(cue.points for cue in self.cues.values())]
        return _around(self.sweep.rectangle, np.concatenate(points))


def targets_from(
    prompts: Sequence[Prompt], structures: Mapping[str, int], *, stack: SliceStack, volume: Volume
) -> tuple[list[Target], list[str]]:
    """Place prompts in the stack.

    A box over several slices starts slice propagation. A box within one slice, points and masks stand for their slices
    alone; a mask without a box also gives its tight box.

    Args:
        prompts: in voxels of the grid of `volume`.
        structures: structure name -> index, for every structure prompted.
        stack: the slices of `volume`.

    Returns:
        The targets, and warnings about boxes that had to be cut at the image's border.

    Raises:
        PromptError: no prompt, or one of other dimensions than the image, or outside it.
    """
    if not prompts:
        raise PromptError(f"{case_of(volume)}: no prompt given; a promptable model needs a box, a point or a mask.")
    targets: list[Target] = []
    warnings: list[str] = []
    for given in prompts:
        prompt, found = fitted(given, volume)
        warnings += found
        placed = None
        if prompt.box is not None:
            placed = stack.box(prompt.box)
            _refuse_flat_box_across_slices(prompt.structure, prompt.box, placed, volume)
        targets.append(_target(prompt, structures[prompt.structure], placed, stack, volume))
    return targets, warnings


def _target(prompt: Prompt, structure: int, placed: PlacedBox | None, stack: SliceStack, volume: Volume) -> Target:
    """Place points and masks beside the placed box."""
    points: dict[int, list[tuple[float, float, bool]]] = defaultdict(list)
    for point in prompt.points:
        x, y, index = stack.point(point)
        points[index].append((x, y, point.positive))
    masks: dict[int, NDArray[np.bool_]] = {}
    if prompt.mask is not None:
        mask = stack.mask(prompt.mask, volume)
        masks = {int(index): mask[index] for index in np.flatnonzero(mask.any(axis=(1, 2)))}
    sweep = placed if placed is not None and placed.last > placed.first else None
    boxes = {placed.first: placed.rectangle} if placed is not None and sweep is None else {}
    slices = sorted({*points, *masks, *boxes})
    if sweep is not None and any(not sweep.first <= index <= sweep.last for index in slices):
        raise PromptError(
            f"{case_of(volume)}: a point or the mask of '{prompt.structure}' lies in a slice outside its box. "
            "Widen the box, or give them as a prompt of their own."
        )
    cues = {index: _cue(boxes.get(index), points[index], masks.get(index)) for index in slices}
    return Target(structure, cues, sweep)


def _cue(box: Rectangle | None, points: Sequence[tuple[float, float, bool]], mask: NDArray[np.bool_] | None) -> Cue:
    if box is None and mask is not None:
        box = tight_box(mask)
    positions = np.array([point[:2] for point in points], np.float32).reshape(-1, 2)
    return Cue(box, positions, np.array([point[2] for point in points], bool), mask)


def _refuse_flat_box_across_slices(structure: str, box: Box, placed: PlacedBox, volume: Volume) -> None:
    """Refuse a box drawn in one slice of the file's third axis, where the model's slices run along another axis."""
    if volume.grid.shape[2] > 1 and box.minimum[2] == box.maximum[2] and placed.last > placed.first:
        raise PromptError(
            f"{case_of(volume)}: the box of '{structure}' lies in one slice of the file's third axis, which runs "
            f"{volume.grid.axis_codes[2]}; this model looks at slices along the superior axis. Give a box in a slice "
            "of that axis, or one around the whole structure."
        )


def _around(box: Rectangle, points: NDArray[np.float32]) -> Rectangle:
    """Widen a box until it holds points [P, 2]."""
    corners = np.concatenate([np.reshape(box, (2, 2)), points])
    (x_min, y_min), (x_max, y_max) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return x_min, y_min, x_max, y_max
