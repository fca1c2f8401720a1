"""The way in for every format: content against names, channels, labels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medmargin.errors import DataError, GeometryError
from medmargin.imaging import challenge_npz, from_array, read_channels, read_image, read_label


@pytest.fixture
def values(rng):
    return rng.integers(0, 50, (4, 5, 6)).astype(np.int16)


@pytest.mark.parametrize("name", ["scan", "scan.bin", "scan.img.nii.gz", "SCAN.NII.GZ"])
def test_content_decides_where_the_name_says_nothing(save_nifti, values, name):
    path = save_nifti(values, name="a.nii.gz")
    assert np.array_equal(read_image(path.rename(path.with_name(name))).voxels[0], values)


def test_row_37_a_name_that_contradicts_the_content_is_refused(tmp_path, save_nifti, values):
    png = tmp_path / "a.nii.gz"
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(png, format="PNG")
    with pytest.raises(DataError, match=r"promises NIfTI.*content is a picture"):
        read_image(png)
    nifti = save_nifti(values, name="b.nii.gz")
    with pytest.raises(DataError, match=r"promises a picture.*content is NIfTI"):
        read_image(nifti.rename(tmp_path / "b.png"))


@pytest.mark.parametrize("name", ["a.nii.gz", "a.png", "a.dcm", "a.npz", "a.nrrd", "a"])
def test_row_37_empty_missing_and_folder(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(DataError, match="no such file"):
        read_image(path)
    path.touch()
    with pytest.raises(DataError, match="empty"):
        read_image(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="folder"):
        read_label(path)
    with pytest.raises(DataError, match="no DICOM images"):
        read_image(path)


@pytest.mark.parametrize("content", [b"this is text\n", b"\x00\x01\x02" * 50, b"\x1f\x8b junk"])
def test_row_37_unknown_content_is_described(tmp_path, content):
    for name in ("a.nii.gz", "a"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: "):
            read_label(tmp_path / name)


def test_row_23_fractional_labels_are_refused_with_count_and_values(save_nifti, values):
    wrong = values.astype(np.float32)
    wrong[0, 0, :3] = 2.5
    with pytest.raises(DataError, match=r"3 voxels.*\(2\.5\)"):
        read_label(save_nifti(wrong))


def test_row_23_rounding_errors_are_rounded_with_a_warning(save_nifti, values):
    near = values.astype(np.float64) % 3 + 1
    near[0, 0, 0] = 1.0000001
    label = read_label(save_nifti(near))
    assert label.voxels.dtype == np.int32
    assert label.voxels[0, 0, 0, 0] == 1
    assert "1 label values" in label.warnings[0]


def test_row_23_nan_and_huge_labels_are_refused(save_nifti, values):
    for bad in (np.nan, np.inf, 1e12):
        wrong = values.astype(np.float64)
        wrong[0, 0, 0] = bad
        with pytest.raises(DataError):
            read_label(save_nifti(wrong))


def test_row_24_negative_labels_are_passed_on_for_the_plan_to_judge(save_nifti, values):
    assert read_label(save_nifti(values - 10)).voxels.min() == values.min() - 10


def test_channels_are_stacked_in_order(save_nifti, values):
    paths = [save_nifti(values + step, name=f"c{step}.nii.gz") for step in (0, 1, 2)]
    volume = read_channels(paths, names=("T1", "T2", "FLAIR"))
    assert np.array_equal(volume.voxels, np.stack([values, values + 1, values + 2]))


def test_row_28_a_missing_channel_is_named(save_nifti, values):
    path = save_nifti(values)
    with pytest.raises(DataError, match=r"gone\.nii\.gz: channel 'T2' is missing"):
        read_channels([path, path.with_name("gone.nii.gz")], names=("T1", "T2"))
    with pytest.raises(DataError, match="found 2 channels, expected 3: T1, T2, FLAIR"):
        read_channels([path, path], names=("T1", "T2", "FLAIR"))
    with pytest.raises(DataError, match="no channel files"):
        read_channels([])


def test_row_29_channels_on_different_grids_are_refused(save_nifti, values):
    first = save_nifti(values, name="a.nii.gz")
    shifted = np.eye(4)
    shifted[0, 3] = 5
    with pytest.raises(GeometryError, match=r"b\.nii\.gz: its grid differs.*origin"):
        read_channels([first, save_nifti(values, name="b.nii.gz", affine=shifted)])


def test_a_channel_file_holds_one_channel(tmp_path, rng):
    Image.fromarray(rng.integers(0, 9, (4, 4, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="holds 3 channels"):
        read_channels([tmp_path / "a.png"] * 2)
    assert read_channels([tmp_path / "a.png"] * 2, to_gray=True).channels == 2


def test_warnings_of_all_channels_are_kept(save_nifti, values):
    paths = [save_nifti(values, name=f"{name}.nii.gz", sform_code=0, qform_code=0) for name in "ab"]
    assert [warning[-19:] for warning in read_channels(paths).warnings] == ["orientation unknown"] * 2


def test_labels_are_not_read_from_dicom(save_series):
    file = next(save_series([0.0, 1.0]).iterdir())
    with pytest.raises(DataError, match="labels are not read from DICOM"):
        read_label(file)


def test_labels_are_read_from_a_challenge_file(tmp_path, values):
    image = from_array(values)
    challenge_npz.write(tmp_path / "a.npz", image, labels=values % 3)
    assert np.array_equal(read_label(tmp_path / "a.npz").voxels[0], values % 3)
