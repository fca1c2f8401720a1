from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medmargin.errors import DataError
from medmargin.evaluation.error_detection import (
    ScoreHistogram,
    auroc,
    average_precision,
    false_positive_rate,
    ranking,
    uncertainty_error_overlap,
)

SCORES = arrays(np.float64, 40, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]))


@given(SCORES, arrays(bool, 40))
def test_rankings_equal_scikit_learn_with_ties(score: np.ndarray, positive: np.ndarray) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    ranked = ranking(score, positive)
    if not positive.any() or positive.all():
        assert auroc(ranked) is None
        assert false_positive_rate(ranked) is None
        return
    assert auroc(ranked) == pytest.approx(metrics.roc_auc_score(positive, score))
    assert average_precision(ranked) == pytest.approx(metrics.average_precision_score(positive, score))
    false_rates, true_rates, _ = metrics.roc_curve(positive, score, drop_intermediate=False)
    assert false_positive_rate(ranked) == pytest.approx(false_rates[true_rates >= 0.95][0])


def test_perfect_reversed_and_constant_uncertainty() -> None:
    error = np.array([True, True, False, False, False])
    assert auroc(ranking(error.astype(float), error)) == average_precision(ranking(error.astype(float), error)) == 1
    assert auroc(ranking(-error.astype(float), error)) == 0
    constant = ranking(np.zeros(5), error)
    assert auroc(constant) == 0.5
    assert average_precision(constant) == 0.4  # the error rate


def test_permuting_the_uncertainty_makes_it_a_coin_toss() -> None:
    rng = np.random.default_rng(0)
    error = rng.random(5000) < 0.2
    uncertainty = error + rng.random(5000)
    assert auroc(ranking(uncertainty, error)) > 0.95
    assert auroc(ranking(rng.permutation(uncertainty), error)) == pytest.approx(0.5, abs=0.05)


def test_average_precision_needs_a_positive() -> None:
    assert average_precision(ranking(np.zeros(3), np.zeros(3, bool))) is None


def test_histogram_equals_the_exact_ranking_of_half_precision_scores() -> None:
    rng = np.random.default_rng(1)
    score, positive = rng.random(3000).astype(np.float32), rng.random(3000) < 0.3
    score[:100] = -0.0
    histogram = ScoreHistogram()
    histogram.add(score[:1000], positive[:1000])
    histogram.add(score[1000:], positive[1000:])
    found, exact = histogram.ranking(), ranking(score.astype(np.float16), positive)
    np.testing.assert_array_equal(found.scores, exact.scores)
    np.testing.assert_array_equal(found.sizes, exact.sizes)
    np.testing.assert_array_equal(found.positives, exact.positives)
    assert auroc(found) == pytest.approx(auroc(ranking(score, positive)), abs=1e-3)


def test_histograms_add_up() -> None:
    rng = np.random.default_rng(2)
    score, positive = rng.random(500), rng.random(500) < 0.5
    parts, whole = ScoreHistogram(), ScoreHistogram()
    whole.add(score, positive)
    for part in (slice(0, 200), slice(200, 500)):
        counted = ScoreHistogram()
        counted.add(score[part], positive[part])
        parts.add_ranking(counted.ranking())
    assert auroc(parts.ranking()) == auroc(whole.ranking())
    assert parts.ranking().items == 500


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf, 1e6])
def test_histogram_refuses_impossible_uncertainty(value: float) -> None:
    with pytest.raises(DataError, match="expected finite numbers from 0"):
        ScoreHistogram().add(np.array([0.5, value]), np.array([True, False]))


@pytest.mark.parametrize(
    ("error", "uncertainty", "overlap"), [(1, 1.0, 1.0), (0, 0.0, 1.0), (1, 0.0, 0.0), (0, 1.0, 0.0)]
)
def test_overlap_of_empty_errors_and_uncertainties(error: int, uncertainty: float, overlap: float) -> None:
    found = uncertainty_error_overlap(np.full((3, 3), uncertainty), np.full((3, 3), error), np.array([0.5]))
    assert found.tolist() == [overlap]


def test_overlap_of_known_sets() -> None:
    error, uncertainty = np.array([1, 1, 0, 0]), np.array([0.9, 0.3, 0.6, 0.1])
    assert uncertainty_error_overlap(uncertainty, error, np.array([0.2, 0.5])).tolist() == [0.8, 0.5]
