"""`LabelledSlices`: training items of an automatic network: a whole slice, the class of each pixel, and perhaps a box.

SAMed (Zhang & Liu 2023, arXiv:2304.13785) trains on every slice of its volumes. Here a structure is drawn first, so
that rare ones come as often as frequent ones; slices drawn without looking teach the network where there is nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medmargin.errors import ConfigError, DataError
from medmargin.learning.batches import Key
from medmargin.learning.sources import Planes, SliceSource
from medmargin.prompts.simulation import jittered_box, tight_box
from medmargin.transforms import Augmentation, Frame

_ATTEMPTS = 32
LARGEST_CLASS = 255  # `Frame.mask` works on bytes


class SegmentationBatch(NamedTuple):
    """B slices with all their structures.

    Attributes:
        image: [B, 3, S, S] float32 in [0, 1]. labels: [B, S, S] int64 class indices, 0 for background.
        boxes: [B, 4] float32 (x_min, y_min, x_max, y_max) in network pixels about one structure of each slice, or None.
        sizes: [B, 2] int64, rows and columns that the slice fills from the top left; the rest is padding. None: all.
    """

    image: Tensor
    labels: Tensor
    boxes: Tensor | None = None
    sizes: Tensor | None = None


class SegmentationItem(NamedTuple):
    """One slice; the arrays of a `SegmentationBatch` without the batch axis."""

    image: NDArray[np.float32]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float32] | None
    sizes: NDArray[np.int64]


@dataclass(frozen=True)
class LabelledSlices:
    """A stream of labelled slices (see `batches.Stream`).

    Attributes:
        source: draws slices.
        size: side of the network input in pixels; the longest side of a slice fills it.
        seed: of every random choice.
        augmentation: what happens to the slices.
        empty_share: share of slices drawn without looking at what they show; the others show a structure.
        planes: "axial" cuts volumes along one axis, "three" along all three.
        prompted_share: share of steps that give a user's box with each slice; all of them show a structure then.
        box_jitter: each side of the box moves outward by U{0..box_jitter} network pixels.

    Raises:
        ConfigError: a number out of range, or unknown planes.
    """

    source: SliceSource
    size: int
    seed: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    empty_share: float = 0.1
    planes: Planes = "axial"
    prompted_share: float = 0.0
    box_jitter: int = 5

    def __post_init__(self) -> None:
        if self.size < 1 or self.box_jitter < 0:
            raise ConfigError(f"size {self.size}, box_jitter {self.box_jitter}: expected size >= 1, box_jitter >= 0.")
        for name in ("empty_share", "prompted_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected 0 to 1.")
        if self.planes not in ("axial", "three"):
            raise ConfigError(f"planes is '{self.planes}': expected 'axial' or 'three'.")

    @property
    def objects(self) -> int | None:
        return self.source.objects

    def undisturbed(self, source: SliceSource) -> LabelledSlices:
        """Return the validation stream of other cases: no augmentation, no boxes, every slice shows a structure."""
        nothing = Augmentation(flips=False)
        return replace(self, source=source, augmentation=nothing, empty_share=0.0, prompted_share=0.0)

    def __getitem__(self, key: Key) -> SegmentationItem:
        """Make the item at a position of the batch of a step; a pure function of (seed, step, position).

        Raises:
            DataError: no structure is left at the network's resolution, or a class index does not fit a byte.
        """
        step, position = key
        rng = np.random.default_rng([self.seed, step, position])
        is_prompted = np.random.default_rng([self.seed, step]).random() < self.prompted_share  # the same for a batch
        empty_share = 0.0 if is_prompted else self.empty_share
        for _ in range(_ATTEMPTS):
            slices = self.source.draw_slice(rng, empty_share=empty_share, planes=self.planes)
            picture, labels = self.augmentation.moved(*slices, rng)
            if labels.max() > LARGEST_CLASS:
                raise DataError(f"class index {labels.max()}: expected at most {LARGEST_CLASS}; leave out structures.")
            frame = Frame.whole(labels.shape[0], labels.shape[1], self.size)
            classes = frame.mask(labels)
            if is_prompted and not classes.any():
                continue  # turned out of the picture, or too small for the network's pixels
            image = network_image(picture, frame, self.augmentation, rng)
            box = self._box(classes, rng) if is_prompted else None
            return SegmentationItem(image, classes.astype(np.int64), box, np.array(frame.resized))
        raise DataError(
            f"{_ATTEMPTS} slices in a row show no structure at {self.size} x {self.size}. Choose a larger one."
        )

    def collate(self, items: Sequence[SegmentationItem]) -> SegmentationBatch:
        """Stack items to a batch."""
        columns = zip(*items, strict=True)
        return SegmentationBatch._make(
            None if column[0] is None else torch.from_numpy(np.stack(column)) for column in columns
        )

    def _box(self, classes: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw the jittered box of one structure that is there: [4]."""
        present = np.unique(classes[classes > 0])
        box = tight_box(classes == present[int(rng.integers(len(present)))])
        assert box is not None  # the class is present
        jittered = jittered_box(box, rng, jitter=self.box_jitter, height=self.size, width=self.size)
        return np.array(jittered, np.float32)


def network_image(
    picture: NDArray, frame: Frame, augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Bring a picture to the network's input and change its grey levels; the padding stays 0.

    Args:
        picture: [H, W] or [H, W, 3], any numeric dtype. frame: of the picture.
        augmentation: its `shaded` is applied. rng: source of its random choices.

    Returns:
        [3, S, S] float32 in [0, 1]; a grey picture fills all channels.
    """
    image = frame.image(picture)
    rows, columns = frame.resized
    inside = np.ascontiguousarray(image[:, :rows, :columns].transpose(1, 2, 0))
    image[:, :rows, :columns] = np.atleast_3d(augmentation.shaded(inside, rng)).transpose(2, 0, 1)
    return np.repeat(image, 3, axis=0) if len(image) == 1 else image
