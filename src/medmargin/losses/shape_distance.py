"""The Shape-Distance ("SD") loss of U-MedSAM (arXiv:2408.08881) and its alternatives, behind one table.

The paper names the loss, files it under distribution losses and trains a working model with it alone, but prints no
formula. The default is the distance-penalised cross-entropy, which fits all three; every other distance loss of the
"Loss Odyssey" (Ma et al. 2021, doi:10.1016/j.media.2021.102035) is one word away.

Sources: penalised cross-entropy Caliva et al. 2019, arXiv:1908.03679; boundary loss Kervadec et al. 2019,
arXiv:1812.07032; signed map regression Xue et al. 2020, arXiv:1912.03849; Hausdorff see `hausdorff.py`.

Deviations: the released penalised cross-entropy computes the weighted loss but returns the unweighted mean; here the
weights count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medmargin.losses.distance_maps import border_distance, penalty_weights, signed_distance, unsigned_distance
from medmargin.losses.hausdorff import hausdorff_distance_transform, hausdorff_erosion
from medmargin.losses.precision import full_precision


def penalised_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the cross-entropy that counts double at the border, in nats, >= 0.

    Args:
        logits: [B, 1, *spatial] before the sigmoid.
        target: [B, 1, *spatial], 0 or 1.
        weights: [B, 1, *spatial], `penalty_weights` (1 + D) of each target.

    Equation: mean_i (1 + D_i) BCE_i.
    """
    entropy = F.binary_cross_entropy_with_logits(full_precision(logits), full_precision(target), reduction="none")
    return (full_precision(weights) * entropy).mean()


def boundary_loss(logits: Tensor, target: Tensor, distance: Tensor) -> Tensor:
    """Return the mean signed distance under the prediction, in pixels; negative for a good prediction.

    It pulls the border towards the true one but has no gradient where the mask is empty: never use it alone.

    Args:
        logits: [B, 1, *spatial] before the sigmoid.
        target: not used, the map holds the truth.
        distance: [B, 1, *spatial], `signed_distance` of each target.

    Equation: mean_i s_i phi_i, s = sigmoid(z); the softmax over two channels is sigmoid(z1 - z0).
    """
    return (full_precision(logits).sigmoid() * full_precision(distance)).mean()


def signed_distance_l1(logits: Tensor, target: Tensor, distance: Tensor, *, width: float = 5.0) -> Tensor:
    """Return how far the logits are from a squashed signed distance to the border, in [0, 2].

    Args:
        logits: [B, 1, *spatial] before the sigmoid.
        target: not used, the map holds the truth.
        distance: [B, 1, *spatial], `border_distance` of each target.
        width: distance in pixels at which tanh has reached 0.76; deeper pixels are asked for less precisely.

    Equation: mean_i |tanh(z_i / 2) + tanh(phi_i / width)|, 0 where z = -2 phi / width; tanh(z / 2) = 2 sigmoid(z) - 1.
    """
    return ((full_precision(logits) / 2).tanh() + (full_precision(distance) / width).tanh()).abs().mean()


def distance_dice(logits: Tensor, target: Tensor, weights: Tensor, *, smooth: float = 1e-5) -> Tensor:
    """Return the negative soft Dice whose overlap counts double at the border, in [-2, 0].

    Args:
        logits: [B, 1, *spatial] before the sigmoid.
        target: [B, 1, *spatial], 0 or 1.
        weights: [B, 1, *spatial], `penalty_weights` (1 + D) of each target.
        smooth: added to numerator and denominator.

    Equation: -(2 sum (1 + D) s y + smooth) / (sum s + sum y + smooth) per sample, averaged, s = sigmoid(z).
    """
    probabilities = full_precision(logits).sigmoid().flatten(1)  # [B, N]
    truth = full_precision(target).flatten(1)
    overlap = (full_precision(weights).flatten(1) * probabilities * truth).sum(1)
    return -((2 * overlap + smooth) / (probabilities.sum(1) + truth.sum(1) + smooth)).mean()


@dataclass(frozen=True)
class ShapeDistance:
    """One way to fill the Shape-Distance term.

    Attributes:
        loss: called as loss(logits, target, map), or loss(logits, target) where `distance_map` is None.
        distance_map: makes the map of one mask [*spatial], in the data loader.
        can_be_negative: a learned weighting must pass it through softplus, or its weight diverges.
        works_alone: the loss trains a network without any other term.
    """

    loss: Callable[..., Tensor]
    distance_map: Callable[[NDArray], NDArray[np.float32]] | None
    can_be_negative: bool = False
    works_alone: bool = True


SHAPE_DISTANCES = {
    "penalised_ce": ShapeDistance(penalised_cross_entropy, penalty_weights),
    "boundary": ShapeDistance(boundary_loss, signed_distance, can_be_negative=True, works_alone=False),
    "hausdorff_dt": ShapeDistance(hausdorff_distance_transform, unsigned_distance),
    "hausdorff_er": ShapeDistance(hausdorff_erosion, None, works_alone=False),
    "sdm_l1": ShapeDistance(signed_distance_l1, border_distance),
    "distance_dice": ShapeDistance(distance_dice, penalty_weights, can_be_negative=True),
}
