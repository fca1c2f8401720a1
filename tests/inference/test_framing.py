"""Frames: LiteMedSAM's whole picture exactly, and windows that few objects share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from medmargin.errors import ConfigError
from medmargin.inference.framing import Framing
from medmargin.transforms.frame import Frame

rectangles = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), *[st.integers(0, 150)] * 2, *[st.integers(0, 49)] * 2)


@pytest.mark.parametrize("size", ["down", "up", "square"])
def test_whole_picture_boxes_equal_litemedsam(golden: Path, size: str) -> None:
    reference = load_file(golden / "medsam-lite-prepost.safetensors")
    height, width = reference[f"input.{size}.image"].shape
    (group,) = Framing("image").groups([None], height=height, width=width, size=256)
    box = Framing("image").network_box(group.frame, tuple(reference[f"input.{size}.box"]))
    assert np.array_equal(box, reference[f"output.{size}.box256"])


def test_whole_picture_is_one_frame_for_any_number_of_objects() -> None:
    (group,) = Framing("image").groups([(0, 0, 1, 1), (90, 90, 99, 99), None], height=100, width=120, size=64)
    assert group.objects == (0, 1, 2)
    assert group.frame == Frame.whole(100, 120, 64)


@given(st.lists(rectangles, min_size=1, max_size=12))
def test_every_object_has_one_frame_that_holds_it_at_a_fair_size(boxes: list[tuple[int, int, int, int]]) -> None:
    framing = Framing("object", margin=0.25, smallest_fraction=0.4)
    groups = framing.groups(boxes, height=200, width=200, size=64)
    assert sorted(index for group in groups for index in group.objects) == list(range(len(boxes)))
    for group in groups:
        frame = group.frame
        for x_min, y_min, x_max, y_max in (boxes[index] for index in group.objects):
            assert frame.x <= x_min
            assert frame.y <= y_min
            assert x_max < frame.x + frame.width
            assert y_max < frame.y + frame.height
            if len(group.objects) > 1:
                assert max(x_max - x_min, y_max - y_min) + 1 >= 0.4 * frame.width


def test_neighbours_of_like_size_share_a_frame_and_distant_ones_do_not() -> None:
    framing = Framing("object")
    near = framing.groups([(10, 10, 29, 29), (20, 12, 39, 31)], height=300, width=300, size=64)
    far = framing.groups([(10, 10, 29, 29), (250, 250, 269, 269)], height=300, width=300, size=64)
    small_in_large = framing.groups([(0, 0, 99, 99), (40, 40, 45, 45)], height=300, width=300, size=64)
    assert [group.objects for group in near] == [(0, 1)]
    assert [group.objects for group in far] == [(0,), (1,)]
    assert [group.objects for group in small_in_large] == [(0,), (1,)]


def test_an_object_without_a_box_may_be_anywhere() -> None:
    groups = Framing("object").groups([(10, 10, 20, 20), None], height=50, width=60, size=64)
    assert groups[0].objects == (1,)
    assert groups[0].frame == Frame.whole(50, 60, 64)


@given(rectangles)
def test_a_framed_box_is_the_box_of_the_framed_mask(box: tuple[int, int, int, int]) -> None:
    assume(max(box[2] - box[0], box[3] - box[1]) < 40)  # a picture that shrinks may lose a thin mask altogether
    framing = Framing("object", margin=0.25)
    mask = np.zeros((200, 200), np.uint8)
    mask[box[1] : box[3] + 1, box[0] : box[2] + 1] = 1
    (group,) = framing.groups([box], height=200, width=200, size=64)
    rows, columns = np.nonzero(group.frame.mask(mask))
    expected = [columns.min(), rows.min(), columns.max(), rows.max()]
    np.testing.assert_allclose(framing.network_box(group.frame, box), expected, atol=0.51)


def test_points_go_where_their_pixels_go() -> None:
    frame = Frame(10, 20, 32, 32, 64)
    points = np.array([[10, 20], [41, 51]], np.float32)
    np.testing.assert_allclose(Framing("object").network_points(frame, points), [[0.5, 0.5], [62.5, 62.5]])
    whole = Frame.whole(100, 200, 50)
    np.testing.assert_allclose(Framing("image").network_points(whole, points), points / 4)


@pytest.mark.parametrize(
    "arguments",
    [{"kind": "slice"}, {"margin": -0.1}, {"smallest_fraction": 0}, {"kind": "object", "margin": 1.0}],
)
def test_impossible_framings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Framing(**arguments)
