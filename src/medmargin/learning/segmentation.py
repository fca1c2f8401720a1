"""`SegmentationLearner`: train a network that finds every structure of a slice on its own."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.learning.labelled_slices import SegmentationBatch
from medmargin.learning.learner import Learner
from medmargin.losses.weighting import LossReport
from medmargin.networks.evidence import opinion
from medmargin.networks.prediction import Prediction


class SegmentationLearner(Learner):
    """Compare the class of each pixel with the labels, at the resolution of the labels.

    The network is called with an image and keyword `boxes` and returns a `Prediction` with logits [B, K, Q, Q]; the
    loss is called with the prediction, labels [B, S, S] and keyword `progress` in [0, 1], and returns a `LossReport`.
    A network whose attribute `evidence` names a kind of evidence and that has a method `observe` is shown the vacuity
    [N] of each training batch (or part of one), once, so that it learns which values are unusual: of the N pixels that
    slices fill, for padding is certain.

    The validation score is the mean over structures of their Dice over all validation slices together: a slice that
    cuts the tip of a structure weighs what it holds, as in the Dice of a volume.

    Args:
        network, loss: as above. optimisation: how weights move.
    """

    monitor: ClassVar[str] = "val/dice"
    monitor_mode: ClassVar[Literal["max", "min"]] = "max"

    def objective(self, batch: SegmentationBatch) -> LossReport:
        """Segment the slices and score what was found; SharpMin's second pass is not observed."""
        prediction = self.network(batch.image, boxes=batch.boxes)
        if self.training and not self.is_perturbed:
            _show_vacuity(self.network, prediction, batch)
        return self.loss(prediction, batch.labels, progress=self.progress)

    def on_validation_epoch_start(self) -> None:
        self._counts = torch.zeros(0)

    def validation_step(self, batch: SegmentationBatch, batch_idx: int) -> None:
        prediction = self.best_network(batch.image, boxes=batch.boxes)
        kind = getattr(self.best_network, "evidence", None)
        scores = _raised(prediction, batch.labels)
        if kind is not None:
            scores = opinion(scores, kind).alpha  # where evidence is cut off, its ties decide, as in prediction
        counts = confusion(scores.argmax(dim=1), batch.labels, classes=scores.shape[1])
        self._counts = counts + self._counts if len(self._counts) else counts

    def on_validation_epoch_end(self) -> None:
        counts = self.trainer.strategy.reduce(self._counts, reduce_op="sum")
        self.log(self.monitor, pooled_dice(counts), logger=False)


def confusion(found: Tensor, truth: Tensor, *, classes: int) -> Tensor:
    """Count pixels by (true class, found class): [K, K] int64.

    Args:
        found, truth: integer class indices of one shape, from 0 (background) to classes - 1.
        classes: number of classes K, background included.
    """
    return torch.bincount((truth * classes + found).flatten(), minlength=classes**2).view(classes, classes)


def pooled_dice(counts: Tensor) -> Tensor:
    """Return the mean Dice coefficient of the structures that are anywhere, from `confusion`: []; 1 without any."""
    sizes = (counts.sum(0) + counts.sum(1))[1:]
    dice = (2 * counts.diagonal()[1:] / sizes.clamp(min=1))[sizes > 0]
    return dice.mean() if len(dice) else dice.new_ones(())


@torch.no_grad()
def _show_vacuity(network: nn.Module, prediction: Prediction, batch: SegmentationBatch) -> None:
    kind, observe = getattr(network, "evidence", None), getattr(network, "observe", None)
    if kind is None or observe is None:
        return
    vacuity = opinion(_raised(prediction, batch.labels), kind).uncertainty[:, 0]  # [B, S, S]
    observe(vacuity.flatten() if batch.sizes is None else vacuity[_filled(batch.sizes, vacuity.shape[-1])])


def _filled(sizes: Tensor, side: int) -> Tensor:
    """Return where slices of the given rows and columns [B, 2] lie in their input: [B, side, side] bool."""
    places = torch.arange(side, device=sizes.device)
    rows, columns = (places < sizes[:, axis, None] for axis in (0, 1))  # [B, side]
    return rows[:, :, None] & columns[:, None, :]


def _raised(prediction: Prediction, labels: Tensor) -> Tensor:
    """Return the logits at the resolution of the labels: [B, K, S, S] float32."""
    logits, size = prediction.logits.float(), labels.shape[-2:]
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
