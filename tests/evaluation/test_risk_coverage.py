from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medmargin.evaluation.error_detection import ranking
from medmargin.evaluation.risk_coverage import (
    augrc,
    aurc,
    excess_aurc,
    oracle,
    risk_coverage,
    risk_coverage_of_errors,
    values_aurc,
    values_excess_aurc,
)

RISKS = arrays(np.float64, 12, elements=st.floats(0, 1))
TIED = arrays(np.float64, 12, elements=st.sampled_from([0.1, 0.2, 0.3]))


@given(RISKS, TIED)
def test_curve_is_the_mean_risk_of_the_kept_items(risk: np.ndarray, confidence: np.ndarray) -> None:
    curve = risk_coverage(risk, confidence)
    thresholds = np.unique(confidence)
    for position, threshold in enumerate(thresholds):
        kept = confidence >= threshold
        assert curve.coverages[position] == pytest.approx(kept.mean())
        assert curve.selective[position] == pytest.approx(risk[kept].mean(), abs=1e-9)
        assert curve.generalised[position] == pytest.approx(risk[kept].sum() / risk.size, abs=1e-9)
    assert curve.coverages[-1] == curve.generalised[-1] == 0
    assert curve.selective[-1] == curve.selective[-2]


@given(RISKS, TIED, st.permutations(range(12)))
def test_order_of_items_does_not_matter_even_with_ties(
    risk: np.ndarray, confidence: np.ndarray, order: list[int]
) -> None:
    curve, other = risk_coverage(risk, confidence), risk_coverage(risk[order], confidence[order])
    assert aurc(curve) == pytest.approx(aurc(other))
    assert augrc(curve) == pytest.approx(augrc(other))


@given(RISKS, arrays(np.float64, 12, elements=st.floats(0, 1), unique=True))
def test_no_order_beats_the_oracle(risk: np.ndarray, confidence: np.ndarray) -> None:
    assert excess_aurc(risk, confidence) >= -1e-12


@given(arrays(np.float64, 12, elements=st.floats(0, 1), unique=True))
def test_perfect_confidence_has_no_excess(risk: np.ndarray) -> None:
    assert excess_aurc(risk, -risk) == pytest.approx(0, abs=1e-12)


def test_constant_confidence_gives_the_mean_risk() -> None:
    risk = np.array([0.1, 0.4, 0.7])
    curve = risk_coverage(risk, np.zeros(3))
    assert aurc(curve) == pytest.approx(0.4)
    assert augrc(curve) == pytest.approx(0.2)


def test_no_errors_mean_no_risk() -> None:
    ranked = ranking(np.array([0.1, 0.2, 0.3]), np.zeros(3, bool))
    assert aurc(risk_coverage_of_errors(ranked)) == 0


@given(arrays(bool, 12), TIED)
def test_errors_are_items_with_risk_one(error: np.ndarray, uncertainty: np.ndarray) -> None:
    counted = risk_coverage_of_errors(ranking(uncertainty, error))
    plain = risk_coverage(error.astype(float), -uncertainty)
    np.testing.assert_allclose(counted.selective, plain.selective)
    np.testing.assert_allclose(counted.coverages, plain.coverages)


def test_values_code_agrees_without_ties_but_for_its_last_point() -> None:
    rng = np.random.default_rng(0)
    risk, confidence = rng.random(2000), rng.random(2000)
    assert values_aurc(risk, confidence) == pytest.approx(aurc(risk_coverage(risk, confidence)), abs=1e-3)
    assert values_aurc(risk, confidence) == values_aurc(risk, confidence, released=True)
    assert values_excess_aurc(risk, -risk) == pytest.approx(0, abs=1e-3)


def test_values_code_depends_on_the_order_within_ties_and_ours_keeps_it() -> None:
    confidence = np.array([0.1, 0.1, 0.1, 0.9])
    low_first, high_first = np.array([0.0, 0.5, 1.0, 0.2]), np.array([1.0, 0.5, 0.0, 0.2])
    assert values_aurc(low_first, confidence) != values_aurc(high_first, confidence)
    assert aurc(risk_coverage(low_first, confidence)) == aurc(risk_coverage(high_first, confidence))


def test_one_item() -> None:
    assert aurc(risk_coverage(np.array([0.3]), np.array([1.0]))) == pytest.approx(0.3)
    assert aurc(oracle(np.array([0.3]))) == pytest.approx(0.3)
