"""Whole-image normalisation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.transforms.intensity import normalised, percentile_stretched, to_bytes, unit_range, windowed


def test_the_ct_window_maps_the_same_tissue_to_the_same_value():
    air_and_bone = np.array([-1000.0, -160.0, 40.0, 240.0, 2000.0])
    assert windowed(air_and_bone).tolist() == [0, 0, 0.5, 1, 1]
    assert windowed(np.array([40.0])).tolist() == [0.5]


def test_percentiles_are_those_of_the_signal_and_the_background_stays_zero():
    voxels = np.concatenate([np.zeros(500), np.arange(1, 1001)])
    stretched = percentile_stretched(voxels)
    low, high = np.percentile(np.arange(1, 1001), (0.5, 99.5))
    assert not stretched[:500].any()
    assert stretched[500 + 499] == pytest.approx((500 - low) / (high - low))
    assert stretched.min() == 0
    assert stretched.max() == 1


@given(scale=st.floats(0.01, 1e5), dtype=st.sampled_from([np.float32, np.float64]))
def test_the_unit_of_an_mr_image_does_not_matter(scale, dtype):
    voxels = np.random.default_rng(0).gamma(2.0, size=(1, 6, 5, 4)).astype(dtype)
    assert np.allclose(normalised(voxels, modality="MRI"), normalised(voxels * dtype(scale), modality="MRI"), atol=1e-4)


def test_a_huge_unsigned_image_does_not_wrap():
    voxels = np.array([0, 1, 30000, 65535], np.uint16)
    assert (np.diff(percentile_stretched(voxels)) >= 0).all()


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_row_2_an_image_without_signal_becomes_zero(value):
    assert not percentile_stretched(np.full((4, 4), value)).any()


def test_channels_are_normalised_by_themselves_and_ct_is_told_by_its_modality():
    voxels = np.stack([np.arange(1, 101.0), 1e4 * np.arange(1, 101.0)]).reshape(2, 10, 10, 1)
    found = normalised(voxels, modality="other")
    assert np.allclose(found[0], found[1])
    assert np.array_equal(normalised(voxels, modality="ct"), windowed(voxels))


@pytest.mark.parametrize("value", [0.0, 7.0, -1e6])
def test_rounding_noise_is_not_a_picture(value):
    noise = np.float32(value) * (1 + np.float32(1e-7) * np.random.default_rng(0).standard_normal((8, 8), np.float32))
    assert not unit_range(noise).any()


def test_the_smallest_value_becomes_0_and_the_largest_1():
    assert unit_range(np.array([-2, 0, 2], np.float32)).tolist() == [0, 0.5, 1]


def test_bytes_truncate_as_a_cast_does():
    assert to_bytes(np.array([0, 0.999 / 255, 0.5, 1], np.float32)).tolist() == [0, 0, 127, 255]
