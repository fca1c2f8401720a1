"""Losses that estimate the Hausdorff distance. Karimi & Salcudean 2019, arXiv:1904.10030.

Deviations: the erosion loss is differentiable, as in the paper; the widely used releases evaluate it on detached
arrays, so that it trains nothing. Its values are theirs; the limits of the stretching get no gradient, so that a
smaller error never costs more.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medmargin.losses.distance_maps import unsigned_distance
from medmargin.losses.precision import full_precision


def hausdorff_distance_transform(logits: Tensor, target: Tensor, distance: Tensor) -> Tensor:
    """Return the error weighted by squared distances to the true and to the predicted border, in pixels^2, >= 0.

    The distances of the prediction change at every step and are computed on the CPU: the slowest option here.

    Args:
        logits: [B, 1, *spatial] before the sigmoid.
        target: [B, 1, *spatial], 0 or 1.
        distance: [B, 1, *spatial], `unsigned_distance` of each target.

    Equation: mean_i (s_i - y_i)^2 (d_pred_i^2 + d_true_i^2), s = sigmoid(z) (eq. 8 with alpha = 2).
    """
    probabilities = full_precision(logits).sigmoid()
    predicted = (probabilities.detach() > 0.5).cpu().numpy()
    predicted_distance = torch.from_numpy(np.stack([unsigned_distance(mask[0]) for mask in predicted])[:, None])
    squared_distance = predicted_distance.to(probabilities).square() + full_precision(distance).square()
    return ((probabilities - full_precision(target)).square() * squared_distance).mean()


def hausdorff_erosion(logits: Tensor, target: Tensor, *, erosions: int = 10, alpha: float = 2.0) -> Tensor:
    """Return the error that survives repeated soft erosion, later erosions counting more; >= 0, no unit.

    Squared errors below 0.5 in a whole neighbourhood count nothing, so it has no gradient at an undecided prediction:
    never use it alone.

    Args:
        logits: [B, 1, *spatial] before the sigmoid, 2-D or 3-D.
        target: [B, 1, *spatial], 0 or 1.
        erosions: number K of erosions; an error region thinner than about 2K pixels vanishes before the last.
        alpha: exponent of the weight k^alpha of the k-th erosion.

    Equation: sum_k k^alpha mean_i ((s - y)^2 eroded k times)_i; one erosion averages over the pixel and its direct
    neighbours (zeros beyond the image), subtracts 0.5, cuts at 0 and stretches each sample to [0, 1] (eq. 10).
    """
    error = (full_precision(logits).sigmoid() - full_precision(target)).square()
    kernel = _star_kernel(error)
    total = error.new_zeros(())
    with torch.autocast(device_type=error.device.type, enabled=False):
        for k in range(1, erosions + 1):
            error = _erode(error, kernel)
            total = total + k**alpha * error.mean()
    return total


def _star_kernel(like: Tensor) -> Tensor:
    """Return the averaging kernel over a pixel and its direct neighbours, [1, 1, 3, 3] or [1, 1, 3, 3, 3]."""
    dims = like.ndim - 2
    from_centre = np.abs(np.indices((3,) * dims) - 1).sum(0)
    star = torch.from_numpy(from_centre <= 1).to(like)
    return (star / star.sum())[None, None]


def _erode(error: Tensor, kernel: Tensor) -> Tensor:
    convolve = F.conv2d if error.ndim == 4 else F.conv3d
    eroded = (convolve(error, kernel, padding=1) - 0.5).clamp(min=0)
    axes = tuple(range(1, error.ndim))
    lowest = eroded.detach().amin(axes, keepdim=True)
    spread = eroded.detach().amax(axes, keepdim=True) - lowest
    return (eroded - lowest) / torch.where(spread > 0, spread, 1.0)
