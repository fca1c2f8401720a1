"""Uncertainty of one Dirichlet answer, in closed form: no second answer is needed to split it.

A network that gives evidence answers with a distribution over class probabilities, Dirichlet(alpha), S = sum_k alpha_k,
whose mean is p = alpha / S. Then, with psi the digamma function:
total = H(p), aleatoric = E[H(q)] = sum_k p_k (psi(S + 1) - psi(alpha_k + 1)), epistemic = total - aleatoric >= 0
(mutual information of class and q), vacuity = K / S. Malinin and Gales 2018, arXiv:1802.10501, appendix C; Sensoy et
al. 2018, arXiv:1806.01768 (vacuity).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

from medmargin.uncertainty.decomposition import Decomposition, class_entropy, split


def decompose_dirichlet(alpha: NDArray[np.floating]) -> Decomposition:
    """Split the uncertainty of Dirichlet parameters.

    Args:
        alpha: [K, *spatial], above 0.

    Returns:
        Three maps [*spatial] in nats; total at most ln K.
    """
    strength = alpha.sum(axis=0)
    probabilities = alpha / strength
    expected = (probabilities * (digamma(strength + 1) - digamma(alpha + 1))).sum(axis=0)
    return split(class_entropy(probabilities), expected)


def vacuity(alpha: NDArray[np.floating]) -> NDArray[np.floating]:
    """Compute K / S of Dirichlet parameters [K, *spatial] of at least 1: [*spatial] in (0, 1], 1 without evidence."""
    return len(alpha) / alpha.sum(axis=0)
