"""NIfTI in: each rule of the reader, with files that break it."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from medmargin.errors import DataError, GeometryError
from medmargin.imaging import read_channels, read_image, read_label
from medmargin.imaging.expansion import DEFLATE_RATIO


@pytest.fixture
def cube(rng):
    return rng.integers(0, 200, (5, 6, 7)).astype(np.int16)


def test_voxels_affine_and_dtype_are_those_of_the_file(save_nifti, cube):
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    volume = read_image(save_nifti(cube, affine=affine))
    assert np.array_equal(volume.voxels[0], cube)
    assert volume.voxels.dtype == np.int16
    assert np.array_equal(volume.affine, affine)
    assert (volume.dims, volume.grid.unit, volume.format, volume.warnings) == (3, "mm", "nifti", ())


@pytest.mark.parametrize("kind", [nibabel.Nifti1Header, nibabel.Nifti2Header])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_both_byte_orders_are_read(tmp_path, cube, kind, order):
    image = (nibabel.Nifti2Image if kind is nibabel.Nifti2Header else nibabel.Nifti1Image)(
        cube, np.eye(4), kind(endianness=order)
    )
    nibabel.save(image, tmp_path / "scan.nii")
    volume = read_image(tmp_path / "scan.nii")
    assert np.array_equal(volume.voxels[0], cube)
    assert volume.voxels.dtype.isnative


def test_the_scaling_of_the_header_is_applied(tmp_path, cube):
    image = nibabel.Nifti1Image(cube, np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    nibabel.save(image, tmp_path / "scan.nii")
    volume = read_image(tmp_path / "scan.nii")
    assert volume.voxels.dtype == np.float32
    assert np.allclose(volume.voxels[0], cube * 0.5 - 1024)


def test_rgb_voxels_become_three_channels(tmp_path, rng):
    colours = rng.integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    structured = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(structured, np.eye(4)), tmp_path / "scan.nii")
    assert np.array_equal(read_image(tmp_path / "scan.nii").voxels, np.moveaxis(colours, -1, 0))


def test_two_axes_are_a_picture(save_nifti, rng):
    values = rng.integers(0, 9, (4, 5)).astype(np.uint8)
    volume = read_image(save_nifti(values))
    assert (volume.dims, volume.voxels.shape) == (2, (1, 4, 5, 1))


def test_complex_voxels_are_refused(save_nifti, cube):
    with pytest.raises(DataError, match="complex"):
        read_image(save_nifti(cube.astype(np.complex64)))


def test_row_03_singular_affine_is_refused(save_nifti, cube):
    path = save_nifti(cube, srow_x=[0, 0, 0, 0], srow_y=[0, 0, 0, 0], srow_z=[0, 0, 0, 0])
    with pytest.raises(GeometryError, match="singular"):
        read_image(path)


def test_row_05_small_disagreement_of_the_forms_is_told_and_the_sform_used(save_nifti, cube):
    path = save_nifti(cube, sform_code=1, qform_code=1, qoffset_x=0.4)
    volume = read_image(path)
    assert np.array_equal(volume.affine, np.eye(4))
    assert "used the sform" in volume.warnings[0]


def test_row_05_disagreement_beyond_a_voxel_is_refused(save_nifti, cube):
    path = save_nifti(cube, sform_code=1, qform_code=1, qoffset_x=3.0)
    with pytest.raises(GeometryError, match=r"3\.0 voxels apart"):
        read_image(path)


def test_row_05_an_unused_form_may_say_anything(save_nifti, cube):
    assert read_image(save_nifti(cube, sform_code=1, qform_code=0, qoffset_x=900.0)).warnings == ()


def test_row_05_an_unreadable_qform_beside_a_sform_is_told(save_nifti, cube):
    path = save_nifti(cube, sform_code=1, qform_code=1, quatern_b=0.9, quatern_c=0.9, quatern_d=0.9)
    assert "qform is not readable" in read_image(path).warnings[0]


def test_the_qform_counts_where_the_sform_is_unset(tmp_path, cube):
    image = nibabel.Nifti1Image(cube, None)
    image.header.set_qform(np.diag([2.0, 2.0, -3.0, 1.0]), code=1)
    image.header["sform_code"] = 0
    nibabel.save(image, tmp_path / "scan.nii")
    assert np.allclose(read_image(tmp_path / "scan.nii").affine, np.diag([2.0, 2.0, -3.0, 1.0]))


def test_row_06_both_forms_unset_takes_the_voxel_size_and_says_so(save_nifti, cube):
    volume = read_image(save_nifti(cube, affine=np.diag([1.0, 2.0, 3.0, 1.0]), sform_code=0, qform_code=0))
    assert volume.spacing == (1.0, 2.0, 3.0)
    assert "orientation unknown" in volume.warnings[0]


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan])
def test_row_07_zero_negative_or_nan_spacing_is_refused(save_nifti, cube, size):
    for qform_code in (0, 1):
        path = save_nifti(cube, sform_code=0, qform_code=qform_code, pixdim=[1, size, 1, 1, 1, 1, 1, 1])
        with pytest.raises(GeometryError, match="spacing"):
            read_image(path)


def test_row_07_spacing_above_50_mm_is_refused(save_nifti, cube):
    with pytest.raises(GeometryError, match="larger than 50 mm"):
        read_image(save_nifti(cube, affine=np.diag([1.0, 1.0, 60.0, 1.0])))


def test_zooms_that_contradict_the_affine_are_told(save_nifti, cube):
    volume = read_image(save_nifti(cube, pixdim=[1, 3, 1, 1, 1, 1, 1, 1]))
    assert volume.spacing == (1.0, 1.0, 1.0)
    assert "contradicts the affine" in volume.warnings[0]


@pytest.mark.parametrize(("unit", "code", "factor"), [("meter", 1, 1000.0), ("micron", 3, 0.001)])
def test_row_08_other_units_are_converted_with_a_warning(save_nifti, cube, unit, code, factor):
    volume = read_image(save_nifti(cube, affine=np.diag([2.0 / factor] * 3 + [1.0]), xyzt_units=code))
    assert volume.spacing == pytest.approx((2.0, 2.0, 2.0))
    assert unit in volume.warnings[0]
    assert not any("contradicts" in warning for warning in volume.warnings)


def test_row_09_one_time_point_is_squeezed(save_nifti, cube):
    assert np.array_equal(read_image(save_nifti(cube[..., None])).voxels[0], cube)
    assert np.array_equal(read_image(save_nifti(cube[..., None, None])).voxels[0], cube)


def test_row_10_several_time_points_need_an_index(save_nifti, rng):
    values = rng.integers(0, 99, (3, 4, 5, 6)).astype(np.int16)
    path = save_nifti(values)
    with pytest.raises(DataError, match="--volume-index"):
        read_image(path)
    assert np.array_equal(read_image(path, volume_index=2).voxels[0], values[..., 2])
    with pytest.raises(DataError, match="from 0 to 5"):
        read_image(path, volume_index=6)


def test_row_10_named_channels_give_the_fourth_axis_its_meaning(save_nifti, rng):
    values = rng.integers(0, 99, (3, 4, 5, 2)).astype(np.int16)
    path = save_nifti(values)
    assert np.array_equal(read_channels([path], names=("T1", "T2")).voxels, np.moveaxis(values, -1, 0))
    with pytest.raises(DataError, match="holds 2 volumes"):
        read_channels([path], names=("T1", "T2", "FLAIR"))


def test_row_34_truncated_gzip_is_refused(save_nifti, cube):
    path = save_nifti(cube)
    data = path.read_bytes()
    for keep in (0.2, 0.6, 0.95, 1 - 4 / len(data)):
        path.write_bytes(data[: int(len(data) * keep)])
        with pytest.raises(DataError, match=path.name):
            read_image(path)
    assert path.stat().st_size == len(data) - 4  # kept


def test_row_34_a_flipped_bit_is_found_by_the_checksum(save_nifti, rng):
    path = save_nifti(rng.integers(0, 200, (16, 16, 16)).astype(np.uint8))
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # inside the CRC itself: every byte unpacks
    path.write_bytes(data)
    with pytest.raises(DataError, match="CRC"):
        read_image(path)


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii"])
def test_row_34_trailing_junk_is_refused(save_nifti, cube, name):
    path = save_nifti(cube, name=name)
    path.write_bytes(path.read_bytes() + b"junk")
    with pytest.raises(DataError):
        read_image(path)
    inside = path.with_name("inside.nii.gz")
    inside.write_bytes(gzip.compress(gzip.decompress(save_nifti(cube).read_bytes()) + b"junk"))
    with pytest.raises(DataError, match="data follow"):
        read_image(inside)


def test_row_34_truncated_plain_file_is_refused(save_nifti, cube):
    path = save_nifti(cube, name="scan.nii")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="more than the file"):
        read_image(path)


def test_row_35_impossible_size_is_refused_before_memory_is_spent(save_nifti, cube):
    path = save_nifti(cube, dim=[3, 32000, 32000, 32000, 1, 1, 1, 1])
    with pytest.raises(DataError, match=r"claims \(32000, 32000, 32000\)"):
        read_image(path)


@pytest.mark.parametrize("dim", [[3, 0, 6, 7], [3, -5, 6, 7], [0, 5, 6, 7], [9, 5, 6, 7], [1, 5, 1, 1]])
def test_row_35_impossible_dimensions_are_refused(save_nifti, cube, dim):
    with pytest.raises(DataError):
        read_image(save_nifti(cube, dim=[*dim, 1, 1, 1, 1]))


def test_row_36_decompression_bomb_is_refused_before_memory_is_spent(save_nifti, cube):
    side = 700  # 327 MiB
    path = save_nifti(cube.astype(np.uint8), dim=[3, side, side, side, 1, 1, 1, 1])
    path.write_bytes(path.read_bytes() + b"\0" * (side**3 // DEFLATE_RATIO))
    with pytest.raises(DataError, match="decompression bomb"):
        read_image(path)


def test_row_37_not_gzipped_is_read_by_content_with_a_warning(save_nifti, cube):
    path = save_nifti(cube)
    path.write_bytes(gzip.decompress(path.read_bytes()))
    volume = read_image(path)
    assert np.array_equal(volume.voxels[0], cube)
    assert "not gzip-packed" in volume.warnings[0]
    plain = save_nifti(cube, name="plain.nii")
    plain.write_bytes(gzip.compress(plain.read_bytes()))
    assert "is gzip-packed" in read_image(plain).warnings[0]


def test_half_of_a_pair_is_refused(tmp_path, cube):
    nibabel.save(nibabel.Nifti1Pair(cube, np.eye(4)), tmp_path / "scan.hdr")
    with pytest.raises(DataError, match=r"\.hdr/\.img pair"):
        read_image(tmp_path / "scan.hdr")


def test_whole_numbers_stored_as_real_ones_are_labels(data_root):
    label = read_label(data_root / "Dataset004_Hippocampus/labelsTr/hippocampus_003.nii.gz")
    assert label.voxels.dtype.kind == "i"
    assert set(np.unique(label.voxels)) == {0, 1, 2}
    assert label.warnings == ()


def test_real_images_equal_what_nibabel_reads(data_root):
    for path in sorted((data_root / "Dataset004_Hippocampus/imagesTr").glob("*_01*.nii.gz")):
        volume, image = read_image(path), nibabel.load(path)
        assert np.array_equal(volume.voxels[0], np.asanyarray(image.dataobj))
        assert np.array_equal(volume.affine, image.affine)
