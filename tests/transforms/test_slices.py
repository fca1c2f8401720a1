"""From voxels to the pictures a network sees."""

from __future__ import annotations

import numpy as np
import pytest

from medmargin.errors import DataError
from medmargin.transforms import label_slices, normalised, picture_slices, shown, slice_axes, to_bytes


def test_pictures_run_along_the_third_axis_with_x_along_i():
    labels = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    slices = label_slices(labels)
    assert slices.shape == (4, 3, 2)
    assert slices[1, 2, 0] == labels[0, 2, 1]


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((5, 6, 7), (0, 1, 2)),
        ((5, 6, 1), (0, 1, 2)),
        ((5, 1, 7), (0, 2, 1)),
        ((1, 6, 7), (1, 2, 0)),
        ((1, 1, 7), (0, 1, 2)),
    ],
)
def test_a_single_slice_is_cut_across_its_own_axis(shape, axes):
    assert slice_axes(shape) == axes
    assert label_slices(np.zeros(shape)).shape == tuple(shape[axis] for axis in (axes[2], axes[1], axes[0]))


def test_grey_images_lose_their_channel_and_colours_come_last():
    grey, colour = np.zeros((1, 5, 6, 7), np.uint8), np.zeros((3, 5, 6, 1), np.uint8)
    colour[2] = 9
    assert picture_slices(grey).shape == (7, 6, 5)
    assert picture_slices(colour).shape == (1, 6, 5, 3)
    assert (picture_slices(colour) == [0, 0, 9]).all()


def test_row_11_two_channels_are_refused():
    with pytest.raises(DataError, match="case_7: 2 channels, but a promptable network looks at 1"):
        picture_slices(np.zeros((2, 5, 6, 7), np.uint8), name="case_7")


def test_bytes_of_pictures_stay_and_everything_else_is_normalised_whole():
    voxels = np.random.default_rng(0).integers(0, 200, (1, 5, 6, 1)).astype(np.uint8)
    assert np.array_equal(shown(voxels, modality="other", dims=2), voxels)
    for other, dims in ((voxels, 3), (voxels.astype(np.uint16), 2)):
        found = shown(other, modality="other", dims=dims)
        assert found.dtype == np.uint8
        assert np.array_equal(found, to_bytes(normalised(other, modality="other")))
