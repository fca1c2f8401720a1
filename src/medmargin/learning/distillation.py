"""Distillation: a small image encoder learns the embedding of a large, frozen one; no labels are needed.

Stage 1 of LiteMedSAM (teacher MedSAM, 1024 px; student TinyViT, 256 px) and the EfficientViT student of U-MedSAM.
Ma et al. 2024, arXiv:2412.16085; arXiv:2408.08881. Both networks see the same picture, stretched to their own square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medmargin.errors import ConfigError
from medmargin.learning.batches import Key
from medmargin.learning.learner import Learner, Optimisation
from medmargin.learning.sources import Source
from medmargin.losses.distillation import embedding_mse
from medmargin.losses.weighting import LossReport
from medmargin.networks.promptable import Promptable
from medmargin.transforms import Augmentation
from medmargin.transforms.intensity import unit_range


class DistillationBatch(NamedTuple):
    """B pictures at two sizes.

    Attributes:
        image: [B, 3, S, S] float32 in [0, 1] for the student. teacher_image: [B, 3, T, T] for the teacher.
    """

    image: Tensor
    teacher_image: Tensor


class DistillationItem(NamedTuple):
    """One picture; the arrays of a `DistillationBatch` without the batch axis."""

    image: NDArray[np.float32]
    teacher_image: NDArray[np.float32]


@dataclass(frozen=True)
class DistillationPictures:
    """A stream of pictures for student and teacher (see `batches.Stream`).

    Attributes:
        source: draws pictures; their masks are not used.
        size, teacher_size: side of each network's input in pixels.
        seed: of every random choice.
        augmentation: what happens to the pictures; LiteMedSAM flips.
    """

    source: Source
    size: int
    teacher_size: int
    seed: int
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def objects(self) -> int | None:
        return self.source.objects

    def undisturbed(self, source: Source) -> DistillationPictures:
        """Return the validation stream of other cases: no augmentation."""
        return replace(self, source=source, augmentation=Augmentation(flips=False))

    def __getitem__(self, key: Key) -> DistillationItem:
        """Make the item at a position of the batch of a step; a pure function of (seed, step, position)."""
        rng = np.random.default_rng([self.seed, *key])
        picture, _ = self.augmentation.moved(*self.source.draw(rng), rng)
        return DistillationItem(_stretched(picture, self.size), _stretched(picture, self.teacher_size))

    def collate(self, items: Sequence[DistillationItem]) -> DistillationBatch:
        """Stack items to a batch."""
        return DistillationBatch._make(torch.from_numpy(np.stack(column)) for column in zip(*items, strict=True))


class DistillationLearner(Learner):
    """Minimise the mean squared difference of two image embeddings.

    Args:
        student: the network whose image encoder learns; its prompt encoder and decoder stay as they are.
        teacher: frozen. It is not part of the checkpoints.
        optimisation: how weights move.
    """

    monitor: ClassVar[str] = "val/embedding_mse"
    monitor_mode: ClassVar[Literal["max", "min"]] = "min"

    def __init__(self, student: Promptable, teacher: Promptable, optimisation: Optimisation) -> None:
        super().__init__(student, nn.Identity(), optimisation)
        self._teacher = (teacher.eval().requires_grad_(False),)  # in a tuple, torch does not take it for a part

    def on_fit_start(self) -> None:
        self._teacher[0].to(self.device)

    def objective(self, batch: DistillationBatch) -> LossReport:
        """Embed the pictures with both networks and compare.

        Raises:
            ConfigError: the embeddings differ in shape.
        """
        difference = self._difference(self.network, batch)
        return LossReport(total=difference, terms={"embedding_mse": difference.detach()}, weights={})

    def validation_step(self, batch: DistillationBatch, batch_idx: int) -> None:
        difference = self._difference(self.best_network, batch)
        self.log(self.monitor, difference, on_epoch=True, sync_dist=True, logger=False, batch_size=len(batch.image))

    def _difference(self, student: nn.Module, batch: DistillationBatch) -> Tensor:
        assert isinstance(student, Promptable)  # see __init__
        with torch.no_grad():
            wanted = self._teacher[0].encode(batch.teacher_image).features
        found = student.encode(batch.image).features
        if found.shape != wanted.shape:
            raise ConfigError(
                f"the student's embedding is {tuple(found.shape[1:])}, the teacher's {tuple(wanted.shape[1:])}: "
                "choose input sizes and widths with which they agree."
            )
        return embedding_mse(found, wanted)


def _stretched(picture: NDArray, size: int) -> NDArray[np.float32]:
    """Stretch a picture to a square, whatever its proportions, and its grey levels to [0, 1]: [3, size, size]."""
    shrinks = size < max(picture.shape[:2])
    floats = np.ascontiguousarray(picture, np.float32)
    square = cv2.resize(floats, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    square = np.atleast_3d(unit_range(np.asarray(square, np.float32)))
    return np.repeat(square, 3 // square.shape[-1], axis=-1).transpose(2, 0, 1).astype(np.float32, copy=False)
