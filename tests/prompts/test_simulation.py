"""Simulated boxes and clicks: tight, outward only, inside the picture, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medmargin.errors import PromptError
from medmargin.prompts.simulation import jittered_box, sample_points, tight_box

masks = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 2))


@given(masks)
def test_tight_box_holds_every_pixel_and_touches_the_mask_on_each_side(mask):
    box = tight_box(mask)
    if not mask.any():
        assert box is None
        return
    x_min, y_min, x_max, y_max = box
    inside = mask[y_min : y_max + 1, x_min : x_max + 1]
    assert inside.astype(bool).sum() == mask.astype(bool).sum()
    assert inside[0].any()
    assert inside[-1].any()
    assert inside[:, 0].any()
    assert inside[:, -1].any()


@given(masks, st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_jitter_moves_sides_outward_only_and_stays_in_the_picture(mask, jitter, seed):
    box = tight_box(mask)
    if box is None:
        return
    height, width = mask.shape
    moved = jittered_box(box, np.random.default_rng(seed), jitter=jitter, height=height, width=width)
    assert 0 <= moved[0] <= box[0] <= box[2] <= moved[2] <= width - 1
    assert 0 <= moved[1] <= box[1] <= box[3] <= moved[3] <= height - 1
    assert max(box[0] - moved[0], box[1] - moved[1], moved[2] - box[2], moved[3] - box[3]) <= jitter
    again = jittered_box(box, np.random.default_rng(seed), jitter=jitter, height=height, width=width)
    assert again == moved


def test_every_step_up_to_the_jitter_occurs_equally_often_on_each_side():
    rng = np.random.default_rng(0)
    moved = np.array([jittered_box((50, 50, 60, 60), rng, jitter=5, height=200, width=200) for _ in range(6000)])
    steps = np.abs(moved - np.array([50, 50, 60, 60]))
    for side in range(4):
        counts = np.bincount(steps[:, side], minlength=6)
        assert len(counts) == 6
        assert counts.min() > 850  # 1000 expected, standard deviation 29
    assert abs(np.corrcoef(steps[:, 0], steps[:, 2])[0, 1]) < 0.06


def test_negative_jitter_is_refused():
    with pytest.raises(PromptError, match="outward only"):
        jittered_box((0, 0, 1, 1), np.random.default_rng(0), jitter=-1, height=4, width=4)


@given(masks, st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_positive_clicks_lie_on_the_mask_and_negative_ones_off_it(mask, positive, negative, seed):
    if (positive and not mask.any()) or (negative and mask.all()):
        with pytest.raises(PromptError, match="cannot place"):
            sample_points(mask, np.random.default_rng(seed), positive=positive, negative=negative)
        return
    points, labels = sample_points(mask, np.random.default_rng(seed), positive=positive, negative=negative)
    assert points.shape == (positive + negative, 2)
    assert points.dtype == np.float32
    assert labels.tolist() == [1] * positive + [0] * negative
    for (x, y), label in zip(points.astype(int), labels, strict=True):
        assert (mask[y, x] != 0) == bool(label)


def test_clicks_do_not_repeat_while_pixels_last():
    mask = np.zeros((5, 5))
    mask[1:3, 1:4] = 1
    points, _ = sample_points(mask, np.random.default_rng(3), positive=6)
    assert len(np.unique(points, axis=0)) == 6
