"""`PromptedSlices`: training items of a promptable network: a framed picture, an object in it, and prompts for it.

LiteMedSAM's sample (CVPR24 "Segment Anything in Medical Images on Laptop" baseline): the whole slice, longest side to
the network's size, one random object, flips, the box with each side moved outward by U{0..5} pixels. Framing a window
around the object, other augmentation and clicks are switches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medmargin.errors import ConfigError, DataError
from medmargin.learning.batches import Key
from medmargin.learning.labelled_slices import network_image
from medmargin.learning.sources import Source
from medmargin.prompts.from_labels import box_floor, ellipse_floor
from medmargin.prompts.simulation import jittered_box, sample_points, tight_box
from medmargin.prompts.types import Box, Prompt
from medmargin.transforms import Augmentation, Frame

DistanceMap = Callable[[NDArray], NDArray[np.float32]]
_ATTEMPTS = 32
_NO_POINT = -1  # label of a click that stands for none


class PromptedBatch(NamedTuple):
    """B objects with their prompts.

    Attributes:
        image: [B, 3, S, S] float32 in [0, 1]. target: [B, 1, S, S] float32, 0 or 1.
        boxes: [B, 4] float32 (x_min, y_min, x_max, y_max) in network pixels, or None.
        points: [B, P, 2] float32 (x, y) in network pixels, or None; point_labels: [B, P] int64, 1 inside, 0 outside,
            -1 no click.
        maps: [B, 1, S, S] float32 distance maps of the targets, or None.
        floors: [B, 2] float32, Dice of the filled box and of its ellipse, or None.
    """

    image: Tensor
    target: Tensor
    boxes: Tensor | None = None
    points: Tensor | None = None
    point_labels: Tensor | None = None
    maps: Tensor | None = None
    floors: Tensor | None = None


@dataclass(frozen=True)
class Prompting:
    """How an object is framed and prompted.

    Attributes:
        size: side of the network input in pixels.
        frame_margin: (low, high) of the margin around the object, drawn uniformly, as a fraction of its longest side;
            None takes the whole picture.
        frame_shift: the window moves by up to this fraction of its side, but never cuts the object.
        box_jitter: each side of the box moves outward by U{0..box_jitter} network pixels.
        click_probability: share of steps whose objects also get clicks.
        positive_clicks, negative_clicks: number of each on such a step.
        clicks_replace_box: such a step has no boxes.

    Raises:
        ConfigError: a number out of range, or clicks asked for without any.
    """

    size: int
    frame_margin: tuple[float, float] | None = None
    frame_shift: float = 0.0
    box_jitter: int = 5
    click_probability: float = 0.0
    positive_clicks: int = 1
    negative_clicks: int = 0
    clicks_replace_box: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.click_probability <= 1:
            raise ConfigError(f"click_probability is {self.click_probability}: expected 0 to 1.")
        if self.click_probability > 0 and self.positive_clicks + self.negative_clicks < 1:
            raise ConfigError("click_probability is more than 0, but there are no positive and no negative clicks.")
        if self.frame_margin is not None and not 0 <= self.frame_margin[0] <= self.frame_margin[1]:
            raise ConfigError(f"frame_margin is {self.frame_margin}: expected (low, high) with 0 <= low <= high.")

    def undisturbed(self) -> Prompting:
        """Return the same without chance: mean margin, no shift, tight boxes, no clicks."""
        margin = None if self.frame_margin is None else (sum(self.frame_margin) / 2,) * 2
        return replace(self, frame_margin=margin, frame_shift=0.0, box_jitter=0, click_probability=0.0)


class PromptedItem(NamedTuple):
    """One object; the arrays of a `PromptedBatch` without the batch axis."""

    image: NDArray[np.float32]
    target: NDArray[np.float32]
    boxes: NDArray[np.float32] | None
    points: NDArray[np.float32] | None
    point_labels: NDArray[np.int64] | None
    maps: NDArray[np.float32] | None
    floors: NDArray[np.float32] | None


@dataclass(frozen=True)
class PromptedSlices:
    """A stream of prompted objects (see `batches.Stream`).

    Attributes:
        source: draws pictures and objects.
        prompting: how they are framed and prompted.
        seed: of every random choice.
        augmentation: what happens to the pictures.
        distance_map: makes a loss's map of a target, e.g. `PromptableLoss.distance_map`; None makes none.
        with_floors: measure the box and ellipse floors of each item (for validation).
    """

    source: Source
    prompting: Prompting
    seed: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    distance_map: DistanceMap | None = None
    with_floors: bool = False

    @property
    def objects(self) -> int | None:
        return self.source.objects

    def undisturbed(self, source: Source) -> PromptedSlices:
        """Return the validation stream of other cases: no augmentation, no jitter, floors beside each item."""
        nothing = Augmentation(flips=False)
        return PromptedSlices(source, self.prompting.undisturbed(), self.seed, nothing, with_floors=True)

    def __getitem__(self, key: Key) -> PromptedItem:
        """Make the item at a position of the batch of a step; a pure function of (seed, step, position).

        Raises:
            DataError: objects vanish at the network's resolution.
        """
        step, position = key
        rng = np.random.default_rng([self.seed, step, position])
        for _ in range(_ATTEMPTS):
            picture, mask = self.augmentation.moved(*self.source.draw(rng), rng)
            box = tight_box(mask)
            if box is None:
                continue  # turned out of the picture
            frame = self._frame(box, mask.shape, rng)
            target = frame.mask(mask)
            seen = tight_box(target)  # as in LiteMedSAM's script, the box is drawn around what the network is to find
            if seen is not None:
                return self._item(picture, target, frame, seen, rng, step)
        raise DataError(
            f"{_ATTEMPTS} objects in a row have no pixel left at {self.prompting.size} x {self.prompting.size}. "
            "Choose a larger network input, or frame the objects instead of the whole picture."
        )

    def collate(self, items: Sequence[PromptedItem]) -> PromptedBatch:
        """Stack items to a batch."""
        columns = zip(*items, strict=True)
        return PromptedBatch._make(
            None if column[0] is None else torch.from_numpy(np.stack(column)) for column in columns
        )

    def _frame(self, box: tuple[int, int, int, int], shape: tuple[int, ...], rng: np.random.Generator) -> Frame:
        ways = self.prompting
        if ways.frame_margin is None:
            return Frame.whole(shape[0], shape[1], ways.size)
        margin = float(rng.uniform(*ways.frame_margin))
        free = min(ways.frame_shift, margin / (1 + 2 * margin))  # beyond, the window would cut the longest side
        shift = rng.uniform(-free, free, size=2)
        return Frame.around(box, ways.size, margin=margin, shift=(float(shift[0]), float(shift[1])))

    def _item(
        self,
        picture: NDArray,
        target: NDArray[np.uint8],
        frame: Frame,
        box: tuple[int, int, int, int],
        rng: np.random.Generator,
        step: int,
    ) -> PromptedItem:
        ways = self.prompting
        image = network_image(picture, frame, self.augmentation, rng)
        prompt = jittered_box(box, rng, jitter=ways.box_jitter, height=ways.size, width=ways.size)
        has_clicks = np.random.default_rng([self.seed, step]).random() < ways.click_probability  # the same for a batch
        points, labels = self._clicks(target, rng) if has_clicks else (None, None)
        return PromptedItem(
            image=image,
            target=target[None].astype(np.float32),
            boxes=None if has_clicks and ways.clicks_replace_box else np.array(prompt, np.float32),
            points=points,
            point_labels=labels,
            maps=None if self.distance_map is None else self.distance_map(target)[None],
            floors=_floors(prompt, target) if self.with_floors else None,
        )

    def _clicks(
        self, target: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Draw clicks; where the object fills the frame there is no place for negative ones, which become none."""
        ways = self.prompting
        negative = 0 if target.all() else ways.negative_clicks
        points, labels = sample_points(target, rng, positive=ways.positive_clicks, negative=negative)
        missing = ways.negative_clicks - negative
        return np.pad(points, ((0, missing), (0, 0))), np.pad(labels, (0, missing), constant_values=_NO_POINT)


def _floors(box: tuple[int, int, int, int], target: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the Dice of the filled box and of its inscribed ellipse: [2]."""
    prompts = [Prompt("object", box=Box(box[:2], box[2:]))]
    shape = (target.shape[1], target.shape[0], 1)  # (i = x, j = y, k)
    scores = []
    for floor in (box_floor, ellipse_floor):
        mask = floor(prompts, shape=shape, structures=["object"])["object"][..., 0].T
        scores.append(2 * np.count_nonzero(mask & (target > 0)) / (np.count_nonzero(mask) + np.count_nonzero(target)))
    return np.array(scores, np.float32)
