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
    [B, 1, S, S] of each training batch (or part of one), once, so that it learns which values are unusual.

    The validation score is the mean over slices of `mean_dice`.

    Args:
        network, loss: as above. optimisation: how weights move.
    """

    monitor: ClassVar[str] = "val/dice"
    monitor_mode: ClassVar[Literal["max", "min"]] = "max"

    def objective(self, batch: SegmentationBatch) -> LossReport:
        """Segment the slices and score what was found; SharpMin's second pass is not observed."""
        prediction = self.network(batch.image, boxes=batch.boxes)
        if self.training and not self.is_perturbed:
            _show_vacuity(self.network, prediction, batch.labels)
        return self.loss(prediction, batch.labels, progress=self.progress)

    def validation_step(self, batch: SegmentationBatch, batch_idx: int) -> None:
        prediction = self.best_network(batch.image, boxes=batch.boxes)
        kind = getattr(self.best_network, "evidence", None)
        scores = _raised(prediction, batch.labels)
        if kind is not None:
            scores = opinion(scores, kind).alpha  # where evidence is cut off, its ties decide, as in prediction
        dice = mean_dice(scores.argmax(dim=1), batch.labels, classes=scores.shape[1])
        self.log(self.monitor, dice.mean(), on_epoch=True, sync_dist=True, logger=False, batch_size=len(dice))


def mean_dice(found: Tensor, truth: Tensor, *, classes: int) -> Tensor:
    """Return for each picture the mean Dice coefficient of the structures that it or its truth shows.

    Args:
        found, truth: [B, *spatial] integer class indices from 0 (background) to classes - 1.
        classes: number of classes K, background included.

    Returns:
        [B] float32 in [0, 1]; 1 where neither shows a structure.
    """
    pictures = torch.arange(len(truth), device=truth.device).view(-1, *(1,) * (truth.ndim - 1))
    cells = ((pictures * classes + truth) * classes + found).flatten()
    counts = torch.bincount(cells, minlength=len(truth) * classes**2).view(-1, classes, classes)  # (B, truth, found)
    overlap = counts.diagonal(dim1=1, dim2=2)[:, 1:]  # (B, K - 1)
    sizes = (counts.sum(1) + counts.sum(2))[:, 1:]
    shown = (sizes > 0).sum(dim=1)
    dice = (2 * overlap / sizes.clamp(min=1)).sum(dim=1) / shown.clamp(min=1)
    return torch.where(shown > 0, dice, 1.0)


@torch.no_grad()
def _show_vacuity(network: nn.Module, prediction: Prediction, labels: Tensor) -> None:
    kind, observe = getattr(network, "evidence", None), getattr(network, "observe", None)
    if kind is not None and observe is not None:
        observe(opinion(_raised(prediction, labels), kind).uncertainty)


def _raised(prediction: Prediction, labels: Tensor) -> Tensor:
    """Return the logits at the resolution of the labels: [B, K, S, S] float32."""
    logits, size = prediction.logits.float(), labels.shape[-2:]
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
