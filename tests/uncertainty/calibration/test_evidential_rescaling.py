"""Evidence: its relation to probability and vacuity, its recovered scale, its untouched order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.errors import DataError
from medmargin.uncertainty.calibration import EvidentialRescaling, Unchanged, Voxels, fit_evidential_rescaling
from medmargin.uncertainty.calibration.evidential_rescaling import evidence


def answers(amount: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [K, N] and vacuity [N] of evidence [K, N]."""
    strength = len(amount) + amount.sum(axis=0)
    return ((amount + 1) / strength).astype(np.float32), (len(amount) / strength).astype(np.float32)


def amounts(seed: int, voxels: int = 20_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.gamma(0.6, 15, (4, voxels)) * (rng.random((4, voxels)) < 0.7)


def drawn(amount: np.ndarray, truth: np.ndarray, seed: int = 0) -> Voxels:
    """Voxels of this evidence whose true classes follow the evidence `truth`."""
    probabilities, vacuity = answers(amount)
    cumulative = np.cumsum(answers(truth)[0].astype(np.float64), axis=0)
    labels = (np.random.default_rng(seed).random(vacuity.size) > cumulative).sum(axis=0).clip(0, len(amount) - 1)
    return Voxels(probabilities, labels, np.ones(labels.size), np.ones(labels.size, bool), vacuity)


def test_evidence_follows_from_probability_and_vacuity() -> None:
    amount = amounts(0)
    np.testing.assert_allclose(evidence(*answers(amount)), amount, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [0.1, 4.0])
def test_the_scale_of_evidence_is_recovered(scale: float) -> None:
    amount = amounts(1, 80_000)
    fitted = fit_evidential_rescaling(drawn(amount, scale * amount))
    assert isinstance(fitted.rescaling, EvidentialRescaling)
    assert fitted.rescaling.scale_of_evidence == pytest.approx(scale, rel=0.06)
    assert fitted.rescaling.exponent == 1
    assert fitted.after < fitted.before


def test_the_exponent_is_recovered_too() -> None:
    amount = amounts(2, 60_000)
    voxels = drawn(amount, 0.8 * amount**0.6)
    fitted = fit_evidential_rescaling(voxels, exponent=True)
    assert isinstance(fitted.rescaling, EvidentialRescaling)
    assert fitted.rescaling.scale_of_evidence == pytest.approx(0.8, rel=0.1)
    assert fitted.rescaling.exponent == pytest.approx(0.6, abs=0.04)
    assert fitted.after < fit_evidential_rescaling(voxels).after


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.floats(0.2, 3))
def test_order_sums_and_closed_form(seed: int, scale: float, exponent: float) -> None:
    amount = amounts(seed, 200)
    block, vacuity = answers(amount)
    before = block.argmax(axis=0)
    clear = np.sort(amount, axis=0)[-1] > 1.01 * np.sort(amount, axis=0)[-2] + 1e-3
    new = EvidentialRescaling(scale_of_evidence=scale, exponent=exponent).rescale(block, vacuity)
    assert np.array_equal(block.argmax(axis=0)[clear], before[clear])
    expected, expected_vacuity = answers(scale * evidence(*answers(amount)).astype(np.float64) ** exponent)
    np.testing.assert_allclose(block, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new, expected_vacuity, rtol=1e-4)


def test_no_change_at_one_and_no_harm_ever() -> None:
    amount = amounts(3)
    block, vacuity = answers(amount)
    EvidentialRescaling(scale_of_evidence=1).scale(block, vacuity)
    np.testing.assert_allclose(block, answers(amount)[0], atol=1e-6)
    # means over answers: the relation is a definition only, and the fit may still not do harm
    mean = (answers(amount)[0] + answers(amounts(4))[0]) / 2
    voxels = drawn(amount, amount)
    voxels = Voxels(mean, voxels.labels, voxels.weights, voxels.near, np.full(voxels.labels.size, 1.0, np.float32))
    fitted = fit_evidential_rescaling(voxels)
    assert fitted.after <= voxels.negative_log_likelihood(mean)
    assert isinstance(fitted.rescaling, Unchanged | EvidentialRescaling)


def test_answers_without_vacuity_are_refused() -> None:
    with pytest.raises(DataError, match="vacuity map"):
        EvidentialRescaling(scale_of_evidence=1).scale(np.full((2, 3), 0.5, np.float32))
    voxels = drawn(amounts(5), amounts(5))
    with pytest.raises(DataError, match="evidential network"):
        fit_evidential_rescaling(Voxels(voxels.probabilities, voxels.labels, voxels.weights, voxels.near, None))
