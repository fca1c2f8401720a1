"""`SegmentationLearner`: train a network that finds every structure of a slice or a patch on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.learning.learner import Learner
from medmargin.losses.weighting import LossReport
from medmargin.networks.evidence import opinion
from medmargin.networks.prediction import Prediction


class SegmentationLearner(Learner):
    """Compare the class of each pixel with the labels, at the resolution of the labels.

    The network is called with an image, and with keyword `boxes` where the batch has some, and returns a `Prediction`
    with logits [B, O, *spatial]; the loss is called with the prediction, labels [B, *spatial] (-1: does not count) and
    keyword `progress` in [0, 1], and returns a `LossReport`. A loss whose attribute `regions` lists label values has
    one independent output per region; otherwise the outputs are classes, the background first. Pictures may be
    answered at a lower resolution than they are labelled.
    A network whose attribute `evidence` names a kind of evidence and that has a method `observe` is shown the vacuity
    [N] of each training batch (or part of one), once, so that it learns which values are unusual: of the N pixels that
    slices fill, for padding is certain.

    The validation score is the mean over structures of their Dice over all validation items together: a slice that
    cuts the tip of a structure weighs what it holds, as in the Dice of a volume.

    Args:
        network, loss: as above. optimisation: how weights move.
    """

    monitor: ClassVar[str] = "val/dice"
    monitor_mode: ClassVar[Literal["max", "min"]] = "max"

    def objective(self, batch: Any) -> LossReport:
        """Segment the items and score what was found; SharpMin's second pass is not observed."""
        prediction = _asked(self.network, batch)
        if self.training and not self.is_perturbed:
            _show_vacuity(self.network, prediction, batch)
        return self.loss(prediction, batch.labels, progress=self.progress)

    def on_validation_epoch_start(self) -> None:
        self._counts = torch.zeros(0)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        scores = _raised(_asked(self.best_network, batch), batch.labels)
        regions: Sequence[Sequence[int]] = getattr(self.loss, "regions", ())
        if regions:
            counts = region_overlaps(scores > 0, batch.labels, regions)
        else:
            kind = getattr(self.best_network, "evidence", None)
            if kind is not None:
                scores = opinion(scores, kind).alpha  # where evidence is cut off, its ties decide, as in prediction
            counts = class_overlaps(scores.argmax(dim=1), batch.labels, classes=scores.shape[1])
        self._counts = counts + self._counts if len(self._counts) else counts

    def on_validation_epoch_end(self) -> None:
        counts = self.trainer.strategy.reduce(self._counts, reduce_op="sum")
        self.log(self.monitor, pooled_dice(counts), logger=False)


def class_overlaps(found: Tensor, truth: Tensor, *, classes: int) -> Tensor:
    """Count, per structure, the pixels found rightly, found at all, and true: [K - 1, 3] int64.

    Args:
        found, truth: integer class indices of one shape, from 0 (background) to classes - 1; true ones below 0 do not
            count.
        classes: number of classes K, background included.
    """
    counted = truth >= 0
    pairs = truth[counted] * classes + found[counted]
    confusion = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    return torch.stack((confusion.diagonal(), confusion.sum(0), confusion.sum(1)), dim=1)[1:]


def region_overlaps(found: Tensor, truth: Tensor, regions: Sequence[Sequence[int]]) -> Tensor:
    """Count as `class_overlaps` for regions that may overlap: [R, 3] int64.

    Args:
        found: [B, R, *spatial] bool. truth: [B, *spatial] label values; those below 0 do not count.
        regions: the label values of each region.
    """
    counted, rows = truth >= 0, []
    for index, values in enumerate(regions):
        is_true = torch.isin(truth, torch.tensor(values, device=truth.device))
        is_found = found[:, index] & counted
        rows.append(torch.stack([mask.sum() for mask in (is_found & is_true, is_found, is_true)]))
    return torch.stack(rows)


def pooled_dice(counts: Tensor) -> Tensor:
    """Return the mean Dice coefficient of the structures that are anywhere, from `class_overlaps`; 1 without any."""
    sizes = counts[:, 1] + counts[:, 2]
    dice = (2 * counts[:, 0] / sizes.clamp(min=1))[sizes > 0]
    return dice.mean() if len(dice) else dice.new_ones(())


def _asked(network: nn.Module, batch: Any) -> Prediction:
    boxes = getattr(batch, "boxes", None)
    return network(batch.image) if boxes is None else network(batch.image, boxes=boxes)


@torch.no_grad()
def _show_vacuity(network: nn.Module, prediction: Prediction, batch: Any) -> None:
    kind, observe = getattr(network, "evidence", None), getattr(network, "observe", None)
    if kind is None or observe is None:
        return
    vacuity = opinion(_raised(prediction, batch.labels), kind).uncertainty[:, 0]  # [B, *spatial]
    sizes = getattr(batch, "sizes", None)
    observe(vacuity.flatten() if sizes is None else vacuity[_filled(sizes, vacuity.shape[-1])])


def _filled(sizes: Tensor, side: int) -> Tensor:
    """Return where slices of the given rows and columns [B, 2] lie in their input: [B, side, side] bool."""
    places = torch.arange(side, device=sizes.device)
    rows, columns = (places < sizes[:, axis, None] for axis in (0, 1))  # [B, side]
    return rows[:, :, None] & columns[:, None, :]


def _raised(prediction: Prediction, labels: Tensor) -> Tensor:
    """Return the logits at the resolution of the labels: [B, O, *spatial] float32."""
    logits, size = prediction.logits.float(), labels.shape[1:]
    if logits.shape[2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
