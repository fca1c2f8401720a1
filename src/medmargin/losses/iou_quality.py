"""Quality loss: the network estimates the overlap its own mask will reach (Kirillov et al. 2023, arXiv:2304.02643)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medmargin.losses.precision import full_precision


@torch.no_grad()
def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """Return the intersection over union of the thresholded prediction and the mask, [B, K], in [0, 1].

    Args:
        logits: [B, K, *spatial] before the sigmoid; a pixel belongs to the mask where sigmoid(z) > 0.5.
        target: [B, K, *spatial], 0 or 1.

    Deviations: two empty masks agree and get 1 (the released LiteMedSAM divides 0 by 0).
    """
    predicted = (full_precision(logits).sigmoid() > 0.5).flatten(2)
    truth = (target > 0.5).flatten(2)
    intersection = (predicted & truth).sum(-1)
    union = (predicted | truth).sum(-1)
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0)


def quality_mse(quality: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of the estimated overlap; only the estimate gets a gradient.

    Args:
        quality: [B, K] estimated intersection over union.
        logits: [B, K, *spatial] before the sigmoid.
        target: [B, K, *spatial], 0 or 1.
    """
    estimate = full_precision(quality)
    return F.mse_loss(estimate, mask_iou(logits, target).to(estimate.dtype))
