"""The logits behind evidence: recovered, softened in order, and calibrated where no scale of p or of evidence is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from medmargin.errors import DataError
from medmargin.evaluation.calibration import equal_width, expected_error, reliability, top_label
from medmargin.uncertainty.calibration import (
    Calibration,
    EvidenceTemperature,
    Patients,
    Unchanged,
    Voxels,
    fit_evidence_temperature,
    fit_evidential_rescaling,
    fit_temperature,
)
from medmargin.uncertainty.calibration.evidence_temperature import Link, logits_behind

LINKS: dict[Link, Callable[[np.ndarray], np.ndarray]] = {"exp": np.exp, "softplus": lambda z: np.logaddexp(0, z)}


def answers(logits: np.ndarray, link: Link) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [K, N] and vacuity [N] of an evidential network with these logits [K, N]."""
    evidence = LINKS[link](logits)
    strength = evidence.sum(axis=0) + len(logits)
    return ((evidence + 1) / strength).astype(np.float32), (len(logits) / strength).astype(np.float32)


def drawn(truth: np.ndarray, sharpness: float, link: Link, *, misled: float = 0.0) -> Voxels:
    """Voxels whose classes follow softmax(truth [K, N]), of a network with logits `sharpness` times as large.

    Args:
        misled: share of the voxels where the class has nothing to do with the logits.
    """
    rng = np.random.default_rng(1)
    cumulative = np.cumsum(softmax(truth, axis=0), axis=0)
    labels = (rng.random(truth.shape[1]) > cumulative).sum(axis=0).clip(0, len(truth) - 1)
    astray = rng.random(labels.size) < misled
    labels[astray] = rng.integers(0, len(truth), astray.sum())
    probabilities, vacuity = answers(sharpness * truth, link)
    return Voxels(probabilities, labels, np.ones(labels.size), np.ones(labels.size, bool), vacuity)


def error_of(voxels: Voxels, rescaling: EvidenceTemperature | Unchanged) -> float:
    """ECE after a rescaling."""
    block = voxels.probabilities.copy()
    rescaling.scale(block, voxels.vacuity)
    found = expected_error(reliability(*top_label(block.T, voxels.labels), equal_width(15)))
    assert found is not None
    return found


@pytest.mark.parametrize("link", LINKS)
def test_the_logits_are_recovered(link: Link) -> None:
    logits = np.random.default_rng(0).uniform(-6, 6, (3, 2000))
    found = logits_behind(*answers(logits, link), link)
    np.testing.assert_allclose(found, logits - logits.max(axis=0), atol=0.05)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_answers_that_are_too_sure_or_not_sure_enough_become_calibrated(link: Link, sharpness: float) -> None:
    voxels = drawn(np.random.default_rng(2).normal(0, 1.7, (3, 60_000)), sharpness, link)
    fitted = fit_evidence_temperature(voxels)
    assert isinstance(fitted.rescaling, EvidenceTemperature)
    assert fitted.rescaling.link == link
    assert fitted.rescaling.temperature == pytest.approx(sharpness, rel=0.1)
    assert fitted.rescaling.kept < 0.1
    assert error_of(voxels, Unchanged()) > 0.04
    assert error_of(voxels, fitted.rescaling) < 0.008
    others = fit_temperature(voxels).after, fit_evidential_rescaling(voxels).after
    assert fitted.after < min(others) + 1e-4  # exp(z) at T = 1 is also a very large scale of evidence


def test_voxels_that_are_wrong_with_much_evidence_do_not_dictate_the_temperature() -> None:
    logits = np.random.default_rng(3).normal(0, 12, (3, 60_000))
    voxels = drawn(logits / 6, 6.0, "softplus", misled=0.02)
    fitted = fit_evidence_temperature(voxels)
    assert isinstance(fitted.rescaling, EvidenceTemperature)
    assert fitted.rescaling.temperature == pytest.approx(6.0, rel=0.1)
    assert 0 < fitted.rescaling.kept < 0.1
    assert error_of(voxels, fitted.rescaling) < 0.2 * error_of(voxels, Unchanged())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 50), st.floats(0, 1), st.sampled_from(sorted(LINKS)))
def test_order_and_sums_stay(seed: int, temperature: float, kept: float, link: Link) -> None:
    logits = np.random.default_rng(seed).normal(0, 5, (4, 300))
    block, vacuity = answers(logits, link)
    before = block.copy()
    EvidenceTemperature(temperature=temperature, kept=kept, link=link).scale(block, vacuity)
    np.testing.assert_allclose(block.sum(axis=0), 1, atol=1e-5)
    ranks = np.argsort(before, axis=0)
    apart = np.diff(np.take_along_axis(before, ranks, axis=0), axis=0) > 1e-5
    assert (np.diff(np.take_along_axis(block, ranks, axis=0), axis=0)[apart] >= -1e-6).all()


def test_all_of_p_kept_changes_nothing_and_no_fit_does_harm() -> None:
    logits = np.random.default_rng(4).normal(0, 2, (3, 5000))
    block, vacuity = answers(logits, "exp")
    before = block.copy()
    EvidenceTemperature(temperature=2.0, kept=1.0, link="exp").scale(block, vacuity)
    np.testing.assert_allclose(block, before, atol=1e-6)
    probabilities, vacuity = answers(logits, "softplus")
    cumulative = np.cumsum(probabilities, axis=0)  # the answers are right as they are
    labels = (np.random.default_rng(5).random(5000) > cumulative).sum(axis=0).clip(0, 2)
    voxels = Voxels(probabilities, labels, np.ones(5000), np.ones(5000, bool), vacuity)
    fitted = fit_evidence_temperature(voxels)
    assert fitted.after <= fitted.before


def test_answers_without_vacuity_are_refused() -> None:
    with pytest.raises(DataError, match="vacuity map"):
        EvidenceTemperature(temperature=1, kept=0, link="exp").scale(np.full((2, 3), 0.5, np.float32))
    voxels = drawn(np.zeros((2, 10)), 1.0, "exp")
    with pytest.raises(DataError, match="evidential network"):
        fit_evidence_temperature(Voxels(voxels.probabilities, voxels.labels, voxels.weights, voxels.near, None))


def test_a_calibration_applies_it_and_leaves_the_vacuity() -> None:
    rescaling = EvidenceTemperature(temperature=3.0, kept=0.2, link="softplus")
    given = {"level": 0.9, "estimator": "evidential", "structures": ("a", "b"), "data": {}}
    patients = Patients(rescaling=3, guarantees=3, shared=True)
    calibration = Calibration(**given, exclusive=True, rescalings=(rescaling,), patients=patients)
    read = Calibration.model_validate(calibration.model_dump(mode="json"))
    assert read.rescalings == (rescaling,)
    probabilities, vacuity = answers(np.random.default_rng(6).normal(0, 3, (3, 50)), "softplus")
    expected = probabilities.copy()
    rescaling.scale(expected, vacuity)
    np.testing.assert_allclose(read.apply_probabilities(probabilities, vacuity), expected, atol=1e-6)
    np.testing.assert_array_equal(read.apply_vacuity(probabilities, vacuity), vacuity)
    with pytest.raises(ValueError, match="exclusive classes"):
        Calibration(**given, exclusive=False, rescalings=(rescaling, rescaling), patients=patients)
