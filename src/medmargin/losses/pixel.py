"""Pixel-wise losses: every pixel counts the same, whatever its neighbours are."""

from __future__ import annotations

from torch import Tensor

from medmargin.losses.precision import full_precision


def probability_mse(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference between probability and mask (the Brier score), in [0, 1].

    Args:
        logits: [B, K, *spatial] before the sigmoid.
        target: [B, K, *spatial], 0 or 1 (or a soft mask in [0, 1]).

    Equation: mean_i (sigmoid(z_i) - y_i)^2.
    """
    return (full_precision(logits).sigmoid() - full_precision(target)).square().mean()
