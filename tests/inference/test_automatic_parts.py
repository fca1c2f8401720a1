"""What prediction without prompts added to shared parts: mirrors of both axes, other cuts, class maps in the budget."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.errors import BudgetError
from medmargin.imaging import Grid, Volume
from medmargin.inference.budget import memory_in_use, plan_batches
from medmargin.inference.class_canvas import ClassCanvas
from medmargin.inference.class_maps import ClassMoments
from medmargin.inference.mirrors import mirror_box, mirror_map, mirror_points
from medmargin.inference.stack import SliceStack
from medmargin.uncertainty.decomposition import decompose
from medmargin.uncertainty.estimators import MIRRORS

Make = Callable[..., Volume]
GIB = 2**30


@pytest.mark.parametrize("flip", MIRRORS)
@given(st.integers(1, 12), st.integers(1, 12))
def test_a_mirror_is_its_own_inverse_and_leaves_the_padding(flip: str, height: int, width: int) -> None:
    values = np.arange(144.0).reshape(12, 12)
    mirrored = mirror_map(values, flip, (height, width))
    assert np.array_equal(mirror_map(mirrored, flip, (height, width)), values)
    assert np.array_equal(mirrored[height:], values[height:])
    assert np.array_equal(mirrored[:, width:], values[:, width:])


def test_both_mirrors_one_after_the_other() -> None:
    values, size = np.random.default_rng(0).random((3, 8, 8)), (5, 7)
    expected = mirror_map(mirror_map(values, "horizontal", size), "vertical", size)
    assert np.array_equal(mirror_map(values, "both", size), expected)
    box = np.array([1, 0, 4, 2], np.float32)
    assert mirror_box(box, "both", size).tolist() == [2, 2, 5, 4]
    assert mirror_points(box[None, :2], "both", size).tolist() == [[5, 4]]


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR", "PIL"])
def test_other_cuts_show_the_same_voxels(codes: str, volume: Make) -> None:
    original = volume(np.random.default_rng(0).random((4, 5, 6)))
    stack = SliceStack(original.reoriented(codes))
    sagittal, coronal = stack.across_other_axes()
    assert (sagittal.shape, coronal.shape) == ((4, 6, 5), (5, 6, 4))
    voxels = original.voxels[0]
    assert np.array_equal(sagittal.picture(2)[..., 0], voxels[2].T)
    assert np.array_equal(coronal.picture(3)[..., 0], voxels[:, 3].T)
    written = np.zeros(stack.working_shape)
    for index in range(5):
        coronal.view(written)[index] = coronal.picture(index)[..., 0]
    assert np.array_equal(written, voxels)


def test_a_picture_has_no_other_cut(picture: Make) -> None:
    assert SliceStack(picture(np.eye(9, dtype=np.uint8))).across_other_axes() == ()


def _volume(*shape: int) -> Volume:
    """A volume that claims its size without holding memory."""
    return Volume(np.broadcast_to(np.float32(0), (1, *shape)), Grid(shape, np.eye(4)))  # type: ignore[arg-type]


def _estimate(classes: int, planes: int = 1) -> int:
    return plan_batches(
        _volume(256, 256, 256),
        size=64,
        structures=1,
        keep_probabilities=False,
        limit=None,
        classes=classes,
        planes=planes,
    ).estimate


def test_three_cuts_hold_every_class_in_full() -> None:
    assert _estimate(8, planes=3) - _estimate(8) > 8 * 4 * 256**3
    assert _estimate(8) - _estimate(2) < 6 * 4 * 256**3  # one cut does not


def test_many_classes_mean_small_batches_and_then_a_refusal() -> None:
    used = memory_in_use()
    plans = [
        plan_batches(
            _volume(512, 512, 20), size=256, structures=classes - 1, keep_probabilities=False, limit=used + 2 * GIB,
            classes=classes,
        )
        for classes in (2, 20)
    ]  # fmt: skip
    assert plans[1].images < plans[0].images
    with pytest.raises(BudgetError, match="more than"):
        plan_batches(
            _volume(512, 512, 20), size=256, structures=99, keep_probabilities=True, limit=used + 2 * GIB, classes=100
        )


@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_moments_of_softmax_passes_equal_their_decomposition(seed: int, passes: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, (passes, 4, 3, 2)).astype(np.float32)
    moments = ClassMoments(None, passes)
    answers = np.stack([moments.add(values, None) for values in logits])
    maps = moments.maps()
    np.testing.assert_allclose(maps.probabilities, answers.mean(axis=0), atol=1e-6)
    expected = decompose(answers)
    np.testing.assert_allclose(maps.total, expected.total, atol=1e-5)
    np.testing.assert_allclose(maps.aleatoric, expected.aleatoric, atol=1e-5)
    assert maps.further == {}


def test_the_canvas_measures_what_was_drawn() -> None:
    canvas = ClassCanvas((2, 1, 3), structures=2, members=1, keep_probabilities=False)
    moments = ClassMoments("softplus", 1)
    logits = np.array([[[9, 0, 0]], [[0, 9, 0]], [[0, 0, 9]]], np.float32)
    canvas.sample(0, moments.add(logits, None))
    canvas.draw(1, moments.maps())
    assert canvas.labels.tolist() == [[[-1, -1, -1]], [[-1, 0, 1]]]
    count, inside = canvas.probability_inside(1)
    assert count == 1
    assert inside == pytest.approx(moments.maps().probabilities[2, 0, 2])
    assert canvas.samples.voxels(1).mean() == pytest.approx(moments.maps().probabilities[2].sum(), abs=0.01)
    assert canvas.probabilities is None
