"""Labels and maps to files: what is stored, and what viewers find in the header."""

from __future__ import annotations

import errno

import nibabel
import numpy as np
import pytest

from medmargin.errors import BudgetError, ConfigError, DataError, GeometryError
from medmargin.imaging import from_array, read_image, read_label, write_labels, write_map
from medmargin.imaging.write import COMPACT_STEP


@pytest.fixture
def labels(brain, rng):
    return rng.integers(0, 3, brain.grid.shape).astype(np.int64)


@pytest.fixture
def picture(rng):
    return from_array(rng.integers(0, 255, (6, 9)).astype(np.uint8))


def test_labels_take_the_smallest_unsigned_type(tmp_path, brain, labels):
    for highest, dtype in ((2, np.uint8), (300, np.uint16), (70000, np.uint32)):
        path, *_ = write_labels(tmp_path / "seg.nii.gz", labels * highest // 2, brain, names={})
        assert nibabel.load(path).get_data_dtype() == dtype
        assert np.array_equal(read_label(path).voxels[0], labels * highest // 2)


def test_a_new_nifti_has_equal_forms_with_code_1(tmp_path, brain, labels):
    path, *_ = write_labels(tmp_path / "seg.nii.gz", labels, brain, names={})
    header = nibabel.load(path).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
    assert np.allclose(header.get_qform(), header.get_sform(), atol=1e-5)
    assert header.get_xyzt_units()[0] == "mm"
    assert header.get_intent()[0] == "label"


@pytest.mark.parametrize("codes", [(0, 2), (1, 1), (3, 0), (0, 0)])
def test_the_placement_of_the_source_is_copied_bit_by_bit(tmp_path, save_nifti, rng, codes):
    affine = np.array([[-0.7, 0.01, 0, 31], [0.01, 0.7, 0.1, -9], [0, -0.1, 2.9, 4], [0, 0, 0, 1]])
    source = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine)
    source.header.set_qform(affine, 1, strip_shears=True)
    fields = {
        name: source.header[name]
        for name in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    }
    if codes[0] and codes[1]:
        source.header.set_sform(source.header.get_qform(), 1)
        fields |= {name: source.header[name] for name in ("srow_x", "srow_y", "srow_z")}
    values = rng.integers(0, 9, (4, 5, 6)).astype(np.int16)
    image = read_image(save_nifti(values, affine=affine, qform_code=codes[0], sform_code=codes[1], **fields))
    path, *_ = write_labels(tmp_path / "seg.nii.gz", values, image, names={})
    written = read_image(path)
    assert np.array_equal(written.affine, image.affine)
    assert tuple(int(written.header[name]) for name in ("qform_code", "sform_code")) == codes


def test_names_in_the_header_of_the_source_stay_behind(tmp_path, save_nifti, labels):
    source = read_image(save_nifti(labels.astype(np.int16), db_name=b"DOE^JOHN", descrip=b"DOE^JOHN", aux_file=b"doe"))
    path, *_ = write_labels(tmp_path / "seg.nii", labels, source, names={})
    assert b"doe" not in path.read_bytes().lower()


def test_placement_converted_from_metres_is_written_in_mm(tmp_path, save_nifti, labels):
    source = read_image(save_nifti(labels.astype(np.int16), affine=np.diag([0.002, 0.002, 0.003, 1]), xyzt_units=1))
    path, *_ = write_labels(tmp_path / "seg.nii.gz", labels, source, names={})
    assert read_image(path).spacing == pytest.approx((2, 2, 3))
    assert read_image(path).warnings == ()


def test_equal_voxels_give_equal_bytes(tmp_path, brain, labels):
    first, *_ = write_labels(tmp_path / "a.nii.gz", labels, brain, names={})
    second, *_ = write_labels(tmp_path / "b.nii.gz", labels, brain, names={})
    assert first.read_bytes() == second.read_bytes()


def test_tables_for_viewers_stand_beside_the_label_map(tmp_path, brain, labels):
    paths = write_labels(tmp_path / "seg.nii.gz", labels, brain, names={1: "liver"})
    assert [path.name for path in paths] == ["seg.nii.gz", "seg_labels.txt", "seg.ctbl"]
    assert all(path.exists() for path in paths)


def test_maps_are_exact_in_32_bits(tmp_path, brain, rng):
    values = rng.normal(size=brain.grid.shape).astype(np.float32)
    [path] = write_map(tmp_path / "map.nii.gz", values, brain, description="total uncertainty (nats)")
    assert np.array_equal(read_image(path).voxels[0], values)
    assert nibabel.load(path).header["descrip"].item() == b"total uncertainty (nats)"


@pytest.mark.parametrize("suffix", [".nii.gz", ".npz"])
def test_compact_maps_hold_steps_of_a_250th_in_one_byte(tmp_path, brain, rng, suffix):
    values = rng.random(brain.grid.shape).astype(np.float32)
    [path] = write_map(tmp_path / f"prob{suffix}", values, brain, description="probability", compact=True)
    read = read_image(path).voxels[0]
    assert np.abs(read - values).max() <= COMPACT_STEP / 2 + 1e-6
    if suffix == ".nii.gz":
        image = nibabel.load(path)
        assert image.get_data_dtype() == np.uint8
        assert image.dataobj.slope == pytest.approx(COMPACT_STEP)


def test_compact_maps_are_smaller(tmp_path):
    k = np.linspace(-3, 3, 40)
    bump = np.exp(-(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None] ** 2)).astype(np.float32)
    like = from_array(bump)
    [full] = write_map(tmp_path / "full.nii.gz", bump, like, description="p")
    [compact] = write_map(tmp_path / "compact.nii.gz", bump, like, description="p", compact=True)
    assert compact.stat().st_size * 3 < full.stat().st_size


def test_compact_nats_above_one_need_two_bytes(tmp_path, brain):
    values = np.full(brain.grid.shape, np.log(3), np.float32)
    [path] = write_map(tmp_path / "u.nii.gz", values, brain, description="nats", compact=True)
    assert nibabel.load(path).get_data_dtype() == np.uint16
    assert np.allclose(read_image(path).voxels, np.log(3), atol=COMPACT_STEP / 2 + 1e-6)


@pytest.mark.parametrize("compact", [False, True])
def test_maps_of_pictures_come_back_from_png(tmp_path, picture, rng, compact):
    values = rng.random(picture.grid.shape).astype(np.float32)
    [path] = write_map(tmp_path / "prob.png", values, picture, description="probability", compact=compact)
    read = read_image(path)
    assert read.voxels.dtype == np.float32
    assert np.abs(read.voxels[0] - values).max() <= (COMPACT_STEP if compact else 1 / 65535) / 2 + 1e-6


@pytest.mark.parametrize("suffix", [".png", ".nii.gz", ".npz", ".nrrd"])
def test_labels_of_pictures_come_back(tmp_path, picture, rng, suffix):
    for highest in (3, 900):
        labels = rng.integers(0, highest, picture.grid.shape)
        path, *_ = write_labels(tmp_path / f"seg{suffix}", labels, picture, names={1: "lesion"})
        read = read_label(path)
        assert np.array_equal(read.voxels[0], labels)
        assert read.dims == 2


def test_a_png_holds_no_more_than_16_bits(tmp_path, picture):
    with pytest.raises(DataError, match="65535"):
        write_labels(tmp_path / "seg.png", np.full(picture.grid.shape, 70000), picture, names={})


@pytest.mark.parametrize("name", ["seg.jpg", "seg.tif", "seg.mhd", "seg.dcm", "seg", "seg.txt"])
def test_row_37_unknown_suffixes_are_refused(tmp_path, brain, labels, name):
    with pytest.raises(ConfigError, match=r"Expected \.nii\.gz"):
        write_labels(tmp_path / name, labels, brain, names={})
    assert not list(tmp_path.iterdir())


def test_volumes_do_not_fit_into_a_png(tmp_path, brain, labels):
    with pytest.raises(ConfigError, match="does not fit"):
        write_labels(tmp_path / "seg.png", labels, brain, names={})


def test_arrays_of_another_shape_are_refused(tmp_path, brain, labels):
    with pytest.raises(GeometryError, match="same grid"):
        write_labels(tmp_path / "seg.nii.gz", labels[1:], brain, names={})


@pytest.mark.parametrize("wrong", [lambda x: x * 0.5, lambda x: x - 1])
def test_fractional_and_negative_labels_are_refused(tmp_path, brain, labels, wrong):
    with pytest.raises(DataError, match="whole numbers >= 0"):
        write_labels(tmp_path / "seg.nii.gz", wrong(labels), brain, names={})


def test_maps_that_are_not_finite_or_do_not_fit_are_refused(tmp_path, brain):
    values = np.zeros(brain.grid.shape)
    with pytest.raises(DataError, match="not finite"):
        write_map(tmp_path / "map.nii.gz", values + np.nan, brain, description="p")
    with pytest.raises(DataError, match="negative"):
        write_map(tmp_path / "map.nii.gz", values * 0 - 1, brain, description="p", compact=True)
    with pytest.raises(DataError, match="too large for compact"):
        write_map(tmp_path / "map.nii.gz", values * 0 + 300, brain, description="p", compact=True)


def test_row_40_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path, brain, labels, monkeypatch):
    path, *_ = write_labels(tmp_path / "seg.nii.gz", labels, brain, names={})
    before = path.read_bytes()

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nibabel.Nifti1Image, "to_stream", full)
    with pytest.raises(BudgetError, match="disk is full"):
        write_labels(path, labels + 1, brain, names={})
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_row_40_non_ascii_and_overlong_paths(tmp_path, brain, labels):
    path, *_ = write_labels(tmp_path / "Müller 脳" / "ségmentation.nii.gz", labels, brain, names={1: "Hirn Ä"})
    assert np.array_equal(read_label(path).voxels[0], labels)
    with pytest.raises(BudgetError, match="too long"):
        write_labels(tmp_path / ("x" * 300 + ".nii.gz"), labels, brain, names={})
    with pytest.raises(DataError, match="cannot be read"):
        read_label(tmp_path / ("x" * 300 + ".nii.gz"))
