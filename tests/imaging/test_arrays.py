"""NumPy arrays as volumes."""

from __future__ import annotations

import numpy as np
import pytest

from medmargin.errors import ConfigError, DataError, GeometryError
from medmargin.imaging import from_array


def test_three_axes_are_a_volume_and_two_a_picture():
    volume = from_array(np.zeros((2, 3, 4)), spacing=(1, 2, 3))
    assert (volume.voxels.shape, volume.dims, volume.grid.unit) == ((1, 2, 3, 4), 3, "mm")
    picture = from_array(np.arange(6).reshape(2, 3))
    assert (picture.voxels.shape, picture.dims, picture.grid.unit) == ((1, 3, 2, 1), 2, "px")
    assert picture.voxels[0, 2, 1, 0] == 5  # column 2, row 1


def test_channels_come_last_in_pictures_and_first_in_volumes():
    assert from_array(np.zeros((5, 6, 3)), dims=2).voxels.shape == (3, 6, 5, 1)
    assert from_array(np.zeros((3, 5, 6, 7))).voxels.shape == (3, 5, 6, 7)


def test_spacing_and_affine_give_millimetres():
    assert from_array(np.zeros((5, 6)), spacing=(0.5, 0.25)).spacing == (0.5, 0.25, 1.0)
    affine = np.diag([-2.0, 2, 3, 1])
    assert np.array_equal(from_array(np.zeros((5, 6, 7)), affine=affine).affine, affine)


def test_bool_becomes_a_number():
    assert from_array(np.ones((2, 2, 2), bool)).voxels.dtype == np.uint8


@pytest.mark.parametrize(
    ("array", "options", "error"),
    [
        (np.zeros((2, 2, 2)), {"affine": np.eye(4), "spacing": (1, 1, 1)}, ConfigError),
        (np.zeros((2, 2, 2)), {"spacing": (1, 1)}, ConfigError),
        (np.zeros(4), {}, ConfigError),
        (np.zeros((2, 2)), {"dims": 3}, ConfigError),
        (np.array([["a"]]), {}, DataError),
        (np.zeros((2, 2, 2), complex), {}, DataError),
        (np.zeros((2, 2, 2)), {"spacing": (1, 1, 0)}, GeometryError),
    ],
)
def test_what_is_no_image_is_refused(array, options, error):
    with pytest.raises(error):
        from_array(array, **options)
