"""The loss of UDEG-Net: evidence for every class and for edges, weighted from certain pixels to uncertain edges.

The idea is that of Zhao et al. 2025, doi:10.1109/TMI.2025.3535478; what can be read of the paper gives no formula, so
terms, weights and schedules are this toolkit's own, on the evidential losses of TBraTS and DEviS (see `evidential`).
Without evidence it is the loss of SAMed (Zhang & Liu 2023, arXiv:2304.13785): 0.2 cross-entropy + 0.8 Dice.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.errors import ConfigError
from medmargin.losses.arguments import check_range
from medmargin.losses.edge_targets import Edges, EdgeTargets, edge_balance, pooled
from medmargin.losses.evidential import (
    evidential_cross_entropy,
    foreground_dice,
    kl_factor,
    kl_to_uniform,
    uncertainty_calibration,
)
from medmargin.losses.precision import full_precision
from medmargin.losses.progressive import SCHEDULES, progressive_weights
from medmargin.losses.weighting import FixedWeighted, LossReport
from medmargin.networks.evidence import EVIDENCE, Opinion, opinion

_SAMED_WEIGHTS = {"ce": 0.2, "dice": 0.8}


class EdgePrediction(Protocol):
    """What the loss reads of a network's `Prediction`.

    logits [B, K, h, w]; edges [B, 2, h, w] logits of (no edge, edge) or None; deep: the same at other sizes, or ().
    """

    logits: Tensor
    edges: Tensor | None
    deep: tuple[Tensor, ...]


class UncertaintyDrivenLoss(nn.Module):
    """Score segmentation and edges by their evidence, each pixel by how uncertain it is and how far training has come.

    Terms: "ce" and "kl" (weighted pixels), "dice" (classes 1..K-1), "calibration" where it has a weight; where the
    network predicts edges "edge_ce" (cross-entropy with its divergence, classes balanced), "edge_dice", and "side"
    where it predicts them at lower resolution too.

    Args:
        evidence: how logits become evidence, a key of `networks.evidence.EVIDENCE`, or None for a softmax network: then
            "ce" and "dice" are SAMed's, and what follows concerns the edges only.
        progressive: weigh pixels by uncertainty; otherwise every weight is 1.
        schedule: of that weight over the training, a key of `progressive.SCHEDULES`.
        beta, eta: see `progressive_weights`.
        kl_ramp: share of the training after which the divergence has full weight.
        calibration_weight: factor of "calibration" (DEviS: 0.1 is a start); 0 leaves it out.
        edge_weight, side_weight: factors of "edge_ce" and "edge_dice", and of "side".
        edge_target, edge_radius: what counts as an edge, see `EdgeTargets`.

    Raises:
        ConfigError: an unknown name, or a number out of its range.
    """

    def __init__(
        self,
        *,
        evidence: str | None = "softplus",
        progressive: bool = True,
        schedule: str = "cosine",
        beta: float = 1.0,
        eta: float = 0.5,
        kl_ramp: float = 0.25,
        calibration_weight: float = 0.0,
        edge_weight: float = 1.0,
        side_weight: float = 0.3,
        edge_target: str = "labels",
        edge_radius: float = 2.0,
    ) -> None:
        super().__init__()
        if evidence is not None and evidence not in EVIDENCE:
            raise ConfigError(f"evidence is '{evidence}': expected one of {', '.join(EVIDENCE)}, or None for softmax.")
        if schedule not in SCHEDULES:
            raise ConfigError(f"schedule is '{schedule}': expected one of {', '.join(SCHEDULES)}.")
        factors = {"calibration_weight": calibration_weight, "edge_weight": edge_weight, "side_weight": side_weight}
        check_range({**factors, "beta": beta}, high=math.inf)
        check_range({"eta": eta, "kl_ramp": kl_ramp}, high=1.0)
        if evidence is None and calibration_weight:
            raise ConfigError("calibration_weight needs evidence: a softmax network has no uncertainty to calibrate.")
        self.evidence, self.progressive, self.schedule = evidence, progressive, schedule
        self.beta, self.eta, self.kl_ramp, self.calibration_weight = beta, eta, kl_ramp, calibration_weight
        self.edge_weight, self.side_weight = edge_weight, side_weight
        self.edge_targets = EdgeTargets(edge_target, radius=edge_radius)

    def forward(self, prediction: EdgePrediction, labels: Tensor, progress: float) -> LossReport:
        """Return total, terms and weights, in float32 whatever the network computed in.

        Args:
            prediction: logits [B, K, h, w], brought to the size of the labels here; edges and deep where predicted.
            labels: [B, H, W] int64, 0..K-1.
            progress: share of the training that is done, in [0, 1].

        Raises:
            ValueError: progress or labels out of range, or labels of another batch.
        """
        _check_labels(labels, prediction.logits)
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is {progress}: expected the share of the training that is done, 0 to 1")
        with torch.autocast(labels.device.type, enabled=False):
            edges = self._edges(prediction, labels)
            # upsample logits, then make evidence: the evidence of a mean is not the mean of evidence
            logits = F.interpolate(
                full_precision(prediction.logits), labels.shape[-2:], mode="bilinear", align_corners=False
            )
            weighted = self._segmentation_terms(logits, labels, edges, progress)
            if edges is not None and prediction.edges is not None:
                weighted |= self._edge_terms(prediction.edges, edges, progress)
                if prediction.deep:
                    weighted["side"] = (self.side_weight, _side_loss(prediction.deep, edges.target))
        weighting = FixedWeighted({name: weight for name, (weight, _) in weighted.items()})
        return weighting({name: value for name, (_, value) in weighted.items()})

    def _edges(self, prediction: EdgePrediction, labels: Tensor) -> Edges | None:
        """Return the true edges where any term needs them."""
        is_weighted = self.progressive and self.evidence is not None
        return self.edge_targets(labels) if is_weighted or prediction.edges is not None else None

    def _segmentation_terms(
        self, logits: Tensor, labels: Tensor, edges: Edges | None, progress: float
    ) -> dict[str, tuple[float, Tensor]]:
        """Return name -> (factor, value) of the terms that score the segmentation."""
        if self.evidence is None:
            values = {"ce": F.cross_entropy(logits, labels), "dice": foreground_dice(logits.softmax(1), labels)}
            return {name: (_SAMED_WEIGHTS[name], value) for name, value in values.items()}
        belief = opinion(logits, self.evidence)
        weights = self._weights(belief, edges, progress)
        terms = {
            "ce": (1.0, (weights * evidential_cross_entropy(belief.alpha, labels)).mean()),
            "kl": (kl_factor(progress, self.kl_ramp), (weights * kl_to_uniform(belief.alpha, labels)).mean()),
            "dice": (1.0, foreground_dice(belief.probability, labels)),
        }
        if self.calibration_weight:
            doubt = uncertainty_calibration(belief.evidence, labels, SCHEDULES[self.schedule](progress))
            terms["calibration"] = (self.calibration_weight, doubt.mean())
        return terms

    def _edge_terms(self, logits: Tensor, edges: Edges, progress: float) -> dict[str, tuple[float, Tensor]]:
        """Return name -> (factor, value) of the terms that score edge logits [B, 2, h, w] on their own grid."""
        size = (logits.shape[-2], logits.shape[-1])
        coarse = Edges(pooled(edges.target, size), pooled(edges.proximity, size))
        belief = opinion(logits, "softplus")
        truth = torch.stack([1 - coarse.target, coarse.target], 1)  # [B, 2, h, w]
        pixels = evidential_cross_entropy(belief.alpha, truth)
        pixels = pixels + kl_factor(progress, self.kl_ramp) * kl_to_uniform(belief.alpha, truth)
        weights = self._weights(belief, coarse, progress) * edge_balance(coarse.target)
        return {
            "edge_ce": (self.edge_weight, (weights * pixels).mean()),
            "edge_dice": (self.edge_weight, foreground_dice(belief.probability, truth)),
        }

    def _weights(self, belief: Opinion, edges: Edges | None, progress: float) -> Tensor:
        """Return the weight of every pixel, [B, H, W], or [] where all are 1."""
        if not self.progressive or edges is None:
            return belief.alpha.new_ones(())
        rho = SCHEDULES[self.schedule](progress)
        return progressive_weights(belief.uncertainty[:, 0], edges.proximity, rho, beta=self.beta, eta=self.eta)


def _side_loss(deep: tuple[Tensor, ...], target: Tensor) -> Tensor:
    """Return the cross-entropy of e_edge - e_no_edge against the edges, summed over the resolutions, []."""
    losses = []
    for logits in deep:
        edge = full_precision(logits[:, 1] - logits[:, 0])
        losses.append(F.binary_cross_entropy_with_logits(edge, pooled(target, (edge.shape[-2], edge.shape[-1]))))
    return torch.stack(losses).sum()


def _check_labels(labels: Tensor, logits: Tensor) -> None:
    if labels.ndim != 3 or len(labels) != len(logits):
        raise ValueError(
            f"labels {tuple(labels.shape)} do not fit logits {tuple(logits.shape)}: expected [{len(logits)}, H, W]"
        )
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(f"labels hold {low}..{high}, but the network has the classes 0..{logits.shape[1] - 1}")
