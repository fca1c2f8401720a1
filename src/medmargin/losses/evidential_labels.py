"""Both evidential terms of labelled voxels at once, with their gradient in closed form.

The equations are those of `evidential` (Sensoy et al. 2018, arXiv:1806.01768). Volumes have millions of voxels, and
digamma functions would cost a quarter of a training step if each term and each gradient took its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medmargin.losses.precision import full_precision


def evidential_terms(alpha: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return `evidential_cross_entropy` and `kl_to_uniform` of every voxel, [B, *spatial] each, in nats, >= 0.

    Args:
        alpha: [B, K, *spatial] >= 1, concentration of every class.
        labels: [B, *spatial] integers 0..K-1.
    """
    cross_entropy, divergence = _EvidentialTerms.apply(full_precision(alpha), labels)
    return cross_entropy, divergence


class _EvidentialTerms(torch.autograd.Function):
    """With a = alpha, but 1 at the true class t, A = sum a, S = sum alpha and psi' = trigamma.

    d CE / d alpha_k = psi'(S) - [k = t] psi'(alpha_t);
    d KL / d alpha_k = [k != t] ((a_k - 1) psi'(a_k) - sum_j (a_j - 1) psi'(A)).
    """

    @staticmethod
    def forward(ctx: Any, alpha: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        target = labels.unsqueeze(1)  # [B, 1, *spatial]
        true, total = alpha.gather(1, target), alpha.sum(1, keepdim=True)
        misleading = alpha.scatter(1, target, 1.0)
        wrong = misleading.sum(1, keepdim=True)
        ctx.save_for_backward(misleading, wrong, true, total, target)
        classes = alpha.new_tensor(float(alpha.shape[1]))
        expected = (digamma(misleading) - digamma(wrong)).mul_(misleading - 1).sum(1)
        divergence = wrong.squeeze(1).lgamma() - classes.lgamma() - misleading.lgamma().sum(1) + expected
        return (digamma(total) - digamma(true)).squeeze(1), divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        misleading, wrong, true, total, target = ctx.saved_tensors
        of_cross_entropy, of_divergence = (gradient.unsqueeze(1) for gradient in gradients)
        excess = misleading - 1
        gradient = torch.polygamma(1, misleading).mul_(excess)
        gradient -= excess.sum(1, keepdim=True) * torch.polygamma(1, wrong)
        gradient *= of_divergence
        gradient.scatter_(1, target, -of_cross_entropy * torch.polygamma(1, true))
        return gradient.add_(of_cross_entropy * torch.polygamma(1, total)), None


def digamma(x: Tensor) -> Tensor:
    """Return psi(x) for x >= 1, without a gradient; in float32 three times as fast as PyTorch's, and as exact.

    Equation: psi(x) = ln y - 1/2y - 1/12y^2 + 1/120y^4 - 1/252y^6 + 1/240y^8 - (2x + 3)(2u + 2) / u(u + 2), y = x + 4
    and u = x(x + 3): the last part is 1/x + 1/(x + 1) + 1/(x + 2) + 1/(x + 3). The next term is below 1e-9.
    """
    if x.dtype != torch.float32:
        return x.digamma()
    inverse = (x + 4).reciprocal_()
    square = inverse * inverse
    series = (square * (1 / 240)).sub_(1 / 252).mul_(square).add_(1 / 120).mul_(square).sub_(1 / 12).mul_(square)
    outer = (x + 3).mul_(x)  # u
    below = (outer + 2).mul_(outer)
    steps = (2 * x + 3).mul_(outer.mul_(2).add_(2)).div_(below)
    return series.sub_(inverse, alpha=0.5).sub_(inverse.log_()).sub_(steps)
