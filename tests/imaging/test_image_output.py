"""Images written for other tools: every voxel comes back as it was."""

from __future__ import annotations

import numpy as np
import pytest

from medmargin.errors import ConfigError, DataError
from medmargin.imaging import Grid, Volume, from_array, read_channels, read_image, read_label
from medmargin.imaging.image_output import write_image

AFFINE = np.array([[-0.5, 0, 0, 3], [0, 0.5, 0.1, -2], [0, -0.1, 2.5, 9], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_volumes_come_back_with_their_grid(tmp_path, suffix, dtype):
    voxels = np.random.default_rng(0).integers(0, 100, (1, 4, 5, 6)).astype(dtype)
    volume = Volume(voxels, Grid((4, 5, 6), AFFINE))
    write_image(tmp_path / f"scan{suffix}", volume)
    back = read_image(tmp_path / f"scan{suffix}")
    assert back.voxels.dtype == dtype
    np.testing.assert_array_equal(back.voxels, voxels)
    np.testing.assert_allclose(back.affine, AFFINE, atol=1e-5)


def test_channels_share_one_nifti(tmp_path):
    voxels = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    write_image(tmp_path / "scan.nii.gz", Volume(voxels, Grid((4, 5, 6), AFFINE)))
    back = read_channels([tmp_path / "scan.nii.gz"], names=["a", "b", "c"])
    np.testing.assert_array_equal(back.voxels, voxels)
    np.testing.assert_allclose(back.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize(
    "pixels",
    [
        np.arange(20, dtype=np.uint8).reshape(4, 5),
        np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000,
        np.arange(60, dtype=np.uint8).reshape(4, 5, 3),
        np.arange(20, dtype=np.float32).reshape(4, 5),
    ],
    ids=["8 bits", "16 bits", "RGB", "whole real numbers"],
)
def test_pictures_come_back_from_png(tmp_path, pixels):
    volume = from_array(pixels, dims=2)
    write_image(tmp_path / "picture.png", volume)
    np.testing.assert_array_equal(read_image(tmp_path / "picture.png").voxels, volume.voxels)


def test_labels_come_back_from_nifti(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, (1, 4, 5, 6)).astype(np.uint8)
    write_image(tmp_path / "label.nii.gz", Volume(labels, Grid((4, 5, 6), AFFINE)), is_label=True)
    np.testing.assert_array_equal(read_label(tmp_path / "label.nii.gz").voxels, labels)
    assert [path.name for path in tmp_path.iterdir()] == ["label.nii.gz"]


@pytest.mark.parametrize(
    "pixels",
    [
        np.array([[0.5, 1.0]], np.float32),
        np.array([[-1, 3]], np.int16),
        np.array([[70000, 3]], np.int32),
        np.full((2, 2, 3), 300, np.uint16),
    ],
    ids=["fractions", "negative", "too large", "deep colours"],
)
def test_values_that_png_would_change_are_refused(tmp_path, pixels):
    with pytest.raises(DataError, match="PNG"):
        write_image(tmp_path / "picture.png", from_array(pixels, dims=2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shape"), [("scan.png", (1, 4, 5, 6)), ("scan.nrrd", (2, 4, 5, 6)), ("scan.jpg", (1, 4, 5, 1))]
)
def test_formats_that_cannot_hold_the_image_are_refused(tmp_path, name, shape):
    with pytest.raises(ConfigError, match="cannot hold"):
        write_image(tmp_path / name, Volume(np.zeros(shape, np.uint8), Grid(shape[1:], np.eye(4))))
