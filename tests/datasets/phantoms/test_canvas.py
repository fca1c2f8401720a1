"""Painting, labelling and posing of tissues."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.datasets.phantoms.canvas import Canvas
from medmargin.datasets.phantoms.shapes import Mask, largest_piece


def _square(start: int, stop: int, size: int = 32) -> Mask:
    mask = np.zeros((size, size), np.uint8)
    mask[start:stop, start:stop] = 1
    return mask


def test_a_later_object_takes_its_pixels_from_an_earlier_one() -> None:
    canvas = Canvas(32, ground=0.0)
    canvas.paint(_square(4, 20), 0.5, labelled=True)
    canvas.paint(_square(10, 28), 0.9, labelled=True)
    assert (canvas.labels == 1).sum() == 16**2 - 10**2
    assert (canvas.labels == 2).sum() == 18**2


def test_unlabelled_tissue_covers_a_label_and_a_speck_keeps_it() -> None:
    canvas = Canvas(32, ground=0.0)
    canvas.paint(_square(4, 20), 0.5, labelled=True)
    canvas.speck(_square(6, 8), 1.0)
    assert (canvas.labels == 1).sum() == 16**2
    canvas.paint(_square(6, 8), 0.1)
    assert (canvas.labels == 1).sum() == 16**2 - 4


def test_painting_inside_stays_inside() -> None:
    canvas = Canvas(32, ground=0.0)
    canvas.paint(_square(0, 32), 0.5, labelled=True, inside=_square(10, 12))
    assert canvas.labels.sum() == 4


def test_level_under_is_the_mean_of_what_lies_there() -> None:
    canvas = Canvas(32, ground=0.2)
    canvas.paint(_square(0, 16), 0.6)
    assert canvas.level_under(_square(0, 16)) == pytest.approx(0.6)
    assert canvas.level_under(_square(16, 32)) == pytest.approx(0.2)
    assert canvas.level_under(_square(0, 32)) == pytest.approx(0.2 + 0.4 / 4)


def test_a_mosaic_leaves_no_ground_and_labels_one_piece_of_each_tissue() -> None:
    canvas = Canvas(48, ground=0.0)
    canvas.mosaic(np.random.default_rng(0), tissues=5, cells=6, labelled=1.0)
    assert (canvas.tissue > 0).all()
    assert canvas.objects == 5
    for value in range(1, 6):
        np.testing.assert_array_equal(largest_piece((canvas.labels == value).astype(np.uint8)), canvas.labels == value)


def test_a_full_canvas_leaves_out_further_tissues() -> None:
    canvas = Canvas(32, ground=0.0)
    for _ in range(300):
        canvas.paint(_square(0, 4), 0.5, labelled=True)
    assert canvas.labels.max() == canvas.objects < 256
    assert len(canvas.levels) == canvas.tissue.max() + 1 <= 256


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_pose_invents_no_value_and_moves_labels_with_their_tissue(seed: int) -> None:
    canvas = Canvas(64, ground=0.0)
    canvas.paint(_square(20, 50, 64), 0.5, labelled=True)
    canvas.pose(np.random.default_rng(seed), turn=np.pi, zoom=1.6, bend=0.03)
    assert set(np.unique(canvas.tissue)) <= {0, 1}
    np.testing.assert_array_equal(canvas.tissue, canvas.labels)
    assert 0.3 < canvas.labels.sum() / 30**2 < 3
