"""Region losses: overlap of whole masks, insensitive to how much background there is.

Milletari et al. 2016, arXiv:1606.04797 (V-Net), squared denominators.
"""

from __future__ import annotations

from torch import Tensor

from medmargin.losses.precision import full_precision


def dice_loss(logits: Tensor, target: Tensor, *, smooth: float = 1e-5) -> Tensor:
    """Return one minus the soft Dice overlap, computed per sample and channel, then averaged; in [0, 1].

    Args:
        logits: [B, K, *spatial] before the sigmoid.
        target: [B, K, *spatial], 0 or 1 (or a soft mask in [0, 1]).
        smooth: added to numerator and denominator, so that an empty mask predicted as empty has loss 0.

    Equation: 1 - (2 sum s y + smooth) / (sum s^2 + sum y^2 + smooth), s = sigmoid(z); the setting of LiteMedSAM.
    """
    probabilities = full_precision(logits).sigmoid().flatten(2)  # [B, K, N]
    truth = full_precision(target).flatten(2)
    overlap = (probabilities * truth).sum(-1)  # [B, K]
    size = probabilities.square().sum(-1) + truth.square().sum(-1)
    return (1 - (2 * overlap + smooth) / (size + smooth)).mean()
