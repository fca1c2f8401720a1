"""The compound loss of a promptable network: pixel, region and distribution terms, weighted by hand or by learning.

U-MedSAM (arXiv:2408.08881) learns the weights of four terms; LiteMedSAM, its baseline, adds Dice and cross-entropy
with weight 1. Both keep the squared error of the estimated mask quality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medmargin.errors import ConfigError
from medmargin.losses.distribution import binary_cross_entropy
from medmargin.losses.iou_quality import quality_mse
from medmargin.losses.pixel import probability_mse
from medmargin.losses.region import dice_loss
from medmargin.losses.shape_distance import SHAPE_DISTANCES
from medmargin.losses.uncertainty_weighting import Regulariser, UncertaintyWeighted
from medmargin.losses.weighting import FixedWeighted, LossReport

_PLAIN_TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": probability_mse,
    "dice": dice_loss,
    "ce": binary_cross_entropy,
}
_QUALITY = "quality"


class MaskPrediction(Protocol):
    """What the loss reads of a network's `Prediction`: logits [B, 1, H, W] and estimated IoU [B, 1]."""

    logits: Tensor
    quality: Tensor | None


class PromptableLoss(nn.Module):
    """Compare predicted masks with true ones by several terms at once.

    Args:
        terms: any of "mse" (pixel), "dice" (region), "ce" and "sd" (distribution).
        weighting: "uncertainty" learns one weight per term, "fixed" multiplies each by `weights`.
        shape_distance: what "sd" computes, a key of `SHAPE_DISTANCES`.
        quality: the squared error of the estimated IoU is added with factor 1 ("fixed"), weighted like the terms
            ("weighted"), or left out ("off").
        weights: term -> factor for weighting "fixed", 1 where a term is not named.
        regulariser: of the learned weighting, "log1p" or "log".

    Attributes:
        distance_map: makes the map that "sd" needs from one mask [*spatial]; call it in the data loader, after
            flips. None where no map is needed.

    Raises:
        ConfigError: an unknown name, a term twice, no term, weights that do not fit, or a shape distance that cannot
            train alone.
    """

    def __init__(
        self,
        terms: Sequence[str] = ("mse", "dice", "ce", "sd"),
        *,
        weighting: Literal["uncertainty", "fixed"] = "uncertainty",
        shape_distance: str = "penalised_ce",
        quality: Literal["fixed", "weighted", "off"] = "fixed",
        weights: Mapping[str, float] | None = None,
        regulariser: Regulariser = "log1p",
    ) -> None:
        super().__init__()
        _check_choice("weighting", weighting, ("uncertainty", "fixed"))
        _check_choice("shape_distance", shape_distance, tuple(SHAPE_DISTANCES))
        _check_choice("quality", quality, ("fixed", "weighted", "off"))
        for term in terms:
            _check_choice("loss term", term, (*_PLAIN_TERMS, "sd"))
        if not terms or len(set(terms)) != len(terms):
            raise ConfigError(f"loss terms are {list(terms)}: expected one or more, each once.")
        self.terms = tuple(terms)
        self.quality = quality
        self._shape_distance = SHAPE_DISTANCES[shape_distance]
        if self.terms == ("sd",) and not self._shape_distance.works_alone:
            raise ConfigError(f"shape_distance '{shape_distance}' cannot train alone: add 'dice' or 'ce' to the terms.")
        self.distance_map: Callable[[NDArray], NDArray[np.float32]] | None = (
            self._shape_distance.distance_map if "sd" in self.terms else None
        )
        self.weighting = self._build_weighting(weighting, weights, regulariser)

    def forward(self, prediction: MaskPrediction, target: Tensor, maps: Tensor | None = None) -> LossReport:
        """Return total, terms and weights.

        Args:
            prediction: logits [B, 1, H, W] at the resolution of the target, quality [B, 1] unless `quality` is "off".
            target: [B, 1, H, W] float, 0 or 1.
            maps: [B, 1, H, W] float, `distance_map` of each target. Without them they are made here, on the CPU:
                correct, but slow in a training loop.

        Raises:
            ValueError: shapes that differ, or a prediction without the quality that the loss scores.
        """
        logits = prediction.logits
        for name, other in (("target", target), ("maps", maps)):
            if other is not None and other.shape != logits.shape:
                raise ValueError(f"{name} {tuple(other.shape)} differs in shape from logits {tuple(logits.shape)}")
        values = {term: self._term(term, logits, target, maps) for term in self.terms}
        if self.quality != "off":
            if prediction.quality is None:
                raise ValueError("the network estimates no mask quality: build PromptableLoss with quality='off'")
            values[_QUALITY] = quality_mse(prediction.quality, logits, target)
        return self.weighting(values)

    def _term(self, name: str, logits: Tensor, target: Tensor, maps: Tensor | None) -> Tensor:
        if name != "sd":
            return _PLAIN_TERMS[name](logits, target)
        if self.distance_map is None:
            return self._shape_distance.loss(logits, target)
        if maps is None:
            masks = (target[:, 0] > 0.5).cpu().numpy()
            maps = torch.from_numpy(np.stack([self.distance_map(mask) for mask in masks])[:, None]).to(target.device)
        return self._shape_distance.loss(logits, target, maps)

    def _build_weighting(
        self, weighting: str, weights: Mapping[str, float] | None, regulariser: Regulariser
    ) -> UncertaintyWeighted | FixedWeighted:
        weighted = [*self.terms, _QUALITY] if self.quality == "weighted" else list(self.terms)
        fixed = {_QUALITY: 1.0} if self.quality == "fixed" else {}
        if weighting == "uncertainty":
            if weights is not None:
                raise ConfigError("weights are learned with weighting='uncertainty': leave them out or choose 'fixed'.")
            softplus = {"sd"} if "sd" in weighted and self._shape_distance.can_be_negative else set()
            return UncertaintyWeighted(weighted, fixed=fixed, softplus=softplus, regulariser=regulariser)
        factors = {**dict.fromkeys(weighted, 1.0), **fixed}
        unknown = sorted(set(weights or {}) - set(factors))
        if unknown:
            raise ConfigError(f"weights name {unknown}: expected some of {', '.join(factors)}.")
        return FixedWeighted({**factors, **(weights or {})})


def _check_choice(what: str, found: str, expected: tuple[str, ...]) -> None:
    if found not in expected:
        raise ConfigError(f"{what} is '{found}': expected one of {', '.join(expected)}.")
