"""Volume intervals and mask confidence: order, closed forms, and the two sources of spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.uncertainty.volumes import VolumeSamples, expected_dice, volume_interval


def _samples(*members: np.ndarray) -> np.ndarray:
    samples = VolumeSamples(1, len(members))
    for index, member in enumerate(members):
        samples.add(0, index, member)
    return samples.voxels(0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0.01, 0.99), st.integers(0, 500))
def test_low_estimate_and_high_are_in_order(seed: int, members: int, level: float, estimate: int) -> None:
    rng = np.random.default_rng(seed)
    samples = _samples(*(rng.random(200) ** rng.integers(1, 5) for _ in range(members)))
    low, high = volume_interval(samples, estimate, level=level)
    assert low <= estimate <= high


@given(st.integers(0, 2**32 - 1))
def test_a_higher_level_gives_a_wider_interval(seed: int) -> None:
    probabilities = np.random.default_rng(seed).random(300)
    narrow, wide = (volume_interval(_samples(probabilities), 150, level=level) for level in (0.5, 0.95))
    assert wide[0] <= narrow[0]
    assert wide[1] >= narrow[1]


@given(st.integers(0, 2**32 - 1))
def test_the_mean_volume_is_the_sum_of_the_probabilities(seed: int) -> None:
    probabilities = np.random.default_rng(seed).random(400)
    assert _samples(probabilities).mean() == pytest.approx(probabilities.sum(), abs=400 / 400)


def test_certain_voxels_leave_no_doubt() -> None:
    samples = _samples(np.repeat([0.0, 1.0], [70, 30]))
    assert volume_interval(samples, 30, level=0.99) == (30, 30)


def test_voxels_move_together() -> None:
    # 40 voxels inside for sure and a rim of 20 at p = 0.5: half of the contours hold the rim, half do not
    samples = _samples(np.repeat([1.0, 0.5], [40, 20]))
    assert sorted(set(samples.ravel().tolist())) == [40, 60]
    assert volume_interval(samples, 40, level=0.9) == (40, 60)


def test_members_that_disagree_widen_the_interval() -> None:
    small, large = np.repeat([1.0, 0.0], [50, 50]), np.repeat([1.0, 0.0], [80, 20])
    assert volume_interval(_samples(small, large), 65, level=0.9) == (50, 80)


def test_parts_add_up_to_the_whole() -> None:
    probabilities = np.random.default_rng(0).random((6, 30))
    parts = VolumeSamples(2, 1)
    for part in probabilities:
        parts.add(1, 0, part)
    assert np.array_equal(parts.voxels(1), _samples(probabilities))
    assert parts.voxels(0).max() == 0


def test_expected_dice_is_one_for_a_sure_mask_and_zero_for_an_empty_one() -> None:
    assert expected_dice(30.0, 30.0, 30) == 1
    assert expected_dice(0.0, 12.0, 0) == 0
    assert expected_dice(15.0, 15.0, 30) == pytest.approx(2 / 3)


def test_expected_dice_is_about_the_dice_of_masks_drawn_from_the_probabilities() -> None:
    rng = np.random.default_rng(5)
    probabilities = rng.beta(0.3, 0.3, 3000)
    mask = probabilities > 0.5
    truths = rng.random((200, 3000)) < probabilities
    dice = 2 * (truths & mask).sum(axis=1) / (truths.sum(axis=1) + mask.sum())
    estimate = expected_dice(probabilities[mask].sum(), probabilities.sum(), int(mask.sum()))
    assert estimate == pytest.approx(dice.mean(), abs=0.005)
