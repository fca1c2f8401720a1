"""The box of the next slice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.prompts.propagation import mask_in_frame, next_box
from medmargin.transforms.frame import Frame


def _mask(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[box[1] : box[3] + 1, box[0] : box[2] + 1] = True
    return mask


def test_at_the_network_resolution_the_box_is_the_tight_one_enlarged() -> None:
    mask = _mask(64, 64, (20, 10, 40, 30))
    assert next_box(mask, Frame.whole(64, 64, 64)).tolist() == [17, 7, 43, 33]
    assert next_box(mask, Frame.whole(64, 64, 64), enlarge=0).tolist() == [20, 10, 40, 30]


def test_upper_limits_clip_to_the_size_and_lower_ones_to_zero() -> None:
    everywhere = np.ones((64, 64), np.uint8)
    assert next_box(everywhere, Frame.whole(64, 64, 64)).tolist() == [0, 0, 64, 64]


def test_an_empty_mask_has_no_box() -> None:
    assert next_box(np.zeros((30, 40), np.uint8), Frame.whole(30, 40, 64)) is None


def test_a_mask_outside_the_window_has_no_box() -> None:
    assert next_box(_mask(60, 60, (40, 40, 50, 50)), Frame(0, 0, 20, 20, 64)) is None


@given(
    height=st.integers(20, 90),
    width=st.integers(20, 90),
    corner=st.tuples(st.integers(0, 10), st.integers(0, 10)),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
)
def test_the_box_surrounds_the_object(
    height: int, width: int, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    box = (*corner, corner[0] + size[0], corner[1] + size[1])
    frame = Frame.whole(height, width, 64)
    found = next_box(_mask(height, width, box), frame)
    low, high = np.array(box[:2]) * frame.scale, (np.array(box[2:]) + 1) * frame.scale
    assert (found[:2] <= low).all()
    assert (found[2:] + 1 >= np.minimum(high, 64)).all()
    assert (low - found[:2] <= 6).all()
    assert (found[2:] + 1 - high <= 6).all()


@pytest.mark.parametrize("shape", [(30, 60), (60, 30), (128, 128)])
def test_the_mask_keeps_its_place_and_the_padding_is_empty(shape: tuple[int, int]) -> None:
    frame = Frame.whole(*shape, 64)
    resized = mask_in_frame(np.ones(shape, bool), frame)
    height, width = frame.resized
    assert resized.shape == (64, 64)
    assert resized[:height, :width].all()
    assert resized.sum() == height * width


def test_a_moving_window_moves_the_box() -> None:
    mask = _mask(100, 100, (50, 60, 59, 69))
    assert next_box(mask, Frame(40, 50, 32, 32, 32)).tolist() == [7, 7, 22, 22]
