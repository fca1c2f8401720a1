"""Distribution losses: the prediction as a Bernoulli distribution per pixel, scored in nats."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from medmargin.losses.precision import full_precision


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy between mask and probability, in nats, >= 0.

    Args:
        logits: [B, K, *spatial] before the sigmoid.
        target: [B, K, *spatial], 0 or 1 (or a soft mask in [0, 1]).

    Equation: mean_i -(y_i ln s_i + (1 - y_i) ln(1 - s_i)), s = sigmoid(z), evaluated in logit space.
    """
    return F.binary_cross_entropy_with_logits(full_precision(logits), full_precision(target))
