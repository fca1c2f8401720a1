from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from medmargin.evaluation.scoring_rules import brier_score, logarithmic_score, negative_log_likelihood


def test_equal_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    probabilities, labels = softmax(rng.normal(size=(200, 4)), axis=1), rng.integers(0, 4, 200)
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(metrics.log_loss(labels, probabilities))
    binary = np.stack([1 - probabilities[:, 0], probabilities[:, 0]], axis=1)
    is_first = (labels == 0).astype(int)
    assert brier_score(binary, is_first) == pytest.approx(2 * metrics.brier_score_loss(is_first, binary[:, 1]))


def test_brier_score_follows_its_definition() -> None:
    probabilities, labels = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]), np.array([0, 1])
    expected = ((0.3**2 + 0.2**2 + 0.1**2) + (0.1**2 + 0.9**2 + 0.8**2)) / 2
    assert brier_score(probabilities, labels) == pytest.approx(expected)


def test_perfect_and_worst_predictions() -> None:
    labels = np.array([0, 1, 2, 1])
    perfect, worst = np.eye(3)[labels], np.eye(3)[(labels + 1) % 3]
    assert brier_score(perfect, labels) == negative_log_likelihood(perfect, labels) == 0
    assert brier_score(worst, labels) == 2
    assert negative_log_likelihood(worst, labels) == pytest.approx(-np.log(1e-12))
    assert logarithmic_score(worst, labels) == pytest.approx(np.log(1e-10))
