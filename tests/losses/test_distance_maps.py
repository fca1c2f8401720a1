"""Distance maps against brute force, and their symmetries."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from medmargin.losses.distance_maps import border_distance, penalty_weights, signed_distance, unsigned_distance

MAPS = (penalty_weights, signed_distance, border_distance, unsigned_distance)
masks = arrays(bool, array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6))
pictures = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9))


def brute_force_distance(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance of every pixel to the nearest pixel of the other class, by trying all pairs."""
    points = np.argwhere(np.ones_like(mask))
    values = mask.ravel()
    pairwise = np.linalg.norm(points[:, None] - points[None], axis=-1)
    pairwise[values[:, None] == values[None]] = np.inf
    return pairwise.min(1).reshape(mask.shape)


def has_border(mask: NDArray[np.bool_]) -> bool:
    return bool(mask.any() and not mask.all())


@given(masks)
@settings(max_examples=60, deadline=None)
def test_unsigned_distance_is_the_distance_to_the_nearest_pixel_of_the_other_class(mask: NDArray[np.bool_]) -> None:
    expected = brute_force_distance(mask) if has_border(mask) else np.zeros(mask.shape)
    np.testing.assert_allclose(unsigned_distance(mask), expected, rtol=1e-6)


@given(masks)
@settings(max_examples=60, deadline=None)
def test_signed_distance_is_positive_outside_negative_inside_and_zero_on_the_outermost_pixels(
    mask: NDArray[np.bool_],
) -> None:
    if has_border(mask):
        distance = brute_force_distance(mask)
        expected = np.where(mask, np.where(distance == 1, 0, -distance), distance)
    else:
        expected = np.zeros(mask.shape)
    np.testing.assert_allclose(signed_distance(mask), expected, rtol=1e-6)


@given(masks)
@settings(max_examples=60, deadline=None)
def test_border_distance_is_measured_from_the_line_between_the_classes(mask: NDArray[np.bool_]) -> None:
    size = brute_force_distance(mask) - 0.5 if has_border(mask) else np.full(mask.shape, np.linalg.norm(mask.shape))
    np.testing.assert_allclose(border_distance(mask), np.where(mask, -size, size), rtol=1e-6)


@given(masks)
@settings(max_examples=60, deadline=None)
def test_penalty_weights_follow_the_formula_on_each_class(mask: NDArray[np.bool_]) -> None:
    expected = np.ones(mask.shape)
    if has_border(mask):
        distance = brute_force_distance(mask)
        for side in (mask, ~mask):
            deepest, shallowest = distance[side].max(), distance[side].min()
            if deepest > shallowest:
                expected[side] += (deepest - distance[side]) / (deepest - shallowest)
    np.testing.assert_allclose(penalty_weights(mask), expected, atol=1e-6)


@pytest.mark.parametrize("make", MAPS)
def test_every_edge_mask_gives_finite_float32_of_its_shape(make, edge_mask: NDArray[np.bool_]) -> None:
    result = make(edge_mask)
    assert result.dtype == np.float32
    assert result.shape == edge_mask.shape
    assert np.isfinite(result).all()


@pytest.mark.parametrize("value", [False, True])
def test_a_mask_without_a_border_carries_no_distance(value: bool) -> None:
    mask = np.full((5, 7), value)
    assert (penalty_weights(mask) == 1).all()
    assert not signed_distance(mask).any()
    assert not unsigned_distance(mask).any()


def test_weights_are_two_at_the_border_and_one_at_the_deepest_pixels(two_parts: NDArray[np.bool_]) -> None:
    weights, distance = penalty_weights(two_parts), brute_force_distance(two_parts)
    assert (weights[distance == 1] == 2).all()
    for side in (two_parts, ~two_parts):
        assert (weights[side & (distance == distance[side].max())] == 1).all()


def test_a_structure_without_depth_has_weight_one_and_its_neighbours_two() -> None:
    mask = np.zeros((7, 7), bool)
    mask[3, 3] = True
    weights = penalty_weights(mask)
    assert weights[3, 3] == 1
    assert (weights[[2, 4, 3, 3], [3, 3, 2, 4]] == 2).all()


def test_the_edge_of_the_image_is_no_border_of_the_structure() -> None:
    mask = np.zeros((6, 4), bool)
    mask[3:] = True
    np.testing.assert_array_equal(unsigned_distance(mask)[:, 0], [3, 2, 1, 1, 2, 3])


@given(pictures, st.sampled_from([np.flipud, np.fliplr, np.transpose, np.rot90]))
@settings(max_examples=40, deadline=None)
def test_the_map_of_a_turned_mask_is_the_turned_map(mask: NDArray[np.bool_], turn) -> None:
    for make in MAPS:
        np.testing.assert_allclose(make(turn(mask)), turn(make(mask)), rtol=1e-6)


@given(pictures)
@settings(max_examples=40, deadline=None)
def test_inside_and_outside_are_treated_alike(mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(unsigned_distance(~mask), unsigned_distance(mask))
    np.testing.assert_array_equal(penalty_weights(~mask), penalty_weights(mask))
    np.testing.assert_array_equal(border_distance(~mask), -border_distance(mask))


@pytest.mark.parametrize("value", [1, 255])
def test_any_non_zero_value_is_inside(two_parts: NDArray[np.bool_], value: int) -> None:
    for make in MAPS:
        np.testing.assert_array_equal(make(two_parts.astype(np.uint8) * value), make(two_parts))


def test_the_mask_is_not_changed(two_parts: NDArray[np.bool_]) -> None:
    before = two_parts.copy()
    for make in MAPS:
        make(two_parts)
    np.testing.assert_array_equal(two_parts, before)


def test_the_data_loader_needs_no_torch_for_the_maps() -> None:
    code = "import sys, medmargin.losses.distance_maps; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
