"""Resampling against SciPy's, label shares against a slow count, and the streamed way out against the whole volume."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from medmargin.transforms.regridding import resampled, resampled_labels, resampled_shape, slice_axis, to_slices

SHAPES = st.tuples(*[st.integers(1, 12)] * 3)


def zoomed(values: NDArray, shape: tuple[int, ...], order: int) -> NDArray:
    factors = np.array(shape) / values.shape
    return ndimage.zoom(values.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True)


def slices_of(volume: NDArray) -> Iterator[tuple[int, NDArray]]:
    """Give [A, D, H, W] as a network's answer: slice by slice."""
    return ((z, volume[:, z]) for z in range(volume.shape[1]))


@given(SHAPES, SHAPES, st.sampled_from([0, 1, 3]), st.integers(0, 1000))
def test_images_are_zoomed_as_scipy_does_and_keep_their_range(source, target, order, seed):
    values = np.random.default_rng(seed).normal(size=source).astype(np.float32)
    found = resampled(values, target, order=order)
    assert found.dtype == np.float32
    assert found.shape == target
    expected = np.clip(zoomed(values, target, order), values.min(), values.max())
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_a_cubic_spline_would_leave_the_range_of_a_step():
    step = np.zeros((1, 1, 16), np.float32)
    step[..., 8:] = 1
    assert zoomed(step, (1, 1, 40), 3).max() > 1.01
    assert resampled(step, (1, 1, 40), order=3).max() == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_resampled_alone_and_repeated_between(axis):
    values = np.moveaxis(np.random.default_rng(0).normal(size=(3, 8, 9)), 0, axis).astype(np.float32)
    shape = tuple(7 if a == axis else side + 4 for a, side in enumerate(values.shape))
    found = np.moveaxis(resampled(values, shape, order=3, through=axis), axis, 0)
    in_plane = tuple(side for a, side in enumerate(shape) if a != axis)
    for index, place in enumerate(np.floor((np.arange(7) + 0.5) * 3 / 7).astype(int)):
        own = np.moveaxis(values, axis, 0)[place]
        expected = np.clip(zoomed(own, in_plane, 3), own.min(), own.max())
        np.testing.assert_allclose(found[index], expected, atol=3e-6)


def test_nothing_is_copied_where_the_shape_is_right():
    values = np.zeros((2, 3, 4), np.float32)
    assert resampled(values, (2, 3, 4), order=3) is values
    assert resampled_labels(values.astype(np.int16), (2, 3, 4), order=1).dtype == np.int16


@given(SHAPES, SHAPES, st.integers(0, 1000))
def test_labels_take_the_largest_linear_share(source, target, seed):
    labels = np.random.default_rng(seed).choice(np.array([0, 1, 4, 255], np.int16), size=source)
    found = resampled_labels(labels, target, order=1)
    values = np.unique(labels)
    shares = np.stack([zoomed((labels == value).astype(float), target, 1) for value in values])
    taken = np.take_along_axis(shares, np.searchsorted(values, found)[None], 0)[0]
    assert found.dtype == labels.dtype
    assert found.shape == target
    assert set(np.unique(found)) <= set(values.tolist())
    np.testing.assert_array_less(shares.max(axis=0) - 1e-6, taken)


def test_no_slice_between_two_is_invented_in_labels():
    labels = np.zeros((4, 6, 6), np.int16)
    labels[1, 1:4, 1:4], labels[2, 3:6, 3:6] = 1, 2
    found = resampled_labels(labels, (8, 6, 6), order=1, through=0)
    assert np.array_equal(found, np.repeat(labels, 2, axis=0))


@given(SHAPES, SHAPES, st.sampled_from(["linear", "nearest"]), st.integers(0, 1000))
def test_streamed_slices_are_the_zoomed_volume(source, target, through, seed):
    volume = np.random.default_rng(seed).normal(size=(2, *source)).astype(np.float32)
    found = list(to_slices(slices_of(volume), source, target, through=through))
    assert [z for z, _ in found] == list(range(target[0]))
    in_plane = np.stack([zoomed(one, (source[0], *target[1:]), 1) for one in volume])
    order = 1 if through == "linear" else 0
    expected = np.stack([resampled(one.astype(np.float32), target, order=order) for one in in_plane])
    np.testing.assert_allclose(np.stack([one for _, one in found], axis=1), expected, atol=1e-5)


def test_slices_on_their_own_grid_pass_untouched():
    volume = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)
    for z, one in to_slices(slices_of(volume), (4, 5, 6), (4, 5, 6)):
        assert np.shares_memory(one, volume[:, z])
        assert np.array_equal(one, volume[:, z])


def test_slices_are_asked_for_one_at_a_time():
    asked = []

    def counted() -> Iterator[tuple[int, NDArray]]:
        for z in range(10):
            asked.append(z)
            yield z, np.full((1, 2, 2), z, np.float32)

    for target, _ in to_slices(counted(), (10, 2, 2), (20, 4, 4)):
        assert len(asked) <= target // 2 + 2


@pytest.mark.parametrize("numbers", [[0, 1], [1, 0, 2], [0, 1, 2, 3]])
def test_missing_slices_and_wrong_order_are_refused(numbers):
    with pytest.raises(ValueError, match="slice"):
        list(to_slices(((z, np.zeros((1, 2, 2), np.float32)) for z in numbers), (3, 2, 2), (5, 2, 2)))


def test_shapes_round_and_never_vanish():
    assert resampled_shape((10, 20, 1), (2.0, 0.5, 1.0), (1.0, 0.7, 9.0)) == (20, 14, 1)
    assert resampled_shape((2000, 2000, 2), (1.0005, 1.01, 1.0), (1.0, 1.0, 1.0)) == (2000, 2020, 2)


@pytest.mark.parametrize(
    ("spacing", "target", "beyond", "axis"),
    [
        ((5, 1, 1), (1, 1, 1), 3.0, 0),
        ((1, 1, 1), (1, 4, 1), 3.0, 1),
        ((3, 1, 1), (3, 1, 1), 3.0, None),  # not more than three times
        ((1, 4, 4), (1, 1, 1), 3.0, None),  # two coarse axes
        ((5, 1, 1), (5, 1, 1), None, None),
        ((1, 1, 1.5), (1, 1, 1), 0.0, 2),
    ],
)
def test_anisotropic_images_or_targets_go_slice_by_slice(spacing, target, beyond, axis):
    assert slice_axis(spacing, target, beyond=beyond) == axis
