"""The stack: one standard orientation whatever the file's, and exactly back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

import numpy as np
import pytest

from medmargin.errors import DataError
from medmargin.imaging import Volume
from medmargin.inference.stack import SliceStack
from medmargin.prompts.types import Box, Point

AXIS_CODES = ["".join(code) for axes in permutations(("LR", "AP", "SI")) for code in product(*axes)]
Make = Callable[..., Volume]


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_every_axis_code_gives_the_same_stack_and_comes_back(codes: str, volume: Make) -> None:
    original = volume(np.random.default_rng(0).random((4, 5, 6)), affine=np.diag([2.0, 1.5, 3.0, 1.0]))
    turned = original.reoriented(codes)
    stack = SliceStack(turned)
    assert stack.shape == (6, 5, 4)
    for index in range(6):
        assert np.array_equal(stack.picture(index)[..., 0], original.voxels[0, :, :, index].T)
    values = np.stack([stack.picture(index)[..., 0] for index in range(6)])
    assert np.array_equal(stack.restore_map(values), turned.voxels[0])
    assert np.array_equal(stack.restore_labels((values > 0.5).astype(np.uint8)), turned.voxels[0] > 0.5)
    assert np.array_equal(stack.mask(turned.voxels[0] > 0.5, turned), values > 0.5)


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_boxes_and_points_of_every_axis_code_land_on_their_voxels(codes: str, volume: Make) -> None:
    voxels = np.zeros((7, 8, 9))
    voxels[2:5, 3:4, 1:7] = 1
    turned = volume(voxels).reoriented(codes)
    inside = np.argwhere(turned.voxels[0])
    stack = SliceStack(turned)
    box = stack.box(Box(tuple(inside.min(axis=0).tolist()), tuple(inside.max(axis=0).tolist())))
    assert box.rectangle == (2, 3, 4, 3)
    assert (box.first, box.last) == (1, 6)
    x, y, index = stack.point(Point(tuple(inside[0].tolist())))
    assert stack.picture(index)[int(y), int(x), 0] == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_is_looked_at_face_on(axis: int, volume: Make) -> None:
    single = volume(np.moveaxis(np.random.default_rng(1).random((5, 6, 1)), 2, axis))
    stack = SliceStack(single)
    assert stack.shape == (1, 6, 5)
    values = stack.picture(0)[None, ..., 0]
    assert np.array_equal(stack.restore_map(values), single.voxels[0])


def test_a_picture_is_taken_as_it_is(picture: Make) -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (6, 9, 3)).astype(np.uint8)
    stack = SliceStack(picture(pixels))
    assert stack.shape == (1, 6, 9)
    assert np.array_equal(stack.picture(0), pixels)
    assert stack.picture(0).dtype == np.uint8


def test_row_4_a_sheared_grid_is_answered_on_its_own_grid(volume: Make) -> None:
    affine = np.eye(4)
    affine[1, 2] = 0.3
    voxels = np.zeros((12, 20, 8))
    voxels[3:9, 6:14, 2:6] = 1
    sheared = volume(voxels, affine=affine)
    stack = SliceStack(sheared)
    pictures = np.stack([stack.picture(index)[..., 0] for index in range(stack.shape[0])])
    restored = stack.restore_labels((pictures > 0.5).astype(np.uint8))
    assert restored.shape == (12, 20, 8)
    assert 2 * (restored * voxels).sum() / (restored.sum() + voxels.sum()) > 0.9
    assert any("shear" in warning for warning in stack.warnings)


def test_intensities_are_normalised_over_the_whole_image(volume: Make) -> None:
    stack = SliceStack(volume(np.arange(24.0).reshape(2, 3, 4)), lambda voxels: voxels / voxels.max())
    assert max(stack.picture(index).max() for index in range(4)) == 1


def test_row_2_an_image_without_signal_is_refused(volume: Make) -> None:
    with pytest.raises(DataError):
        SliceStack(volume(np.full((4, 4, 4), 7.0)))


def test_row_1_an_image_full_of_nan_is_refused(volume: Make) -> None:
    voxels = np.random.default_rng(3).random((4, 4, 4))
    voxels[:2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        SliceStack(volume(voxels))


def test_four_channels_are_refused(volume: Make) -> None:
    with pytest.raises(DataError, match="4 channels"):
        SliceStack(volume(np.random.rand(3, 3, 3)).with_voxels(np.random.rand(4, 3, 3, 3)))
