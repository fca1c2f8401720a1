"""The evidential losses of TBraTS and DEviS as their authors released them, for comparison with published numbers.

TBraTS: Zou et al. 2022, arXiv:2206.09309; DEviS: Zou et al., arXiv:2301.00349. Train with `UncertaintyDrivenLoss`: two
of these terms are not what their names say. The "Dice" of TBraTS takes concentrations that are not bounded by 1, so it
has no minimum at the truth; the overlap of DEviS takes the softmax of the evidence, not its expected probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medmargin.losses.evidential import (
    confidence_and_certainty,
    evidential_cross_entropy,
    kl_factor,
    kl_to_uniform,
    uncertainty_calibration,
)
from medmargin.losses.precision import full_precision
from medmargin.losses.progressive import exponential

_TUMOUR_CLASSES = 3  # the released code names classes 1, 2 and 3, those of BraTS


def tbrats_loss(alpha: Tensor, labels: Tensor, *, step: float, kl_steps: float) -> Tensor:
    """Return evidential cross-entropy, ramped divergence and concentration "Dice" of TBraTS, [].

    Args:
        alpha: [B, K, *spatial] >= 1. labels: [B, *spatial] integers 0..K-1.
        step: epoch. kl_steps: epoch from which the divergence has full weight.
    """
    divergence = kl_factor(step / kl_steps, 1.0) * kl_to_uniform(alpha, labels)
    return (evidential_cross_entropy(alpha, labels) + divergence).mean() + concentration_dice(alpha, labels)


def concentration_dice(alpha: Tensor, labels: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Return the overlap term of TBraTS on raw concentrations, summed over the (up to three) tumour classes, [].

    Args:
        alpha: [B, K, *spatial] >= 1. labels: [B, *spatial] integers 0..K-1. eps: added to the denominator.

    Equation: sum_k 1 - 2 sum alpha_k y_k / (sum alpha_k + sum y_k + eps), sums over the whole batch.
    """
    concentration, truth = (flat[1 : 1 + _TUMOUR_CLASSES] for flat in _by_class(alpha, labels))
    overlap = (concentration * truth).sum(1)
    return (1 - 2 * overlap / (concentration.sum(1) + truth.sum(1) + eps)).sum()


def evidential_squared_error(alpha: Tensor, labels: Tensor) -> Tensor:
    """Return the squared error expected under the Dirichlet, per pixel, [B, *spatial].

    Args:
        alpha: [B, K, *spatial] >= 1. labels: [B, *spatial] integers 0..K-1.

    Equation: sum_k (y_k - alpha_k / S)^2 + alpha_k (S - alpha_k) / (S^2 (S + 1)), eq. 5 of arXiv:1806.01768.
    """
    alpha = full_precision(alpha)
    strength = alpha.sum(1, keepdim=True)
    truth = F.one_hot(labels, alpha.shape[1]).movedim(-1, 1)
    variance = alpha * (strength - alpha) / (strength.square() * (strength + 1))
    return ((truth - alpha / strength).square() + variance).sum(1)


def devis_loss(
    evidence: Tensor,
    labels: Tensor,
    *,
    step: float,
    kl_steps: float,
    steps: float,
    eps: float = 1e-10,
    disentangled: bool = False,
) -> Tensor:
    """Return the loss of DEviS: cross-entropy, ramped divergence, fading Tversky overlap and calibration, [].

    Args:
        evidence: [B, K, *spatial] >= 0. labels: [B, *spatial] integers 0..K-1.
        step: epoch. kl_steps: epoch from which the divergence has full weight. steps: epochs in all.
        eps: added inside the logarithms of the calibration term.
        disentangled: the other released form of that term, with the confidence inside the logarithms.
    """
    progress, alpha = exponential(step / steps), evidence + 1
    divergence = kl_factor(step / kl_steps, 1.0) * kl_to_uniform(alpha, labels)
    calibration = _disentangled_calibration if disentangled else uncertainty_calibration
    pixels = evidential_cross_entropy(alpha, labels) + divergence + calibration(evidence, labels, progress, eps=eps)
    return pixels.mean() + (1 - progress) * balanced_tversky(evidence, labels)


def balanced_tversky(evidence: Tensor, labels: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Return one minus the Tversky overlap of softmax(evidence), averaged over all K classes, [].

    Args:
        evidence: [B, K, *spatial] >= 0. labels: [B, *spatial] integers 0..K-1. eps: added to every denominator.

    Equation: 1 - TP / (TP + a FP + (1 - a) FN + eps), a = FP / (FP + FN + eps) limited to [0.2, 0.8], per class over
    the whole batch; the gradient passes a, as released.
    """
    probabilities, truth = _by_class(full_precision(evidence).softmax(1), labels)
    hits = (probabilities * truth).sum(1)
    false_alarms = (probabilities * (1 - truth)).sum(1)
    misses = ((1 - probabilities) * truth).sum(1)
    share = (false_alarms / (false_alarms + misses + eps)).clamp(0.2, 0.8)
    return (1 - hits / (hits + share * false_alarms + (1 - share) * misses + eps)).mean()


def log_dice(evidence: Tensor, labels: Tensor, *, smooth: float = 1e-5) -> Tensor:
    """Return the mean over all K classes of minus the logarithm of an overlap of raw evidence, [].

    Args:
        evidence: [B, K, *spatial] >= 0. labels: [B, *spatial] integers 0..K-1. smooth: added on both sides.

    Equation: -ln((2 sum e_k y_k + smooth) / (sum e_k + sum y_k + 1 + smooth)), sums over the whole batch.
    """
    found, truth = _by_class(evidence, labels)
    ratio = (2 * (found * truth).sum(1) + smooth) / (found.sum(1) + truth.sum(1) + 1 + smooth)
    return -ratio.log().mean()


def _disentangled_calibration(evidence: Tensor, labels: Tensor, progress: float, *, eps: float) -> Tensor:
    """Equation: rho [right] (-ln(p_max (1 - u))) + (1 - rho) [wrong] (-ln((1 - p_max) u)), per pixel."""
    confidence, is_right, certainty, uncertainty = confidence_and_certainty(evidence, labels)
    when_right = -(confidence * certainty + eps).log()
    when_wrong = -((1 - confidence) * uncertainty + eps).log()
    return torch.where(is_right, progress * when_right, (1 - progress) * when_wrong)


def _by_class(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return values and one-hot truth as [K, pixels of the whole batch]."""
    values = full_precision(values)
    truth = F.one_hot(labels, values.shape[1]).movedim(-1, 1).to(values.dtype)
    return values.transpose(0, 1).flatten(1), truth.transpose(0, 1).flatten(1)
