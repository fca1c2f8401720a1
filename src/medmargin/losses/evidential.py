"""Evidential losses: how well Dirichlet evidence explains the truth, and what wrong evidence costs.

Sensoy et al. 2018, arXiv:1806.01768, in the form TBraTS (Zou et al. 2022, arXiv:2206.09309) and DEviS (Zou et al.,
arXiv:2301.00349) give it for segmentation. alpha = evidence + 1, S = sum_k alpha_k, psi = digamma.

Everywhere `target` is either the label map [B, *spatial] of integers 0..K-1 or class fractions [B, K, *spatial] that
sum to 1 (one-hot, or soft near an edge); both give the same value where both can be written.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medmargin.losses.precision import full_precision


def evidential_cross_entropy(alpha: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy expected under the Dirichlet, per pixel, [B, *spatial], in nats, > 0.

    Args:
        alpha: [B, K, *spatial] >= 1, concentration of every class.
        target: labels or class fractions, see above.

    Equation: sum_k y_k (psi(S) - psi(alpha_k)).
    """
    alpha = full_precision(alpha)
    of_total = alpha.sum(1).digamma()  # [B, *spatial]
    if _is_labels(alpha, target):
        return of_total - alpha.gather(1, target.unsqueeze(1)).squeeze(1).digamma()
    return of_total - (target * alpha.digamma()).sum(1)


def kl_to_uniform(alpha: Tensor, target: Tensor) -> Tensor:
    """Return the divergence of the evidence for wrong classes from no evidence at all, per pixel, in nats, >= 0.

    Args:
        alpha: [B, K, *spatial] >= 1, concentration of every class.
        target: labels or class fractions, see above.

    Returns:
        [B, *spatial], 0 where no wrong class has evidence.

    Equation: KL(Dir(a) || Dir(1)) = lnG(sum a) - lnG(K) - sum_k lnG(a_k) + sum_k (a_k - 1)(psi(a_k) - psi(sum a)) with
    a = y + (1 - y) alpha and lnG = ln Gamma; summed, not averaged, over the classes.
    """
    alpha = full_precision(alpha)
    if _is_labels(alpha, target):
        misleading = alpha.scatter(1, target.unsqueeze(1), 1.0)
    else:
        misleading = target + (1 - target) * alpha
    total = misleading.sum(1)
    classes = torch.tensor(float(alpha.shape[1]), dtype=alpha.dtype, device=alpha.device)
    expected = ((misleading - 1) * (misleading.digamma() - total.digamma().unsqueeze(1))).sum(1)
    return total.lgamma() - classes.lgamma() - misleading.lgamma().sum(1) + expected


def kl_factor(progress: float, ramp: float) -> float:
    """Return min(1, progress / ramp): at full strength from the start, the divergence kills all evidence.

    Args:
        progress: share of the training that is done, in [0, 1].
        ramp: share after which the factor stays 1; 0 for at once.
    """
    return 1.0 if progress >= ramp else progress / ramp


def foreground_dice(probabilities: Tensor, target: Tensor, *, smooth: float = 1e-5) -> Tensor:
    """Return one minus the soft Dice overlap, averaged over images and classes 1..K-1; in [0, 1].

    For evidence the probabilities are the expected ones, alpha / S; for a softmax network its own.

    Args:
        probabilities: [B, K, *spatial], sum over K is 1.
        target: labels or class fractions, see above.
        smooth: added to numerator and denominator, so that an absent class found absent costs nothing.

    Equation: 1 - (2 sum p_k y_k + smooth) / (sum p_k + sum y_k + smooth).
    """
    expected = full_precision(probabilities)[:, 1:].flatten(2)  # [B, K - 1, N]
    truth = _fractions(probabilities, target)[:, 1:].flatten(2).to(expected.dtype)
    overlap = (expected * truth).sum(-1)
    return (1 - (2 * overlap + smooth) / (expected.sum(-1) + truth.sum(-1) + smooth)).mean()


def uncertainty_calibration(evidence: Tensor, labels: Tensor, progress: float, *, eps: float = 1e-10) -> Tensor:
    """Return the price of being uncertain and right, or certain and wrong, per pixel, [B, *spatial], >= 0.

    The calibration term of DEviS. Early in training errors count, late in training doubts.

    Args:
        evidence: [B, K, *spatial] >= 0.
        labels: [B, *spatial] integers 0..K-1.
        progress: share rho of the schedule, in [0, 1] (DEviS: `progressive.exponential`).
        eps: added inside the logarithms.

    Equation: rho [right] (-p_max ln(1 - u)) + (1 - rho) [wrong] (-(1 - p_max) ln u), p = alpha / S, u = K / S.
    """
    confidence, is_right, certainty, uncertainty = confidence_and_certainty(evidence, labels)
    when_right = -confidence * (certainty + eps).log()
    when_wrong = -(1 - confidence) * (uncertainty + eps).log()
    return torch.where(is_right, progress * when_right, (1 - progress) * when_wrong)


def confidence_and_certainty(evidence: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return p_max, whether that class is the true one, 1 - u and u, each [B, *spatial].

    Args:
        evidence: [B, K, *spatial] >= 0. labels: [B, *spatial] integers 0..K-1.
    """
    evidence = full_precision(evidence)
    total, classes = evidence.sum(1), evidence.shape[1]
    strength = total + classes
    highest, predicted = evidence.max(1)
    # 1 - u from the evidence: a difference of two numbers near 1 would round a small one to 0 and its gradient to 1/eps
    return (highest + 1) / strength, predicted == labels, total / strength, classes / strength


def _is_labels(alpha: Tensor, target: Tensor) -> bool:
    return target.ndim < alpha.ndim


def _fractions(probabilities: Tensor, target: Tensor) -> Tensor:
    """Return the target as class fractions [B, K, *spatial]."""
    if _is_labels(probabilities, target):
        return torch.zeros_like(full_precision(probabilities)).scatter_(1, target.unsqueeze(1), 1.0)
    return target
