"""The loss of dense segmentation, nnU-Net 2's: a voxel term and soft Dice, at every resolution the network answers in.

Isensee et al. 2021, doi:10.1038/s41592-020-01008-z, with the smoothing and the weights of deep supervision of its
release. For evidence the cross-entropy is the one expected under the Dirichlet and wrong evidence costs its divergence
from none, as in TBraTS (Zou et al. 2022, arXiv:2206.09309).

Deviations: one minus the Dice coefficient instead of minus it, so that a perfect answer costs 0; the voxel term of
regions is their mean with and without ignored voxels (the release: their sum with them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.errors import ConfigError
from medmargin.losses.arguments import check_range
from medmargin.losses.deep_supervision import DeepPrediction, at_resolution, deep_weights
from medmargin.losses.evidential import evidential_cross_entropy, kl_factor
from medmargin.losses.evidential_labels import evidential_terms
from medmargin.losses.weighting import FixedWeighted, LossReport
from medmargin.networks.evidence import EVIDENCE, opinion

Kind = Literal["softmax", "evidential", "regions"]


class DenseLoss(nn.Module):
    """Score every voxel with a label, and the overlap of every structure.

    Terms: "ce" and "dice", for evidence also "kl" where it has a weight; each is the weighted mean over resolutions. A
    batch without a single label costs 0.

    Args:
        kind: how logits are read: classes that exclude each other ("softmax"), the same as evidence ("evidential"), or
            structures that may overlap, each with a sigmoid ("regions").
        evidence: how logits become evidence, a key of `networks.evidence.EVIDENCE`.
        regions: the label values each region consists of, one tuple per output.
        batch_dice: overlap over the batch as a whole, not per sample.
        smooth: added to numerator and denominator of Dice.
        ce_weight, dice_weight, kl_weight: factors of the terms.
        kl_ramp: share of the training after which the divergence has full weight.
        label_smoothing: share of the softmax target spread over all classes.

    Raises:
        ConfigError: an unknown name, a number out of its range, or arguments of another kind of loss.
    """

    def __init__(
        self,
        kind: Kind = "softmax",
        *,
        evidence: str = "softplus",
        regions: Sequence[Sequence[int]] = (),
        batch_dice: bool = False,
        smooth: float = 1e-5,
        ce_weight: float = 1.0,
        dice_weight: float = 1.0,
        kl_weight: float = 1.0,
        kl_ramp: float = 0.25,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        _check_names(kind, evidence, regions, label_smoothing)
        check_range({"ce_weight": ce_weight, "dice_weight": dice_weight, "kl_weight": kl_weight}, high=math.inf)
        check_range({"smooth": smooth, "kl_ramp": kl_ramp, "label_smoothing": label_smoothing}, high=1.0)
        self.kind, self.evidence, self.batch_dice, self.smooth = kind, evidence, batch_dice, smooth
        self.regions = tuple(tuple(values) for values in regions)
        self.ce_weight, self.dice_weight, self.kl_weight = ce_weight, dice_weight, kl_weight
        self.kl_ramp, self.label_smoothing = kl_ramp, label_smoothing

    def forward(self, prediction: DeepPrediction, labels: Tensor, *, progress: float) -> LossReport:
        """Return total, terms and weights, in float32 or better whatever the network computed in.

        Args:
            prediction: logits [B, O, *spatial] and `deep`, the same at lower resolutions, finest last, or ().
            labels: [B, *spatial] int64, 0..O-1 (for regions any value); -1 counts nowhere.
            progress: share of the training that is done, in [0, 1].

        Raises:
            ValueError: labels of another shape or out of range, or outputs that are not one per region.
        """
        outputs = (prediction.logits, *reversed(prediction.deep))  # finest first
        self._check(prediction.logits, labels)
        factors = {"ce": self.ce_weight, "dice": self.dice_weight}
        if self.kind == "evidential" and self.kl_weight:
            factors["kl"] = self.kl_weight * kl_factor(progress, self.kl_ramp)
        totals = dict.fromkeys(factors, labels.new_zeros((), dtype=torch.float32))
        with torch.autocast(labels.device.type, enabled=False):
            for weight, logits in zip(deep_weights(len(outputs)), outputs, strict=True):
                if weight == 0:  # a gradient of 0, which optimisers and distributed training expect to be there
                    totals["ce"] = totals["ce"] + 0 * logits.sum(dtype=torch.float32)
                    continue
                terms = self._terms(_rows(logits), at_resolution(labels, logits.shape[2:]).flatten(1))
                totals = {name: totals[name] + weight * terms[name] for name in factors}
        return FixedWeighted(factors)(totals)

    def _terms(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return every term, [], of logits [B, O, N] and labels [B, N] with -1."""
        if self.kind == "regions":
            return self._of_regions(logits, labels)
        counts = labels >= 0  # [B, N]
        names = labels.clamp(min=0)
        if self.kind == "evidential":
            belief = opinion(logits, self.evidence)
            probabilities = belief.probability
            if self.kl_weight:
                surprise, divergence = evidential_terms(belief.alpha, names)
                terms = {"ce": _mean(surprise, counts), "kl": _mean(divergence, counts)}
            else:
                terms = {"ce": _mean(evidential_cross_entropy(belief.alpha, names), counts)}
        else:
            logarithms = logits.log_softmax(1)
            surprise = -logarithms.gather(1, names.unsqueeze(1)).squeeze(1)
            if self.label_smoothing:
                surprise = torch.lerp(surprise, -logarithms.mean(1), self.label_smoothing)
            terms, probabilities = {"ce": _mean(surprise, counts)}, logarithms.exp()
        structures = torch.arange(1, logits.shape[1], device=labels.device)
        truth = labels.unsqueeze(1) == structures[:, None]  # [B, K - 1, N], False where ignored
        return {**terms, "dice": self._dice(probabilities[:, 1:], truth, counts)}

    def _of_regions(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        members = [(labels.unsqueeze(1) == labels.new_tensor(values)[:, None]).any(1) for values in self.regions]
        truth = torch.stack(members, dim=1)  # [B, R, N]
        counts = labels >= 0
        surprise = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none").mean(1)
        return {"ce": _mean(surprise, counts), "dice": self._dice(logits.sigmoid(), truth, counts)}

    def _dice(self, probabilities: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
        """Return one minus soft Dice, mean over structures (and samples), [].

        Equation: 1 - (2 sum p y + smooth) / max(sum p + sum y + smooth, 1e-8), over the voxels that count.

        Args:
            probabilities: p [B, S, N]. truth: y [B, S, N] bool, False where nothing counts. counts: [B, N] bool.
        """
        overlap = (probabilities * truth).sum(2)  # [B, S]
        size = (probabilities * counts.unsqueeze(1)).sum(2) + truth.sum(2)
        if self.batch_dice:
            overlap, size = overlap.sum(0), size.sum(0)
        return (1 - (2 * overlap + self.smooth) / (size + self.smooth).clamp(min=1e-8)).mean()

    def _check(self, logits: Tensor, labels: Tensor) -> None:
        if labels.shape != (len(logits), *logits.shape[2:]):
            raise ValueError(f"labels {list(labels.shape)} do not fit logits {list(logits.shape)}")
        outputs = logits.shape[1]
        if self.kind == "regions" and outputs != len(self.regions):
            raise ValueError(f"the network has {outputs} outputs, the loss {len(self.regions)} regions")
        low, high = (int(bound) for bound in labels.aminmax())
        if low < -1 or (self.kind != "regions" and high >= outputs):
            raise ValueError(f"labels hold {low}..{high}: expected -1 (ignored) and the classes 0..{outputs - 1}")


def _rows(logits: Tensor) -> Tensor:
    """Return logits as [B, O, N] in float32 or better, one output after the other in memory."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype, memory_format=torch.contiguous_format).flatten(2)


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """Average [B, N] over the voxels that count; 0 where none does."""
    return (values * counts).sum() / counts.sum().clamp(min=1)


def _check_names(kind: str, evidence: str, regions: Sequence[Sequence[int]], label_smoothing: float) -> None:
    if kind not in get_args(Kind):
        raise ConfigError(f"kind is '{kind}': expected one of {', '.join(get_args(Kind))}.")
    if evidence not in EVIDENCE:
        raise ConfigError(f"evidence is '{evidence}': expected one of {', '.join(EVIDENCE)}.")
    if (kind == "regions") != bool(regions) or not all(regions):
        raise ConfigError(f"regions are {regions} in a loss of kind '{kind}': give label values for 'regions' alone.")
    if label_smoothing and kind != "softmax":
        raise ConfigError(f"label_smoothing smooths the target of a softmax, not of '{kind}'. Leave it at 0.")
