"""A calibration applied while predicting: margins as bits, shares of the uncertainty, guaranteed intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.imaging import Grid, Volume
from medmargin.inference.class_maps import ClassMaps
from medmargin.inference.margins import Reached, thresholds_reached
from medmargin.inference.recalibration import ObjectRescaling, SliceRescaling, concluded, rescaled_threshold
from medmargin.inference.segmentation import Segmentation, StructureResult
from medmargin.inference.stack import SliceStack
from medmargin.uncertainty.calibration import (
    Calibration,
    EvidentialRescaling,
    Patients,
    Rescaling,
    StructureGuarantees,
    Temperature,
    ThresholdMargins,
    Unchanged,
    VolumeScale,
)
from medmargin.uncertainty.decomposition import Decomposition, binary_entropy, class_entropy


def calibration(rescalings: Sequence[Rescaling], names: Sequence[str] = ("a", "b"), **more: object) -> Calibration:
    return Calibration.model_validate(
        {
            "level": 0.9,
            "estimator": "evidential",
            "structures": tuple(names),
            "exclusive": len(rescalings) == 1,
            "rescalings": [rescaling.model_dump() for rescaling in rescalings],  # type: ignore[attr-defined]
            "patients": Patients(rescaling=9, guarantees=9, shared=False),
            "data": {},
            **more,
        }
    )


def margins(outer: float, inner: float) -> ThresholdMargins:
    return ThresholdMargins(loss="volume", risk=0.1, outer=outer, inner=inner, patients=9)


def picture() -> Volume:
    voxels = np.random.default_rng(0).random((1, 6, 5, 1)).astype(np.float32)
    return Volume(voxels, Grid((6, 5, 1), np.eye(4), "px"), dims=2)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 19))
def test_bits_say_what_the_thresholds_say(seed: int, structures: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.random((structures, 3, 4, 5)).astype(np.float32)
    labels = rng.integers(-1, structures, (3, 4, 5))
    ends = rng.choice([0.0, 0.1, 0.5, 0.9, 2.0], (structures, 2))
    thresholds = [margins(*pair) if rng.random() < 0.8 else None for pair in ends.tolist()]
    reached = Reached((3, 4, 5), thresholds)
    for structure, values in enumerate(probabilities):
        for index, part in enumerate(values):
            reached.draw(structure, np.s_[index], part)
    found = reached.restored(lambda plane: plane)
    assert found.outer.shape[0] == -(-structures // 8)
    for structure, threshold in enumerate(thresholds):
        assert found.known[structure] == (threshold is not None)
        if threshold is not None:
            mask = labels == structure
            expected = threshold.regions(probabilities[structure], mask)
            np.testing.assert_array_equal(found.regions(structure, mask), expected)


def test_what_is_never_drawn_has_the_probability_zero() -> None:
    found = Reached((1, 2, 2), [margins(0.0, 2.0), margins(0.2, 0.0)]).restored(lambda plane: plane)
    mask = np.array([[[True, False], [False, False]]])
    assert found.regions(0, mask).tolist() == [[[1, 1], [1, 1]]]
    assert found.regions(1, mask).tolist() == [[[2, 0], [0, 0]]]


def test_the_larger_of_two_drawn_probabilities_counts() -> None:
    reached = Reached((1, 1, 2), [margins(0.5, 0.9)])
    for values in ([[0.6, 0.1]], [[0.1, 0.1]]):
        reached.draw(0, np.s_[0], np.array(values, np.float32))
    assert reached.restored(lambda plane: plane).regions(0, np.zeros((1, 1, 2), bool)).tolist() == [[[1, 0]]]


def test_without_guaranteed_thresholds_there_are_no_bits() -> None:
    assert thresholds_reached(None, ["a"], (1, 1, 1)) is None
    assert thresholds_reached(calibration([Unchanged()]), ["a", "b"], (1, 1, 1)) is None


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 5))
def test_the_parts_of_a_rescaled_slice_keep_their_shares(seed: int, temperature: float) -> None:
    rng, image = np.random.default_rng(seed), picture()
    probabilities = rng.dirichlet(np.ones(3), (5, 6)).transpose(2, 0, 1).astype(np.float32)
    total = class_entropy(probabilities)
    maps = ClassMaps(probabilities, total, total * rng.random(total.shape).astype(np.float32), {})
    found = SliceRescaling(calibration([Temperature(temperature=temperature)]), SliceStack(image)).maps(0, maps)
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, atol=1e-5)
    assert (found.probabilities.argmax(axis=0) == probabilities.argmax(axis=0)).all()
    np.testing.assert_allclose(found.total, class_entropy(found.probabilities), atol=1e-6)
    assert (found.aleatoric <= found.total).all()
    seen = (total > 1e-3) & (found.total > 1e-3)
    np.testing.assert_allclose((found.aleatoric / found.total)[seen], (maps.aleatoric / total)[seen], rtol=1e-3)


def test_vacuity_and_its_threshold_are_rescaled_alike() -> None:
    rng, scaling = np.random.default_rng(0), EvidentialRescaling(scale_of_evidence=0.3)
    alpha = 1 + rng.gamma(1, 3, (3, 5, 6))
    strength = alpha.sum(axis=0)
    probabilities, vacuity = (alpha / strength).astype(np.float32), (3 / strength).astype(np.float32)
    maps = ClassMaps(probabilities, class_entropy(probabilities), class_entropy(probabilities), {"vacuity": vacuity})
    found = SliceRescaling(calibration([scaling]), SliceStack(picture())).maps(0, maps)
    expected = 1 + 0.3 * (alpha - 1)
    np.testing.assert_allclose(found.probabilities, expected / expected.sum(axis=0), atol=1e-4)
    np.testing.assert_allclose(found.further["vacuity"], 3 / expected.sum(axis=0), atol=1e-4)
    threshold = rescaled_threshold(calibration([scaling]), 0.4)
    assert threshold is not None
    assert ((found.further["vacuity"] > threshold) == (vacuity > 0.4)).all()
    assert rescaled_threshold(calibration([Unchanged()]), 0.4) == 0.4
    assert rescaled_threshold(calibration([EvidentialRescaling(scale_of_evidence=1, exponent=2)]), 0.4) is None


def test_objects_are_rescaled_by_the_name_of_their_structure() -> None:
    known = calibration([Temperature(temperature=2), Temperature(temperature=0.5)])
    rescaling = ObjectRescaling(known, ["b", "stranger", "a"])
    given_ = np.array([[0.2, 0.5, 0.8]], np.float32)
    squared = given_**2 / (given_**2 + (1 - given_) ** 2)
    np.testing.assert_allclose(rescaling.probabilities(0, given_), squared, atol=1e-5)
    np.testing.assert_array_equal(rescaling.probabilities(1, given_), given_)
    rooted = given_**0.5 / (given_**0.5 + (1 - given_) ** 0.5)
    np.testing.assert_allclose(rescaling.probabilities(2, given_), rooted, atol=1e-5)
    total = binary_entropy(given_)
    parts = rescaling.parts(squared, Decomposition(total, total / 4, total * 3 / 4))
    np.testing.assert_allclose(parts.total, binary_entropy(squared))
    np.testing.assert_allclose(parts.aleatoric, binary_entropy(squared) / 4, rtol=1e-5)


def test_only_guaranteed_intervals_are_stretched() -> None:
    grid = Grid((6, 5, 4), np.diag([1.0, 2.0, 5.0, 1.0]))
    image = Volume(np.zeros((1, 6, 5, 4), np.float32), grid)
    results = [
        StructureResult(name, label, 100, 80.0, 130.0, 1.0, 0.8, 1.3, 0.9, 0.7) for label, name in ((1, "a"), (2, "b"))
    ]
    answer = Segmentation(np.zeros((6, 5, 4), np.uint8), {"total": np.zeros((6, 5, 4), np.float32)}, results, image)
    scale = VolumeScale(level=0.9, stretch=2.0, patients=9)
    known = calibration([Unchanged()], guarantees={"a": StructureGuarantees(volume=scale)})
    first, second = concluded(answer, known, None, None).structures
    low, high = scale.interval(80, 100, 130)
    assert (first.low_voxels, first.high_voxels, first.guaranteed) == (low, high, True)
    assert first.low_ml == pytest.approx(low * 0.01)
    assert first.high_ml == pytest.approx(high * 0.01)
    assert second == results[1]
