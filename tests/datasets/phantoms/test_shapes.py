"""Outlines of single objects."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.datasets.phantoms.shapes import (
    SHAPES,
    Shape,
    field_of_view,
    fill,
    largest_piece,
    level_set,
    outline,
    ring,
)

_EVERY_SHAPE = pytest.mark.parametrize("shape", list(SHAPES), ids=lambda shape: shape.__name__)


@_EVERY_SHAPE
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_centred_shape_is_a_mask_of_about_its_radius(shape: Shape, seed: int) -> None:
    mask = shape(np.random.default_rng(seed), 96, (48.0, 48.0), 20.0)
    assert mask.shape == (96, 96)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}
    assert mask.sum() <= np.pi * 60**2
    # Level sets may come out empty where the noise is low; callers ask again.
    assert mask.any() or shape is level_set


@_EVERY_SHAPE
def test_a_shape_beyond_the_border_is_cut_off(shape: Shape) -> None:
    rng = np.random.default_rng(0)
    masks = np.stack([shape(rng, 64, (0.0, 0.0), 20.0) for _ in range(20)])
    assert masks[:, 0].any() or masks[:, :, 0].any()
    # Nothing comes back in on the other side.
    assert masks[:, :32, :32].sum() > 10 * masks[:, 32:, 32:].sum()


def test_a_filled_circle_has_the_area_of_a_circle() -> None:
    circle = outline(np.random.default_rng(0), roughness=0.0, decay=1.0)
    area = int(fill(np.array([64.0, 64.0]) + 40 * circle, 128).sum())
    assert area == pytest.approx(np.pi * 40**2, rel=0.04)


def test_a_rougher_outline_leaves_the_circle_further() -> None:
    spread = [
        np.std([np.hypot(*outline(np.random.default_rng(seed), roughness=value, decay=1.0).T) for seed in range(30)])
        for value in (0.0, 0.1, 0.4)
    ]
    assert spread[0] < 1e-9
    assert 2 * spread[1] < spread[2]


def test_most_rings_enclose_a_cavity_that_is_not_theirs() -> None:
    rng = np.random.default_rng(1)
    masks = [ring(rng, 96, (48.0, 48.0), 30.0) for _ in range(40)]
    assert np.mean([mask[44:52, 44:52].sum() == 0 for mask in masks]) > 0.8


def test_largest_piece_keeps_one_piece_and_leaves_an_empty_mask_empty() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:5, 2:5] = 1
    mask[8:16, 8:16] = 1
    assert largest_piece(mask).sum() == 64
    assert largest_piece(np.zeros((4, 4), np.uint8)).sum() == 0


@pytest.mark.parametrize("seed", range(12))
def test_a_field_of_view_shows_most_and_hides_some(seed: int) -> None:
    seen = field_of_view(np.random.default_rng(seed), 128)
    assert 0.3 < seen.mean() < 1.0
