"""What a user says about each slice, for a network that looks at every slice anyway."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from medmargin.errors import PromptError
from medmargin.imaging import Volume
from medmargin.inference.framing import Framing
from medmargin.inference.network import Ask
from medmargin.inference.prompt_checks import case_of, fitted
from medmargin.inference.stack import SliceStack
from medmargin.inference.targets import Cue, Target, targets_from
from medmargin.prompts.types import Prompt
from medmargin.transforms.frame import Frame

_PIXELS = Framing("object")  # only its way of prompts into a frame: whole pixels stay whole, as in training


def slice_asks(
    prompts: Sequence[Prompt], structures: Mapping[str, int], *, stack: SliceStack, volume: Volume, size: int
) -> tuple[list[Ask], list[str]]:
    """Write down what is asked of every slice.

    A box stands in every slice it reaches, a point in its own. The network takes one box per picture: where several
    structures have one in a slice, it gets the smallest box around them all, and it gets all their points.

    Args:
        prompts: in voxels of the grid of `volume`; may be empty.
        structures: name -> index of every structure the network knows.
        stack: a cut of `volume`. size: side of the network input.

    Returns:
        One ask per slice (its `image` is the slice), and warnings.

    Raises:
        PromptError: an unknown structure, a mask, or a prompt that does not fit the image.
    """
    for prompt in prompts:
        _check(prompt, structures, volume)
    targets, warnings = targets_from(prompts, structures, stack=stack, volume=volume) if prompts else ([], [])
    cues: dict[int, list[Cue]] = defaultdict(list)
    for target in targets:
        for index, cue in _by_slice(target):
            cues[index].append(cue)
    slices, height, width = stack.shape
    frame = Frame.whole(height, width, size)
    return [_ask(index, cues[index], frame) for index in range(slices)], warnings


def across(prompts: Sequence[Prompt], stack: SliceStack, volume: Volume) -> list[Prompt]:
    """Keep what prompts say in another cut than the one they were drawn in: no box that is a line there."""
    kept = []
    for prompt in prompts:
        box = fitted(prompt, volume)[0].box
        if box is not None:
            x_min, y_min, x_max, y_max = stack.box(box).rectangle
            if min(x_max - x_min, y_max - y_min) < 1:
                if not prompt.points:
                    continue
                prompt = replace(prompt, box=None)
        kept.append(prompt)
    return kept


def _check(prompt: Prompt, structures: Mapping[str, int], volume: Volume) -> None:
    if prompt.structure not in structures:
        raise PromptError(
            f"{case_of(volume)}: structure '{prompt.structure}' is unknown; expected one of {', '.join(structures)}."
        )
    if prompt.mask is not None:
        raise PromptError(
            f"{case_of(volume)}: structure '{prompt.structure}': a network that needs no prompt takes boxes and points "
            "on top, no mask. Give the box around the mask."
        )


def _by_slice(target: Target) -> Iterator[tuple[int, Cue]]:
    if target.sweep is None:
        yield from target.cues.items()
        return
    for index in range(target.sweep.first, target.sweep.last + 1):
        yield index, replace(target.cues.get(index, Cue()), box=target.sweep.rectangle)


def _ask(index: int, cues: Sequence[Cue], frame: Frame) -> Ask:
    nothing = Cue()
    boxes = np.array([cue.box for cue in cues if cue.box is not None], np.float64).reshape(-1, 4)
    box = None
    if len(boxes):
        x_min, y_min = boxes[:, :2].min(axis=0).tolist()
        x_max, y_max = boxes[:, 2:].max(axis=0).tolist()
        box = _PIXELS.network_box(frame, (x_min, y_min, x_max, y_max))
    points = np.concatenate([nothing.points, *(cue.points for cue in cues)])
    positive = np.concatenate([nothing.positive, *(cue.positive for cue in cues)])
    return Ask(index, box, _PIXELS.network_points(frame, points), positive, None)
