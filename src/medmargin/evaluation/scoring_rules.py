"""Proper scores of predicted probabilities: Brier 1950 and the logarithmic score.

`probabilities` [N, K] sum to 1 over K; `labels` [N] are in 0..K-1. The class axis comes first in `*_terms`, which the
streaming measurement sums over pieces of an image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
_SMALLEST = 1e-12  # smaller probabilities count as this much: one sure error must not make the mean infinite


def brier_score(probabilities: Values, labels: Values) -> float:
    """Compute the mean over items of sum_k (p_k - y_k)^2, in [0, 2]; 0 is best.

    For two classes it is twice the binary convention (p - y)^2.
    """
    return float(brier_terms(probabilities.T, labels).mean())


def negative_log_likelihood(probabilities: Values, labels: Values) -> float:
    """Compute the mean over items of -ln p of the true class (nats, p >= 1e-12 in float64); 0 is best."""
    return float(likelihood_terms(probabilities.T, labels).mean())


def logarithmic_score(probabilities: Values, labels: Values) -> float:
    """Compute the mean over items of +ln(p + 1e-10) of the true class, as MetricsReloaded."""
    return float(np.log(_of_truth(probabilities.T, labels) + 1e-10).mean())


def brier_terms(probabilities: Values, labels: Values) -> NDArray[np.float64]:
    """Compute the Brier score of each item from `probabilities` [K, N]: sum_k p_k^2 - 2 p_true + 1."""
    squares = np.einsum("kn,kn->n", probabilities, probabilities, dtype=np.float64)
    return squares - 2.0 * _of_truth(probabilities, labels) + 1.0


def likelihood_terms(probabilities: Values, labels: Values) -> NDArray[np.float64]:
    """Compute -ln p of the true class of each item from `probabilities` [K, N]."""
    return -np.log(np.maximum(_of_truth(probabilities, labels), _SMALLEST))


def _of_truth(probabilities: Values, labels: Values) -> NDArray[np.float64]:
    return np.take_along_axis(probabilities, labels[None], axis=0)[0].astype(np.float64)
