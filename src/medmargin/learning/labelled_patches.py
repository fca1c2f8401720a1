"""`LabelledPatches`: training items of a network that sees patches of whole images.

Isensee et al. 2021 (doi:10.1038/s41592-020-01008-z): a third of every batch surely shows a structure, so that rare ones
are seen; epochs have a fixed number of steps, because patches of an image never end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medmargin.errors import ConfigError, DataError
from medmargin.learning.batches import Key
from medmargin.learning.cached_volumes import Shape
from medmargin.transforms.volume_augmentation import VolumeAugmentation


class PatchBatch(NamedTuple):
    """B patches with the label value of every voxel.

    Attributes:
        image: [B, C, *patch] float32, normalised; 0 outside the image.
        labels: [B, *patch] int64 label values; -1 where nothing counts: outside the image, and where nobody labelled.
    """

    image: Tensor
    labels: Tensor


class PatchSource(Protocol):
    """Labelled images to draw patches from, as `cached_volumes.CachedVolumes`."""

    @property
    def absent(self) -> tuple[str, ...]:
        """Structures that no image shows."""
        ...

    def draw_patch(
        self, rng: np.random.Generator, *, patch: Shape, foreground: bool, enlarged: Shape | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Draw an image [C, d, h, w] and its label [d, h, w] of a patch, or of what is `enlarged` about it."""
        ...


@dataclass(frozen=True)
class LabelledPatches:
    """A stream of labelled patches (see `batches.Stream`).

    Attributes:
        source: draws patches.
        patch: (D, H, W), or (H, W) for a 2-D network, in voxels.
        seed: of every random choice.
        augmentation: what happens to the patches; see `VolumeAugmentation.for_patch`.
        batch_size: items per step.
        foreground_share: share of a batch that surely shows a structure: its last positions, at least one.
        steps_per_epoch: steps that count as one pass over the data.
        is_alternating: every other item shows a structure instead, whatever the batch size; for validation.

    Raises:
        ConfigError: a number out of range.
        DataError: there is a structure that no training image shows.
    """

    source: PatchSource
    patch: tuple[int, ...]
    seed: int
    augmentation: VolumeAugmentation = field(default_factory=VolumeAugmentation)
    batch_size: int = 2
    foreground_share: float = 0.33
    steps_per_epoch: int = 250
    is_alternating: bool = False

    def __post_init__(self) -> None:
        if len(self.patch) not in (2, 3) or min(self.patch) < 1:
            raise ConfigError(f"patch is {self.patch}: expected two or three sides of 1 voxel or more.")
        if self.batch_size < 1 or self.steps_per_epoch < 1 or not 0 <= self.foreground_share <= 1:
            raise ConfigError(
                f"batch_size {self.batch_size}, steps_per_epoch {self.steps_per_epoch}, foreground_share "
                f"{self.foreground_share}: expected 1 or more, 1 or more, and 0 to 1."
            )
        absent = getattr(self.source, "absent", ())  # arguments may be checked before there are images
        if absent and not self.is_alternating:
            raise DataError(
                f"no training case holds {', '.join(absent)}; add cases, or remove the structure from the "
                "description"
            )

    @property
    def objects(self) -> int:
        """Items of one epoch; patches have no natural number."""
        return self.steps_per_epoch * self.batch_size

    def undisturbed(self, source: PatchSource) -> LabelledPatches:
        """Return the validation stream of other cases: no augmentation, and every other item shows a structure."""
        return replace(self, source=source, augmentation=VolumeAugmentation(), is_alternating=True)

    def __getitem__(self, key: Key) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Make the item at a position of the batch of a step: image [C, *patch], label [*patch].

        A pure function of (seed, step, position).
        """
        step, position = key
        rng = np.random.default_rng([self.seed, step, position])
        patch = _in_3d(self.patch)
        image, label = self.source.draw_patch(
            rng,
            patch=patch,
            foreground=self._shows_structure(position),
            enlarged=_in_3d(self.augmentation.enlarged(self.patch)),
        )
        image, label = self.augmentation.moved(image, label, patch, rng)
        image = self.augmentation.shaded(image, rng)
        return (image[:, 0], label[0]) if len(self.patch) == 2 else (image, label)

    def collate(self, items: Sequence[tuple[NDArray[np.float32], NDArray[np.int16]]]) -> PatchBatch:
        """Stack items to a batch."""
        images, labels = zip(*items, strict=True)
        return PatchBatch(torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)).long())

    def _shows_structure(self, position: int) -> bool:
        if self.is_alternating:
            return position % 2 == 0
        if self.foreground_share == 0:
            return False
        return position >= min(round(self.batch_size * (1 - self.foreground_share)), self.batch_size - 1)


def _in_3d(shape: Sequence[Any]) -> Shape:
    d, h, w = (1, *shape) if len(shape) == 2 else shape
    return d, h, w
