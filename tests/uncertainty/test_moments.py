"""Running moments equal what all members together give, without holding them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.uncertainty.decomposition import class_entropy, decompose, decompose_binary
from medmargin.uncertainty.moments import RunningMoments


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_running_moments_equal_the_decomposition_of_all_members(seed: int, members: int) -> None:
    samples = np.random.default_rng(seed).random((members, 3, 4))
    moments = RunningMoments()
    for sample in samples:
        moments.add(sample)
    np.testing.assert_allclose(moments.probabilities, samples.mean(axis=0), atol=1e-12)
    for part, expected in zip(moments.decomposition(), decompose_binary(samples), strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-12)


def test_running_moments_take_several_classes() -> None:
    samples = np.random.default_rng(0).dirichlet(np.ones(3), size=(5, 4)).transpose(0, 2, 1)  # [S, K, pixels]
    moments = RunningMoments(class_entropy)
    for sample in samples:
        moments.add(sample)
    for part, expected in zip(moments.decomposition(), decompose(samples), strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-12)


def test_equal_members_have_no_epistemic_part_at_all() -> None:
    member = np.random.default_rng(1).random((20, 20)).astype(np.float32)
    moments = RunningMoments()
    for _ in range(7):
        moments.add(member)
    assert moments.decomposition().epistemic.max() == 0
    assert np.array_equal(moments.probabilities, member)


def test_float32_members_keep_the_epistemic_part_above_zero() -> None:
    rng = np.random.default_rng(2)
    base = rng.random((64, 64)).astype(np.float32)
    moments = RunningMoments()
    for _ in range(8):
        moments.add((base + rng.normal(0, 1e-5, base.shape)).clip(0, 1).astype(np.float32))
    parts = moments.decomposition()
    assert parts.epistemic.min() >= 0
    np.testing.assert_allclose(parts.aleatoric + parts.epistemic, parts.total, atol=1e-7)


def test_a_member_may_change_its_array_afterwards() -> None:
    member = np.full((2, 2), 0.25)
    moments = RunningMoments()
    moments.add(member)
    member[:] = 1
    moments.add(member)
    np.testing.assert_allclose(moments.probabilities, 0.625)


def test_moments_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no member"):
        RunningMoments().decomposition()
