"""Drawn voxels stand for all voxels: exact weights, unbiased means, bounded size, faults named by case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.errors import DataError
from medmargin.uncertainty.calibration import Voxels, VoxelSample, with_background


def case(seed: int, shape: tuple[int, ...] = (8, 30, 30), classes: int = 3) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([0.3] * classes, shape).astype(np.float32)
    labels = rng.integers(0, classes, shape)
    return np.moveaxis(probabilities, -1, 0), labels, rng.random(shape) < 0.2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 10_000))
def test_weights_add_up_to_all_voxels_of_each_stratum(seed: int, per_case: int) -> None:
    sample = VoxelSample(3, per_case=per_case, seed=seed)
    probabilities, labels, near = case(seed % 50)
    sample.add("a", probabilities, labels, near)
    drawn = sample.voxels()
    assert drawn.weights[drawn.near].sum() == pytest.approx(near.sum())
    assert drawn.weights[~drawn.near].sum() == pytest.approx((~near).sum())
    assert drawn.labels.size <= per_case


def test_a_sample_of_every_voxel_gives_the_exact_likelihood() -> None:
    probabilities, labels, near = case(1)
    sample = VoxelSample(3, per_case=10**6)
    sample.add("a", probabilities, labels, near)
    truth = np.take_along_axis(probabilities, labels[None], axis=0)[0].astype(np.float64)
    nats = -np.log(np.maximum(truth, 1e-12))
    drawn = sample.voxels()
    assert drawn.negative_log_likelihood(drawn.probabilities) == pytest.approx(nats.mean(), rel=1e-5)
    band = drawn.take(drawn.near)
    assert band.negative_log_likelihood(band.probabilities) == pytest.approx(nats[near].mean(), rel=1e-5)


def test_drawn_voxels_are_the_voxels_of_the_case() -> None:
    probabilities, labels, near = case(2)
    probabilities[0] = np.arange(labels.size).reshape(labels.shape) / labels.size
    probabilities[1:] = (1 - probabilities[0]) / 2
    sample = VoxelSample(3, per_case=500)
    sample.add("a", probabilities, labels, near, vacuity=np.full(labels.shape, 0.5))
    drawn = sample.voxels()
    position = np.rint(drawn.probabilities[0] * labels.size).astype(int)
    assert len(set(position)) == position.size == 500
    assert np.array_equal(labels.ravel()[position], drawn.labels)
    assert np.array_equal(near.ravel()[position], drawn.near)


def test_the_mean_is_unbiased_over_seeds_though_the_band_is_drawn_more_often() -> None:
    probabilities, labels, near = case(3)
    near[:] = False
    near[:1] = True
    probabilities[:, :1] = 1 / 3  # the band is harder than the rest
    whole = VoxelSample(3, per_case=10**6)
    whole.add("a", probabilities, labels, near)
    exact = whole.voxels().negative_log_likelihood(whole.voxels().probabilities)
    found = []
    for seed in range(60):
        sample = VoxelSample(3, per_case=300, seed=seed)
        sample.add("a", probabilities, labels, near)
        drawn = sample.voxels()
        found.append(drawn.negative_log_likelihood(drawn.probabilities))
    assert np.mean(found) == pytest.approx(exact, abs=3 * np.std(found, ddof=1) / np.sqrt(60))


def test_the_sample_stays_bounded_and_stands_for_every_case() -> None:
    sample = VoxelSample(3, per_case=1000, at_most=2500, seed=4)
    for index in range(12):
        sample.add(str(index), *case(index))
    drawn = sample.voxels()
    assert 1000 < drawn.labels.size <= 2500
    assert drawn.weights.sum() == pytest.approx(12 * 8 * 900, rel=0.1)


def test_the_same_seed_draws_the_same_voxels() -> None:
    def drawn(seed: int) -> Voxels:
        sample = VoxelSample(3, per_case=100, seed=seed)
        sample.add("a", *case(5))
        return sample.voxels()

    assert np.array_equal(drawn(1).probabilities, drawn(1).probabilities)
    assert not np.array_equal(drawn(1).probabilities, drawn(2).probabilities)


def test_structures_alone_get_the_rest_as_background() -> None:
    probabilities, labels, near = case(6)
    both = []
    for maps in (probabilities, probabilities[1:]):
        sample = VoxelSample(3, per_case=200)
        sample.add("a", maps, labels, near)
        both.append(sample.voxels().probabilities)
    np.testing.assert_allclose(both[0], both[1], atol=2e-6)
    overlapping = with_background(np.array([[0.8], [0.4]]))
    np.testing.assert_allclose(overlapping[:, 0], [0, 2 / 3, 1 / 3], rtol=1e-6)


def test_band_only_draws_in_the_band() -> None:
    sample = VoxelSample(3, per_case=100, band_only=True)
    probabilities, labels, near = case(7)
    sample.add("a", probabilities, labels, near)
    assert sample.voxels().near.all()
    assert sample.voxels().weights.sum() == pytest.approx(near.sum())
    empty = VoxelSample(3, band_only=True)
    empty.add("a", probabilities, labels, np.zeros_like(near))
    with pytest.raises(DataError, match="nothing to calibrate on"):
        empty.voxels()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda maps: maps.update(labels=maps["labels"][:-1]), "one grid"),
        (lambda maps: maps.update(probabilities=maps["probabilities"][:1]), "1 probability maps for 3 classes"),
        (lambda maps: maps.update(labels=maps["labels"] + 1), "true class outside 0..2"),
        (lambda maps: maps.update(probabilities=maps["probabilities"] / 2), "sum to 0.5"),
        (lambda maps: maps.update(probabilities=maps["probabilities"] * np.nan), "not finite"),
        (lambda maps: maps.update(vacuity=np.zeros(maps["labels"].shape)), "vacuity outside"),
    ],
)
def test_faults_are_named_with_their_case(fault: Any, message: str) -> None:
    maps: dict[str, Any] = dict(zip(("probabilities", "labels", "near"), case(8), strict=True))
    fault(maps)
    with pytest.raises(DataError, match=f"patient_8.*{message}"):
        VoxelSample(3).add("patient_8", **maps)


def test_cases_with_and_without_vacuity_do_not_mix() -> None:
    sample = VoxelSample(3)
    sample.add("a", *case(9))
    with pytest.raises(DataError, match="with and without vacuity"):
        sample.add("b", *case(9), vacuity=np.full((8, 30, 30), 0.5))
