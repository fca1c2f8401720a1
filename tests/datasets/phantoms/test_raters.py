"""Raters: what they draw has the probability that is stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from medmargin.datasets.phantoms.organs import Organ
from medmargin.datasets.phantoms.raters import draw_rater, inside_probability, label_probabilities, unit_field

_SPACING = (1.0, 1.3, 2.0)
_SHAPE = (24, 20, 12)


def _organ(label: int, offset_mm: float, *, rater_sd_mm: float = 1.5) -> Organ:
    """An organ left of a plane, so that its distance runs linearly along i."""
    distance = offset_mm - np.arange(_SHAPE[0], dtype=np.float32)[:, None, None] * _SPACING[0]
    full = np.broadcast_to(distance, _SHAPE).astype(np.float32)
    return Organ(f"organ{label}", label, full, 0.5, 1.0, rater_sd_mm)


@settings(max_examples=15, deadline=None)
@given(voxels=st.integers(1, 40), spacing=st.floats(0.3, 4), correlation=st.floats(0.5, 30), seed=st.integers(0, 1000))
def test_a_unit_field_has_unit_variance_for_any_grid(
    voxels: int, spacing: float, correlation: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    first = np.stack(
        [unit_field(rng, (voxels, 2), (spacing, 1.0), correlation_mm=correlation)[-1, 0] for _ in range(600)]
    )
    # 600 normal draws: the variance is within 1 +- 5 * sqrt(2 / 600).
    assert first.var() == pytest.approx(1.0, abs=5 * (2 / 600) ** 0.5)
    assert abs(first.mean()) < 5 / 600**0.5


def test_the_correlation_of_a_unit_field_is_in_mm_along_every_axis() -> None:
    rng = np.random.default_rng(0)
    spacing, correlation = (1.0, 2.0, 4.0), 8.0
    fields = np.stack([unit_field(rng, (9, 5, 3), spacing, correlation_mm=correlation) for _ in range(4000)])
    # Gaussian weights of standard deviation s give the correlation exp(-(distance / s)^2 / 4).
    for axis, steps in ((0, 8), (1, 4), (2, 2)):
        far = np.take(fields, steps, axis=1 + axis)
        near = np.take(fields, 0, axis=1 + axis)
        assert (near * far).mean() == pytest.approx(np.exp(-1 / 4), abs=0.03)


def test_the_probability_is_the_normal_distribution_of_the_distance() -> None:
    organ = _organ(1, 8.0, rater_sd_mm=2.0)
    np.testing.assert_allclose(inside_probability(organ), norm.cdf(organ.distance_mm, scale=2.0), rtol=1e-5, atol=1e-7)


def test_raters_agree_with_the_stated_probability() -> None:
    organs = [_organ(1, 14.0), _organ(2, 9.0, rater_sd_mm=2.5)]
    stated = label_probabilities(organs)
    raters, seen = 1500, {1: np.zeros(_SHAPE), 2: np.zeros(_SHAPE)}
    for rater in range(raters):
        labels = draw_rater(organs, np.random.default_rng([9, rater]), _SPACING)
        for value, count in seen.items():
            count += labels == value
    for value, count in seen.items():
        probability = stated[value].astype(np.float64)
        spread = np.sqrt(probability * (1 - probability) / raters)
        difference = np.abs(count / raters - probability)
        assert (difference <= 5.5 * spread + 1 / raters).all()
        # The mean over the plane averages many nearly independent places: much tighter than one voxel.
        assert np.abs((count / raters - probability).mean(axis=(1, 2))).max() < 0.02


def test_a_covering_organ_takes_probability_from_the_one_below() -> None:
    below, above = _organ(1, 14.0), _organ(2, 9.0)
    together = label_probabilities([below, above])
    np.testing.assert_array_equal(together[2], inside_probability(above))
    np.testing.assert_allclose(together[1], inside_probability(below) * (1 - inside_probability(above)), atol=1e-7)
    assert (together[1] + together[2] <= 1 + 1e-6).all()


def test_raters_without_spread_draw_the_true_border() -> None:
    organ = _organ(1, 8.5, rater_sd_mm=1e-6)
    np.testing.assert_array_equal(draw_rater([organ], np.random.default_rng(0), _SPACING), organ.distance_mm > 0)


def test_two_raters_differ_in_stretches_not_in_single_voxels() -> None:
    organ = _organ(1, 12.0)
    border = draw_rater([organ], np.random.default_rng(1), _SPACING).sum(axis=0)
    assert np.abs(np.diff(border.astype(int), axis=0)).mean() < border.std()
