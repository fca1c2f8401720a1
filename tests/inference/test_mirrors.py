"""Mirrors keep padding in place, undo themselves, and move boxes and points with the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.inference.mirrors import mirror_box, mirror_map, mirror_points
from medmargin.uncertainty.prompt_perturbation import Flip

flips = pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])


@flips
def test_a_mirror_undoes_itself_and_leaves_the_padding(flip: Flip) -> None:
    values = np.random.default_rng(0).random((3, 8, 8))
    mirrored = mirror_map(values, flip, (5, 7))
    assert np.array_equal(mirror_map(mirrored, flip, (5, 7)), values)
    assert np.array_equal(mirrored[:, 5:], values[:, 5:])
    assert np.array_equal(mirrored[:, :, 7:], values[:, :, 7:])


@given(st.sampled_from(["horizontal", "vertical"]), st.tuples(*[st.integers(0, 10)] * 4))
def test_a_mirrored_box_is_the_box_of_the_mirrored_mask(flip: Flip, corners: tuple[int, ...]) -> None:
    x, y = sorted(corners[:2]), sorted(corners[2:])
    mask = np.zeros((16, 16))
    mask[y[0] : y[1] + 1, x[0] : x[1] + 1] = 1
    rows, columns = np.nonzero(mirror_map(mask, flip, (11, 13)))
    box = mirror_box(np.array([x[0], y[0], x[1], y[1]], np.float32), flip, (11, 13))
    assert box.tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]


@flips
def test_a_mirrored_point_lies_on_the_mirrored_pixel(flip: Flip) -> None:
    mask = np.zeros((8, 8))
    mask[2, 3] = 1
    ((x, y),) = mirror_points(np.array([[3, 2]], np.float32), flip, (6, 7)).astype(int)
    assert mirror_map(mask, flip, (6, 7))[y, x] == 1
