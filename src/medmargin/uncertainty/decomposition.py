"""How uncertain an answer is, and why: entropy of the mean answer, split into two parts.

With S members p^(s) and their mean pbar: total = H(pbar) (predictive entropy), aleatoric = mean_s H(p^(s)) (expected
entropy: every member is unsure), epistemic = total - aleatoric (mutual information: the members disagree). All in nats,
0 ln 0 = 0. Depeweg et al. 2018, arXiv:1710.07283; Smith and Gal 2018, arXiv:1803.08533.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr


class Decomposition(NamedTuple):
    """Uncertainty maps in nats; `total == aleatoric + epistemic` and `epistemic >= 0`."""

    total: NDArray[np.floating]
    aleatoric: NDArray[np.floating]
    epistemic: NDArray[np.floating]


def binary_entropy(probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """Compute -p ln p - (1 - p) ln(1 - p) of foreground probabilities of any shape; at most ln 2."""
    return entr(probabilities) + entr(1 - probabilities)


def class_entropy(probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """Compute -sum_k p_k ln p_k of class probabilities [K, *spatial]: [*spatial], at most ln K."""
    return entr(probabilities).sum(axis=0)


def split(total: NDArray[np.floating], expected: NDArray[np.floating]) -> Decomposition:
    """Split predictive entropy by expected entropy.

    Entropy is concave, so `expected <= total`; where rounding says otherwise the expected entropy is cut at the total.
    """
    aleatoric = np.minimum(expected, total)
    return Decomposition(total, aleatoric, total - aleatoric)


def decompose(samples: NDArray[np.floating]) -> Decomposition:
    """Decompose the uncertainty of K-class members [S, K, *spatial]: three maps [*spatial]."""
    return split(class_entropy(samples.mean(axis=0)), entr(samples).sum(axis=1).mean(axis=0))


def decompose_binary(samples: NDArray[np.floating]) -> Decomposition:
    """Decompose the uncertainty of foreground probabilities of S members [S, *spatial]: three maps [*spatial]."""
    return split(binary_entropy(samples.mean(axis=0)), binary_entropy(samples).mean(axis=0))
