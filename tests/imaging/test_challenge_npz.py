"""The challenge's NPZ files, in and out, and those that lie about their content."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from medmargin.errors import DataError
from medmargin.imaging import challenge_npz, from_array, read_image, read_label, write_labels


def test_a_volume_keeps_spacing_labels_and_boxes(tmp_path, rng):
    image = from_array(rng.integers(0, 255, (7, 6, 5)).astype(np.uint8), spacing=(0.5, 0.75, 3.0))
    labels = rng.integers(0, 4, (7, 6, 5)).astype(np.uint8)
    boxes = np.array([[1, 2, 0, 4, 5, 3]])
    challenge_npz.write(tmp_path / "3D_a.npz", image, labels=labels, boxes=boxes)
    with np.load(tmp_path / "3D_a.npz") as stored:
        assert stored["imgs"].shape == (5, 6, 7)  # D, H, W
        assert stored["spacing"].tolist() == [0.5, 0.75, 3.0]  # x, y, z
    case = challenge_npz.read(tmp_path / "3D_a.npz")
    assert np.array_equal(case.image.voxels, image.voxels)
    assert case.image.spacing == (0.5, 0.75, 3.0)
    assert (case.image.dims, case.image.grid.unit) == (3, "mm")
    assert np.array_equal(case.labels.voxels[0], labels)
    assert np.array_equal(case.boxes, boxes)


def test_a_box_names_the_voxels_of_the_volume(tmp_path):
    labels = np.zeros((8, 7, 6), np.uint8)
    labels[2:5, 3:6, 1:4] = 1
    challenge_npz.write(tmp_path / "a.npz", from_array(labels), labels=labels, boxes=np.array([[2, 3, 1, 4, 5, 3]]))
    case = challenge_npz.read(tmp_path / "a.npz")
    inside = np.argwhere(case.labels.voxels[0])
    assert [*inside.min(axis=0), *inside.max(axis=0)] == case.boxes[0].tolist()


@pytest.mark.parametrize("shape", [(5, 8), (5, 8, 3), (5, 3, 3)])
def test_pictures_grey_and_colour(tmp_path, rng, shape):
    pixels = rng.integers(0, 255, shape).astype(np.uint8)
    image = from_array(pixels, dims=2)
    challenge_npz.write(tmp_path / "2D_a.npz", image, boxes=np.array([[0, 0, 2, 3]]))
    with np.load(tmp_path / "2D_a.npz") as stored:
        assert np.array_equal(stored["imgs"], pixels)
        assert "spacing" not in stored
    read = read_image(tmp_path / "2D_a.npz")
    assert np.array_equal(read.voxels, image.voxels)
    assert (read.dims, read.grid.unit) == (2, "px")


@pytest.mark.parametrize(
    "extra", [{"spacing": np.ones(3)}, {"gts": np.zeros((4, 5, 3), np.uint8)}, {"boxes": np.zeros((1, 6))}]
)
def test_a_volume_three_voxels_wide_is_no_colour_picture(tmp_path, extra):
    np.savez(tmp_path / "a.npz", imgs=np.zeros((4, 5, 3), np.uint8), **extra)
    assert challenge_npz.read(tmp_path / "a.npz").image.voxels.shape == (1, 3, 5, 4)


def test_results_are_written_as_segs_in_the_layout_of_the_image(tmp_path, rng):
    volume = from_array(rng.integers(0, 9, (7, 6, 5)).astype(np.uint8), spacing=(1, 1, 2))
    labels = rng.integers(0, 3, (7, 6, 5))
    assert write_labels(tmp_path / "a.npz", labels, volume, names={}) == [tmp_path / "a.npz"]
    with np.load(tmp_path / "a.npz") as stored:
        assert np.array_equal(stored["segs"], labels.transpose(2, 1, 0))
    read = read_label(tmp_path / "a.npz")
    assert np.array_equal(read.voxels[0], labels)
    assert read.spacing == (1, 1, 2)


def test_names_of_arrays_are_told_without_unpacking(tmp_path):
    np.savez(tmp_path / "a.npz", imgs=np.zeros((2, 2)), boxes=np.zeros((1, 4)))
    assert challenge_npz.array_names(tmp_path / "a.npz") == {"imgs", "boxes"}


@pytest.mark.parametrize(
    "arrays",
    [
        {"other": np.zeros((2, 2))},
        {"imgs": np.zeros(4)},
        {"imgs": np.zeros((2, 2, 2, 2, 2))},
        {"imgs": np.zeros((0, 2))},
        {"imgs": np.array([["a", "b"]])},
        {"imgs": np.zeros((2, 2, 2)), "spacing": np.array([1.0, 0.0, 1.0])},
        {"imgs": np.zeros((2, 2, 2)), "spacing": np.ones(2)},
        {"imgs": np.zeros((2, 2, 2)), "boxes": np.zeros((1, 5))},
    ],
)
def test_arrays_the_protocol_lacks_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match="Expected"):
        read_image(tmp_path / "a.npz")


def test_row_39_pickled_objects_are_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("executed").touch, ())

    np.savez(tmp_path / "a.npz", imgs=np.array([Trap()], dtype=object))
    with pytest.raises(DataError, match="pickled"):
        read_image(tmp_path / "a.npz")
    assert not (tmp_path / "executed").exists()


def test_row_35_a_header_that_claims_more_than_the_member_holds_is_refused(tmp_path):
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**5)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("imgs.npy", header.getvalue() + b"\0" * 64)
    with pytest.raises(DataError, match="claims"):
        read_image(tmp_path / "a.npz")


def test_row_36_a_zip_bomb_is_refused(tmp_path):
    header = io.BytesIO()
    side = 700
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (side, side, side)})
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("imgs.npy", "w") as member,
    ):
        member.write(header.getvalue())
        for _ in range(side):
            member.write(b"\0" * side * side)
    with pytest.raises(DataError, match="bomb"):
        read_image(tmp_path / "a.npz")


def test_row_34_a_truncated_archive_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", imgs=np.arange(1000).reshape(10, 10, 10))
    path = tmp_path / "a.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="damaged"):
        read_image(path)


def test_many_channels_do_not_fit(tmp_path, rng):
    with pytest.raises(DataError, match="2 channels"):
        challenge_npz.write(tmp_path / "a.npz", from_array(rng.random((2, 3, 4, 5))))
