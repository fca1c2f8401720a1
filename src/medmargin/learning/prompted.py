"""`PromptedLearner`: train a promptable network on objects with simulated prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from medmargin.learning.learner import Learner, Optimisation
from medmargin.learning.prompted_stream import PromptedBatch
from medmargin.losses.promptable import PromptableLoss
from medmargin.losses.weighting import LossReport
from medmargin.networks.prediction import Prediction
from medmargin.networks.promptable import Promptable


class PromptedLearner(Learner):
    """Compare the mask of each prompt with the object it was drawn from.

    The validation score is the mean Dice of hard masks at network resolution; "val/box" and "val/ellipse" are what the
    prompt alone would score on the same objects.

    Args:
        network: the promptable network. loss: of its predictions.
        optimisation: how weights move.
    """

    monitor: ClassVar[str] = "val/dice"
    monitor_mode: ClassVar[Literal["max", "min"]] = "max"

    def __init__(self, network: Promptable, loss: PromptableLoss, optimisation: Optimisation) -> None:
        super().__init__(network, loss, optimisation)

    def objective(self, batch: PromptedBatch) -> LossReport:
        """Decode the batch's prompts and score the masks at the resolution of the targets."""
        return self.loss(_prompted(self.network, batch), batch.target, batch.maps)

    def validation_step(self, batch: PromptedBatch, batch_idx: int) -> None:
        masks = _prompted(self.best_network, batch).logits > 0
        scores = {"val/dice": _dice(masks, batch.target > 0.5).mean()}
        if batch.floors is not None:
            scores.update({"val/box": batch.floors[:, 0].mean(), "val/ellipse": batch.floors[:, 1].mean()})
        self.log_dict(scores, on_epoch=True, sync_dist=True, logger=False, batch_size=len(masks))


def _prompted(network: torch.nn.Module, batch: PromptedBatch) -> Prediction:
    """Answer every prompt of a batch, with logits at the resolution of the targets: [B, 1, S, S]."""
    prediction = network(batch.image, boxes=batch.boxes, points=batch.points, point_labels=batch.point_labels)
    size = batch.target.shape[-2:]
    if prediction.logits.shape[-2:] == size:
        return prediction
    logits = F.interpolate(prediction.logits.float(), size=size, mode="bilinear", align_corners=False)
    return replace(prediction, logits=logits)


def _dice(mask: Tensor, truth: Tensor) -> Tensor:
    """Return the Dice coefficient of each object: [B]; an object always has a pixel, so the sum is never 0."""
    overlap = (mask & truth).sum(dim=(1, 2, 3))
    return 2 * overlap / (mask.sum(dim=(1, 2, 3)) + truth.sum(dim=(1, 2, 3)))
