"""`Frame`: LiteMedSAM's preparation to the bit, and the way back for any window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from medmargin.transforms import Frame


def picture_of(height: int, width: int) -> np.ndarray:
    """A picture whose values name the place."""
    return (np.arange(height)[:, None] * 1000 + np.arange(width)).astype(np.float32)


@pytest.mark.parametrize("case", ["down", "up", "square"])
def test_the_whole_picture_is_prepared_as_litemedsam_does(golden, case):
    with safe_open(golden / "medsam-lite-prepost.safetensors", "np") as stream:
        picture, mask = stream.get_tensor(f"input.{case}.image"), stream.get_tensor(f"input.{case}.mask")
        wanted = {name: stream.get_tensor(f"output.{case}.{name}") for name in ("network_input_channel0", "new_size")}
    frame = Frame.whole(*picture.shape, 256)
    assert frame.resized == tuple(wanted["new_size"])
    assert np.abs(frame.image(picture)[0] - wanted["network_input_channel0"]).max() <= 1e-6
    assert frame.mask(mask).shape == (256, 256)


windows = st.builds(
    Frame,
    x=st.integers(-20, 40), y=st.integers(-20, 30), width=st.integers(1, 60), height=st.integers(1, 60),
    size=st.sampled_from([8, 32, 64]),
)  # fmt: skip


@settings(deadline=None)
@given(frame=windows, height=st.integers(1, 50), width=st.integers(1, 60))
def test_a_window_shows_what_lies_inside_it_and_zero_elsewhere(frame, height, width):
    picture = picture_of(height, width) + 1
    window = frame.window(picture)
    assert window.shape == (frame.height, frame.width)
    for row in range(0, frame.height, 7):
        for column in range(0, frame.width, 7):
            y, x = frame.y + row, frame.x + column
            inside = 0 <= y < height and 0 <= x < width
            assert window[row, column] == (picture[y, x] if inside else 0)


@settings(deadline=None)
@given(frame=windows)
def test_inputs_are_square_between_zero_and_one_and_padded_with_zero(frame):
    image = frame.image(np.random.default_rng(0).random((40, 50, 3)))
    rows, columns = frame.resized
    assert image.shape == (3, frame.size, frame.size)
    assert image.dtype == np.float32
    assert 0 <= image.min() <= image.max() <= 1
    assert not image[:, rows:].any()
    assert not image[:, :, columns:].any()
    assert max(rows, columns) == frame.size
    assert min(rows, columns) >= 1


@settings(deadline=None)
@given(
    corner=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    margin=st.floats(0, 2),
    shift=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
)
def test_a_mask_comes_back_from_a_frame_around_it(corner, sides, margin, shift):
    """Nearest down or up, bilinear back: what the window holds returns to within a pixel of its edge."""
    mask = np.zeros((100, 100), np.uint8)
    mask[corner[1] : corner[1] + sides[1], corner[0] : corner[0] + sides[0]] = 1
    box = (corner[0], corner[1], corner[0] + sides[0] - 1, corner[1] + sides[1] - 1)
    assume(max(abs(part) for part in shift) <= margin / (1 + 2 * margin))
    frame = Frame.around(box, 256, margin=margin, shift=shift)
    assert frame.width == frame.height
    assert frame.width <= max(8, max(sides) * (1 + 2 * margin) + 1)
    assert int(frame.window(mask).sum()) >= int(mask.sum()) - max(sides) * 2  # rounding may cut one line
    back = frame.restore(frame.mask(mask).astype(np.float32), 100, 100, fill=0.0) > 0.5
    wrong = np.argwhere(back != (mask > 0))
    edges = [(y, x) for y, x in wrong if not _near_edge(x, y, box)]
    assert edges == []


def _near_edge(x: int, y: int, box: tuple[int, int, int, int]) -> bool:
    outside = x < box[0] - 1 or x > box[2] + 1 or y < box[1] - 1 or y > box[3] + 1
    deep = box[0] < x < box[2] and box[1] < y < box[3]
    return not (outside or deep)


@given(height=st.integers(1, 70), width=st.integers(1, 70), size=st.sampled_from([16, 64]))
@settings(deadline=None)
def test_a_smooth_map_survives_the_whole_frame(height, width, size):
    frame = Frame.whole(height, width, size)
    restored = frame.restore(np.full((size, size), 0.7, np.float32), height, width, fill=-9.0)
    assert restored.shape == (height, width)
    assert np.allclose(restored, 0.7)


def test_what_the_window_does_not_hold_is_filled():
    frame = Frame(x=-4, y=6, width=10, height=10, size=20)
    restored = frame.restore(np.ones((20, 20), np.float32), 12, 12, fill=-5.0)
    assert (restored[6:12, :6] == 1).all()
    assert (restored == -5).sum() == 144 - 36


def test_a_constant_picture_becomes_zero():
    assert not Frame.whole(10, 12, 16).image(np.full((10, 12), 7, np.int16)).any()
