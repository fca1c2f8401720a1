"""Temperature and vector scaling: recovered numbers, untouched order, no harm to the likelihood."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from scipy.special import softmax

from medmargin.uncertainty.calibration import (
    Temperature,
    Unchanged,
    VectorScaling,
    Voxels,
    VoxelSample,
    fit_temperature,
    fit_vector_scaling,
)


def drawn(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> Voxels:
    """Voxels with softmax(logits [K, N]) as probabilities."""
    probabilities = softmax(logits, axis=0).astype(np.float32)
    weights = np.ones(labels.size) if weights is None else weights
    return Voxels(probabilities, labels, weights, np.ones(labels.size, bool), None)


def labels_of(logits: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draw true classes from softmax(logits)."""
    cumulative = np.cumsum(softmax(logits, axis=0), axis=0)
    return (np.random.default_rng(seed).random(logits.shape[1]) > cumulative).sum(axis=0).clip(0, len(logits) - 1)


def scaled(rescaling: Temperature | VectorScaling | Unchanged, probabilities: np.ndarray) -> np.ndarray:
    block = probabilities.astype(np.float32)
    rescaling.scale(block)
    return block


@pytest.mark.parametrize("true", [0.5, 1.7, 3.0])
def test_the_temperature_of_synthetic_data_is_recovered(true: float) -> None:
    logits = np.random.default_rng(1).normal(0, 2, (4, 40_000))
    fitted = fit_temperature(drawn(logits * true, labels_of(logits)))
    assert isinstance(fitted.rescaling, Temperature)
    assert fitted.rescaling.temperature == pytest.approx(true, rel=0.03)
    assert fitted.after < fitted.before


def test_the_temperature_is_the_minimum_of_the_likelihood() -> None:
    logits = np.random.default_rng(2).normal(0, 3, (3, 5000))
    voxels = drawn(logits * 2, labels_of(logits))
    best = fit_temperature(voxels)
    for factor in (0.98, 1.02):
        other = Temperature(temperature=best.rescaling.temperature * factor)  # type: ignore[union-attr]
        assert voxels.negative_log_likelihood(scaled(other, voxels.probabilities)) > best.after


def test_weights_decide_what_is_fitted() -> None:
    logits = np.random.default_rng(3).normal(0, 2, (3, 20_000))
    labels = labels_of(logits)
    sure = np.arange(20_000) < 10_000
    weights = np.where(sure, 1000.0, 1.0)
    fitted = fit_temperature(drawn(np.where(sure, logits * 2, logits * 4), labels, weights))
    assert fitted.rescaling.temperature == pytest.approx(2, rel=0.06)  # type: ignore[union-attr]


def test_slopes_and_offsets_are_recovered() -> None:
    logits = np.random.default_rng(4).normal(0, 2, (3, 60_000))
    given = logits - logits[:1]
    given = np.log(softmax(given, axis=0))
    slopes, offsets = np.array([0.5, 0.7, 1.2]), np.array([0.0, 0.8, -0.5])
    labels = labels_of(slopes[:, None] * given + offsets[:, None])
    fitted = fit_vector_scaling(drawn(given, labels))
    assert isinstance(fitted.rescaling, VectorScaling)
    np.testing.assert_allclose(fitted.rescaling.slopes, slopes, rtol=0.06)
    np.testing.assert_allclose(fitted.rescaling.offsets, offsets, atol=0.06)
    assert fitted.after < fit_temperature(drawn(given, labels)).after


def test_a_class_that_no_voxel_has_keeps_the_common_temperature() -> None:
    logits = np.random.default_rng(5).normal(0, 2, (4, 20_000))
    logits[3] = -3
    labels = labels_of(logits[:3])
    voxels = drawn(logits * 2, labels)
    common, fitted = fit_temperature(voxels).rescaling, fit_vector_scaling(voxels).rescaling
    assert isinstance(fitted, VectorScaling)
    assert fitted.slopes[3] == pytest.approx(1 / common.temperature)  # type: ignore[union-attr]
    assert fitted.offsets[3] == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 20), st.floats(0, 1))
def test_no_fit_raises_the_likelihood(seed: int, sureness: float, noise: float) -> None:
    rng = np.random.default_rng(seed)
    logits = sureness * rng.normal(0, 1, (3, 300))
    labels = np.where(rng.random(300) < noise, rng.integers(0, 3, 300), logits.argmax(axis=0))
    voxels = drawn(logits, labels)
    before = voxels.negative_log_likelihood(voxels.probabilities)
    for fitted in (fit_temperature(voxels), fit_vector_scaling(voxels)):
        after = voxels.negative_log_likelihood(scaled(fitted.rescaling, voxels.probabilities))  # type: ignore[arg-type]
        assert after <= before
        assert fitted.before == pytest.approx(before)
        assert fitted.after == pytest.approx(after)


_PROBABILITIES = hnp.arrays(np.float32, (5, 40), elements=st.floats(0, 1, width=32)).map(
    lambda raw: (raw + np.float32(1e-30)) / (raw + np.float32(1e-30)).sum(axis=0)
)


@settings(max_examples=200, deadline=None)
@given(_PROBABILITIES, st.floats(0.02, 50))
def test_one_temperature_never_changes_the_largest_class(probabilities: np.ndarray, temperature: float) -> None:
    found = scaled(Temperature(temperature=temperature), probabilities)
    assert np.array_equal(found.argmax(axis=0), probabilities.argmax(axis=0))
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)


def test_neighbouring_floats_keep_their_order() -> None:
    first = np.random.default_rng(6).uniform(0.35, 0.5, 100_000).astype(np.float32)
    pair = np.stack([np.nextafter(first, np.float32(0)), first, 1 - 2 * first])
    for temperature in (0.7, 3.0, 40.0):
        found = scaled(Temperature(temperature=temperature), pair)
        assert (found[1] > found[0]).all()


def test_scaling_has_its_closed_form() -> None:
    probabilities = np.array([[0.7], [0.2], [0.1]], np.float32)
    expected = np.sqrt(probabilities) / np.sqrt(probabilities).sum()
    np.testing.assert_allclose(scaled(Temperature(temperature=2), probabilities), expected, rtol=1e-6)
    vector = VectorScaling(slopes=(1.0, 0.5, 2.0), offsets=(0.0, 1.0, -1.0))
    expected = softmax(np.log(probabilities) * [[1.0], [0.5], [2.0]] + [[0.0], [1.0], [-1.0]], axis=0)
    np.testing.assert_allclose(scaled(vector, probabilities), expected, rtol=1e-5)


def test_probabilities_of_exactly_zero_and_one_stay_finite() -> None:
    sure = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], np.float32)
    for rescaling in (Temperature(temperature=3), VectorScaling(slopes=(0.3, 0.3, 0.3), offsets=(0, 1, 1))):
        found = scaled(rescaling, sure)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    fitted = fit_temperature(Voxels(sure, np.array([0, 2]), np.ones(2), np.ones(2, bool), None))
    assert fitted.after < fitted.before


def test_perfect_answers_are_left_alone_or_made_surer() -> None:
    voxels = drawn(np.array([[3.0, 0.0], [0.0, 3.0]]), np.array([0, 1]))
    assert fit_temperature(voxels).rescaling.temperature < 1  # type: ignore[union-attr]
    exact = Voxels(np.eye(2, dtype=np.float32), np.array([0, 1]), np.ones(2), np.ones(2, bool), None)
    assert isinstance(fit_temperature(exact).rescaling, Unchanged)


def test_a_sample_gives_the_temperature_of_all_voxels() -> None:
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 2, (3, 120_000))
    logits[0, 20_000:] += 8  # far background, always right
    labels = labels_of(logits)
    sample = VoxelSample(3, per_case=12_000, seed=1)
    near = np.arange(120_000) < 20_000
    sample.add("a", softmax(2.5 * logits, axis=0).astype(np.float32), labels, near)
    of_all = fit_temperature(drawn(2.5 * logits, labels)).rescaling.temperature  # type: ignore[union-attr]
    assert fit_temperature(sample.voxels()).rescaling.temperature == pytest.approx(of_all, rel=0.08)  # type: ignore[union-attr]


@pytest.mark.parametrize("fields", [{"slopes": (1.0, -1.0), "offsets": (0, 0)}, {"slopes": (1, 1), "offsets": (0,)}])
def test_impossible_numbers_are_refused(fields: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValidationError):
        VectorScaling(**fields)
