"""Local temperature: a fit that finds where the model is too sure, a bounded sample, a file that says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import softmax

from medmargin.errors import DataError
from medmargin.uncertainty.calibration import (
    LocalScaling,
    PatchSample,
    Unchanged,
    Voxels,
    fit_local_scaling,
    fit_temperature,
)


def slice_of(seed: int, size: int = 40) -> tuple[np.ndarray, ...]:
    """A slice whose left half is three times too sure and whose image tells which half that is."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (3, size, size))
    cumulative = np.cumsum(softmax(logits, axis=0), axis=0)
    labels = (rng.random((size, size)) > cumulative).sum(axis=0).clip(0, 2)
    left = np.broadcast_to(np.arange(size) < size // 2, (size, size))
    probabilities = softmax(np.where(left, 6, 1) * logits, axis=0).astype(np.float32)
    return probabilities, np.where(left, 1.0, -1.0)[None].astype(np.float32), labels, np.ones((size, size), bool)


def sample_of(number: int = 8, **settings: int) -> PatchSample:
    sample = PatchSample(**settings)  # type: ignore[arg-type]
    for seed in range(number):
        sample.add(str(seed), *slice_of(seed))
    return sample


def test_the_fit_cools_where_the_model_is_too_sure_and_survives_the_file() -> None:
    fitted = fit_local_scaling(sample_of().patches, steps=150, rate=0.01)
    assert isinstance(fitted.rescaling, LocalScaling)
    assert fitted.after < 0.7 * fitted.before
    again = LocalScaling.model_validate(fitted.rescaling.model_dump(mode="json"))
    probabilities, image, labels, _ = slice_of(99)
    found = probabilities.copy()
    again.scale(found, image=image)
    assert np.array_equal(found.argmax(axis=0), probabilities.argmax(axis=0))
    confidence = found.max(axis=0)
    right = found.argmax(axis=0) == labels
    for half in (np.s_[:, :20], np.s_[:, 20:]):
        assert confidence[half].mean() == pytest.approx(right[half].mean(), abs=0.1)
    stacked = np.stack([probabilities] * 2, axis=1)
    again.scale(stacked, image=np.stack([image] * 2, axis=1))
    np.testing.assert_allclose(stacked[:, 1], found, atol=1e-5)


def test_nothing_is_stored_where_nothing_gets_better() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (12, 12))
    exact = np.stack([labels == 0, labels == 1]).astype(np.float32)
    sample = PatchSample()
    sample.add("a", exact, np.zeros((1, 12, 12)), labels, np.ones((12, 12), bool))
    fitted = fit_local_scaling(sample.patches, steps=20)
    assert isinstance(fitted.rescaling, Unchanged)
    assert fitted.after == fitted.before


def test_the_fit_is_at_least_as_good_as_a_common_temperature() -> None:
    patches = sample_of().patches
    logits = np.concatenate([patch.logits.reshape(3, -1) for patch in patches], axis=1)
    labels = np.concatenate([patch.labels.ravel() for patch in patches])
    ones = np.ones(labels.size)
    common = fit_temperature(Voxels(np.exp(logits), labels, ones, ones > 0, None))
    fitted = fit_local_scaling(patches, steps=1, rate=1e-6)
    assert fitted.after == pytest.approx(common.after, rel=1e-3)


def test_patches_are_bounded_in_number_and_size() -> None:
    sample = sample_of(30, at_most=5, side=16)
    assert len(sample.patches) == 5
    assert {patch.labels.shape for patch in sample.patches} == {(16, 16)}
    probabilities, image, labels, _ = slice_of(0)
    sample = PatchSample()
    sample.add("a", probabilities, image, labels, np.zeros_like(labels, bool))
    assert sample.patches == ()


def test_refusals() -> None:
    with pytest.raises(DataError, match="no slice with a border"):
        fit_local_scaling(())
    with pytest.raises(DataError, match=r"tiny.*5 along each side"):
        PatchSample().add("tiny", np.ones((2, 4, 9)), np.ones((1, 4, 9)), np.ones((4, 9), int), np.ones((4, 9), bool))
    with pytest.raises(ValidationError, match="do not fit a local temperature"):
        LocalScaling(classes=3, channels=1, weights="abc")
    fitted = fit_local_scaling(sample_of(2).patches, steps=20, rate=0.01).rescaling
    assert isinstance(fitted, LocalScaling)
    with pytest.raises(DataError, match="needs an image"):
        fitted.scale(slice_of(0)[0])
    with pytest.raises(ValidationError, match="do not fit"):
        LocalScaling(classes=4, channels=1, weights=fitted.weights)
