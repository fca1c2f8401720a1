"""`check_dataset` on every bad input that can reach a data set; a sound case beside the bad one stays sound.

Row numbers are those of the forty bad inputs that the toolkit promises an answer to.
"""

from __future__ import annotations

import gzip
import json
import shutil
import time

import nibabel
import numpy as np
import pytest
from PIL import Image

from medmargin.datasets.case_check import examine_case
from medmargin.datasets.check import check_dataset
from medmargin.datasets.dataset import open_dataset
from medmargin.errors import DataError

AFFINE = np.diag([1.0, 1.0, 2.5, 1.0])
SHAPE = (9, 8, 7)


@pytest.fixture
def toy(volumes):
    """A data set of a sound case 'case_1' and a case 'case_0' to break; `faults()` are those of 'case_0'."""
    return _Toy(volumes(2))


class _Toy:
    def __init__(self, folder):
        self.folder = folder
        self.image_path = folder / "imagesTr" / "case_0_0000.nii.gz"
        self.label_path = folder / "labelsTr" / "case_0.nii.gz"

    @property
    def image(self):
        return nibabel.load(self.image_path).get_fdata(dtype=np.float32)

    @property
    def label(self):
        return np.asarray(nibabel.load(self.label_path).dataobj)

    def save_image(self, voxels, affine=AFFINE, change=None):
        self._save(self.image_path, voxels, affine, change)

    def save_label(self, voxels, affine=AFFINE, change=None):
        self._save(self.label_path, voxels, affine, change)

    @staticmethod
    def _save(path, voxels, affine, change):
        image = nibabel.Nifti1Image(voxels, None)  # without affine, nibabel writes the header as it is given
        image.header.set_zooms([*np.sqrt((affine[:3, :3] ** 2).sum(axis=0)), 1.0][: voxels.ndim])
        image.header.set_sform(affine, code=1)
        image.header.set_xyzt_units("mm")
        if change is not None:
            change(image.header)
        nibabel.save(image, path)

    def report(self):
        return check_dataset(self.folder)

    def faults(self):
        """Findings about case_0 as (kind, code); the other case has none."""
        report = self.report()
        assert not [fault for fault in report.faults if fault.case not in ("case_0", None)]
        return [(fault.kind, fault.code) for fault in report.faults if fault.case == "case_0"]

    def message(self):
        return " | ".join(fault.message for fault in self.report().faults if fault.case == "case_0")


def test_a_sound_data_set_has_no_finding(volumes):
    report = check_dataset(volumes(3))
    assert report.faults == ()
    assert (report.cases, report.structures, report.empty_labels) == (3, {"organ": 3, "tumour": 3}, 0)


def test_progress_counts_every_case(volumes):
    calls = []
    check_dataset(volumes(4), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_row_1_a_few_voxels_that_are_no_numbers_are_a_warning_with_their_count(toy):
    voxels = toy.image
    voxels[0, 0, 0], voxels[1, 1, 1] = np.nan, np.inf
    toy.save_image(voxels)
    assert toy.faults() == [("W", "image")]
    assert "2 of 504 voxels are NaN or infinite" in toy.message()


def test_row_1_many_voxels_that_are_no_numbers_are_an_error(toy):
    voxels = toy.image
    voxels[0] = np.nan
    toy.save_image(voxels)
    assert toy.faults() == [("E", "image")]


def test_row_2_a_constant_image_has_no_signal(toy):
    toy.save_image(np.full(SHAPE, 7.0, np.float32))
    assert toy.faults() == [("E", "image")]
    assert "no signal" in toy.message()


def test_row_3_a_singular_affine_is_an_error(toy):
    def flatten(header):
        header["srow_x"][:] = header["srow_y"][:] = 0

    toy.save_image(toy.image, change=flatten)
    assert toy.faults() == [("E", "image")]


def test_row_4_a_sheared_grid_is_a_warning(toy):
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.8
    image, label = toy.image, toy.label
    toy.save_image(image, sheared)
    toy.save_label(label, sheared)
    assert toy.faults() == [("W", "sheared-grid")]


def test_row_5_two_placements_far_apart_are_an_error(toy):
    def contradict(header):
        shifted = AFFINE.copy()
        shifted[0, 3] = 30.0
        header.set_qform(shifted, code=1)
        header.set_sform(AFFINE, code=1)

    toy.save_image(toy.image, change=contradict)
    assert toy.faults() == [("E", "image")]
    assert "sform and qform" in toy.message()


def test_row_6_no_placement_at_all_is_a_warning(toy):
    def forget(header):
        header["sform_code"] = header["qform_code"] = 0

    image, label = toy.image, toy.label
    toy.save_image(image, change=forget)
    toy.save_label(label, change=forget)
    assert set(toy.faults()) == {("W", "image"), ("W", "label")}


@pytest.mark.parametrize("size", [0.0, np.nan, 80.0])
def test_row_7_impossible_spacing_is_an_error(toy, size):
    def place(header):
        header["srow_z"][2] = size

    toy.save_image(toy.image, change=place)
    assert toy.faults() == [("E", "image")]


def test_row_8_metres_are_converted_with_a_warning(toy):
    def in_metres(header):
        header.set_xyzt_units("meter")

    metres = np.diag([0.001, 0.001, 0.0025, 1.0])
    image, label = toy.image, toy.label
    toy.save_image(image, metres, in_metres)
    toy.save_label(label)
    assert set(toy.faults()) == {("W", "image")}
    assert "converted to mm" in toy.message()


def test_row_9_a_fourth_axis_of_one_is_accepted(toy):
    toy.save_image(toy.image[..., None])
    assert toy.faults() == []


def test_row_10_several_time_points_are_an_error(toy):
    toy.save_image(np.stack([toy.image] * 3, axis=-1))
    assert toy.faults() == [("E", "image")]
    assert "3 volumes" in toy.message()


def test_row_11_a_picture_in_a_volume_data_set_is_an_error(toy):
    toy.save_image(toy.image[:, :, 0])
    assert toy.faults() == [("E", "image")]
    assert "a 2-D image, but 'Toy' is a 3-D data set" in toy.message()


def test_row_12_colours_where_grey_is_expected_are_an_error(pictures):
    folder = pictures()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8)).save(
        folder / "imagesTr" / "pic_0_0000.png"
    )
    (fault,) = check_dataset(folder).errors
    assert (fault.case, fault.code) == ("pic_0", "image")
    assert "found 3 channels, expected 1" in fault.message


def test_row_13_a_palette_label_is_read_by_index_with_a_warning(pictures):
    folder = pictures()
    path = folder / "labelsTr" / "pic_0.png"
    indices = Image.fromarray(np.asarray(Image.open(path)), mode="P")
    indices.putpalette([0, 0, 0, 255, 0, 0])
    indices.save(path)
    report = check_dataset(folder)
    assert [(fault.kind, fault.case, fault.code) for fault in report.faults] == [("W", "pic_0", "label")]
    assert report.structures == {"lesion": 2}


def test_row_14_a_jpeg_label_is_an_error(pictures):
    folder = pictures(file_ending=".png")
    path = folder / "labelsTr" / "pic_0.png"
    Image.fromarray(np.asarray(Image.open(path)) * 255).save(path, format="JPEG")
    (fault,) = check_dataset(folder).errors
    assert (fault.case, fault.code) == ("pic_0", "label")
    assert "JPEG" in fault.message


def test_row_21_a_label_of_another_shape_is_an_error_without_repair(toy):
    toy.save_label(np.zeros((9, 8, 6), np.uint8))
    (fault,) = toy.report().errors
    assert (fault.code, fault.repair) == ("label-grid", None)
    assert "shape (9, 8, 6) vs (9, 8, 7)" in fault.message


@pytest.mark.parametrize(
    ("row", "column", "value", "what"), [(2, 2, 2.0, "spacing"), (1, 3, 12.0, "origin"), (0, 1, 0.3, "orientation")]
)
def test_row_22_a_label_elsewhere_is_an_error_that_resampling_repairs(toy, row, column, value, what):
    affine = AFFINE.copy()
    affine[row, column] = value
    toy.save_label(toy.label, affine)
    (fault,) = toy.report().errors
    assert (fault.code, fault.repair) == ("label-grid", "--resample-labels")
    assert what in fault.message


def test_row_22_differences_below_the_tolerance_are_accepted(toy):
    affine = AFFINE.copy()
    affine[0, 3] = 5e-4
    toy.save_label(toy.label, affine)
    assert toy.faults() == []


def test_row_23_fractions_in_a_label_are_an_error(toy):
    voxels = toy.label.astype(np.float32)
    voxels[3, 3, 3] = 2.5
    toy.save_label(voxels)
    assert toy.faults() == [("E", "label")]
    assert "2.5" in toy.message()


def test_row_23_rounding_errors_in_a_label_are_a_warning(toy):
    voxels = toy.label.astype(np.float64)
    voxels[voxels == 1] = 1.0000001
    toy.save_label(voxels)
    assert toy.faults() == [("W", "label")]


@pytest.mark.parametrize("value", [7, -1])
def test_row_24_unknown_label_values_are_an_error_with_their_counts(toy, value):
    voxels = toy.label.astype(np.int16)
    voxels[0, 0, :5] = value
    toy.save_label(voxels)
    (fault,) = toy.report().errors
    assert (fault.code, fault.repair) == ("label-values", "--map-label")
    assert f"{value} (5 voxels)" in fault.message


def test_row_24_masks_of_0_and_255_are_told_the_mapping(pictures):
    folder = pictures()
    path = folder / "labelsTr" / "pic_0.png"
    Image.fromarray(np.asarray(Image.open(path)) * 255).save(path)
    (fault,) = check_dataset(folder).errors
    assert (fault.code, fault.repair) == ("label-values", "--map-label 255=1")


def test_row_25_an_empty_label_is_counted_and_all_empty_ones_are_an_error(toy):
    toy.save_label(np.zeros(SHAPE, np.uint8))
    report = toy.report()
    assert (report.faults, report.empty_labels, report.structures["organ"]) == ((), 1, 1)
    shutil.copy(toy.label_path, toy.folder / "labelsTr" / "case_1.nii.gz")
    assert [(fault.kind, fault.code) for fault in toy.report().faults] == [("E", "labels-empty")]


def test_row_26_a_structure_absent_from_all_cases_is_an_error(volumes):
    folder = volumes(2, labels={"background": 0, "organ": 1, "tumour": 2, "cyst": 3})
    (fault,) = check_dataset(folder).faults
    assert (fault.kind, fault.code) == ("E", "structure-absent")
    assert "cyst" in fault.message


@pytest.mark.parametrize(("extent", "words"), [((1, 1, 1), "one voxel"), ((3, 3, 1), "one slice")])
def test_row_27_labels_of_one_voxel_or_slice_are_a_warning(toy, extent, words):
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[2 : 2 + extent[0], 2 : 2 + extent[1], 3 : 3 + extent[2]] = 1
    toy.save_label(voxels)
    assert toy.faults() == [("W", "thin-label")]
    assert words in toy.message()


def test_row_28_a_missing_channel_is_named(volumes):
    folder = volumes(2, channel_names={"0": "T1", "1": "FLAIR"})
    image = nibabel.load(folder / "imagesTr" / "case_1_0000.nii.gz")
    nibabel.save(nibabel.Nifti1Image(image.get_fdata() + 1, image.affine), folder / "imagesTr" / "case_1_0001.nii.gz")
    (fault,) = check_dataset(folder).faults
    assert (fault.kind, fault.case) == ("E", "case_0")
    assert "channel 'FLAIR' is missing" in fault.message


def test_row_29_channels_on_different_grids_are_an_error_that_resampling_repairs(volumes):
    folder = volumes(1, channel_names={"0": "T1", "1": "FLAIR"})
    image = nibabel.load(folder / "imagesTr" / "case_0_0000.nii.gz")
    coarse = nibabel.Nifti1Image(image.get_fdata()[::2], image.affine @ np.diag([2, 1, 1, 1]))
    nibabel.save(coarse, folder / "imagesTr" / "case_0_0001.nii.gz")
    (fault,) = check_dataset(folder).errors
    assert (fault.code, fault.repair) == ("channel-grids", "--resample-channels")


def test_row_30_one_image_under_two_names_is_a_warning_and_across_a_split_an_error(volumes):
    folder = volumes(3)
    image = nibabel.load(folder / "imagesTr" / "case_0_0000.nii.gz")
    repacked = nibabel.Nifti1Image(image.get_fdata(dtype=np.float64), image.affine)  # other bytes, same voxels
    nibabel.save(repacked, folder / "imagesTr" / "case_1_0000.nii.gz")
    split = folder / "splits_final.json"
    split.write_text(json.dumps([{"train": ["case_0", "case_1"], "val": ["case_2"]}]))
    (fault,) = check_dataset(folder).faults
    assert (fault.kind, fault.code) == ("W", "duplicate")
    assert "case_0, case_1" in fault.message
    split.write_text(json.dumps([{"train": ["case_0", "case_2"], "val": ["case_1"]}]))
    (fault,) = check_dataset(folder).faults
    assert (fault.kind, fault.code) == ("E", "duplicate")


def test_row_30_a_training_image_among_the_test_images_is_an_error(volumes):
    volumes(3)
    folder = volumes(2, part="Ts")
    shutil.copy(folder / "imagesTr" / "case_2_0000.nii.gz", folder / "imagesTs" / "test_1_0000.nii.gz")
    assert [(fault.kind, fault.code) for fault in check_dataset(folder).faults] == [("E", "duplicate")]


def test_row_31_a_patient_on_two_sides_is_an_error(volumes):
    folder = volumes(3)
    (folder / "attributes.csv").write_text("case,patient\ncase_0,A\ncase_1,B\ncase_2,A\n")
    (folder / "splits_final.json").write_text(
        json.dumps([{"train": ["case_0", "case_2"], "val": ["case_1"]}, {"train": ["case_0"], "val": ["case_2"]}])
    )
    (fault,) = check_dataset(folder).faults
    assert (fault.kind, fault.code) == ("E", "split")
    assert "fold 1" in fault.message
    assert "A (case_0, case_2)" in fault.message


def test_a_split_naming_an_absent_case_is_an_error(volumes):
    folder = volumes(2)
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["case_0"], "val": ["case_9"]}]))
    (fault,) = check_dataset(folder).faults
    assert (fault.kind, fault.code) == ("E", "split")
    assert "case_9" in fault.message


def test_row_34_truncated_or_altered_gzip_is_an_error_and_the_file_stays(toy):
    content = toy.image_path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0x10
    for damaged in (content[: len(content) * 6 // 10], bytes(flipped), content + b"junk"):
        toy.image_path.write_bytes(damaged)
        assert toy.faults() == [("E", "image")]
        assert toy.image_path.read_bytes() == damaged


def test_row_35_a_header_that_claims_more_than_the_file_holds_is_an_error(toy):
    raw = bytearray(gzip.decompress(toy.image_path.read_bytes()))
    raw[42:48] = np.array([32000] * 3, "<i2").tobytes()
    toy.image_path.write_bytes(gzip.compress(bytes(raw)))
    start = time.monotonic()
    assert toy.faults() == [("E", "image")]
    assert time.monotonic() - start < 5


def test_row_36_a_decompression_bomb_is_an_error(toy):
    raw = bytearray(gzip.decompress(toy.image_path.read_bytes()))
    raw[42:48] = np.array([700, 700, 700], "<i2").tobytes()
    toy.image_path.write_bytes(gzip.compress(bytes(raw)) + gzip.compress(bytes(300 << 20), 9))
    assert toy.faults() == [("E", "image")]


@pytest.mark.parametrize("content", [b"", b"not an image at all"])
def test_row_37_empty_files_and_text_are_errors_for_image_and_label(toy, content):
    toy.label_path.write_bytes(content)
    assert toy.faults() == [("E", "label")]
    toy.image_path.write_bytes(content)
    assert toy.faults() == [("E", "image")]


def test_row_37_a_folder_in_place_of_an_image_is_an_error(toy):
    toy.image_path.unlink()
    toy.image_path.mkdir()
    assert toy.faults() == [("E", "image")]


def test_row_40_names_with_any_letters_are_read(volumes):
    folder = volumes(1)
    for path in (folder / "imagesTr" / "case_0_0000.nii.gz", folder / "labelsTr" / "case_0.nii.gz"):
        path.rename(path.with_name(path.name.replace("case_0", "Müller 医学 #1")))
    assert check_dataset(folder).faults == ()


def test_images_without_label_and_labels_without_image_are_reported(volumes):
    folder = volumes(3)
    (folder / "labelsTr" / "case_1.nii.gz").unlink()
    (folder / "imagesTr" / "case_2_0000.nii.gz").unlink()
    shutil.copy(folder / "imagesTr" / "case_0_0000.nii.gz", folder / "imagesTr" / "unnumbered.nii.gz")
    report = check_dataset(folder)
    assert [(fault.kind, fault.code, fault.case) for fault in report.faults] == [
        ("E", "image-name", None),
        ("W", "image-without-label", "case_1"),
        ("E", "label-without-image", "case_2"),
    ]


def test_unknown_spacing_of_volumes_is_a_warning(volumes):
    (fault,) = check_dataset(volumes(1, spacing_known=False)).faults
    assert (fault.kind, fault.code) == ("W", "spacing-unknown")


def test_a_folder_without_images_is_an_error(volumes):
    (fault,) = check_dataset(volumes(0)).faults
    assert (fault.kind, fault.code) == ("E", "no-cases")


def test_a_data_set_that_cannot_be_opened_raises(tmp_path):
    with pytest.raises(DataError, match="no data set layout recognised"):
        check_dataset(tmp_path)


def test_reports_are_plain_json(toy):
    toy.label_path.write_bytes(b"")
    content = json.loads(json.dumps(toy.report().to_dict()))
    assert (content["errors"], content["warnings"], content["cases"]) == (1, 0, 2)
    assert content["faults"][0]["case"] == "case_0"


REAL_FAULTS = {
    "shape_mismatch": ("E", "label-grid"),
    "affine_mismatch": ("E", "label-grid"),
    "origin_shift": ("E", "label-grid"),
    "truncated_gzip": ("E", "image"),
    "empty_file": ("E", "image"),
    "unknown_label_value": ("E", "label-values"),
    "fractional_label": ("E", "label"),
    "nan_inf_image": ("W", "image"),
    "constant_image": ("E", "image"),
    "empty_label": None,
    "four_dimensional_image": None,
    "flipped_axis_same_world": ("W", "label"),
    "not_gzipped": ("W", "image"),
    "text_as_label": ("E", "label"),
}


@pytest.fixture
def broken_set(data_root, tmp_path):
    """All real and derived broken files as one data set, beside one sound case."""
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
    source = data_root / "Dataset004_Hippocampus"
    shutil.copy(source / "dataset.json", tmp_path)
    shutil.copy(source / "imagesTr/hippocampus_038_0000.nii.gz", tmp_path / "imagesTr")
    shutil.copy(source / "labelsTr/hippocampus_038.nii.gz", tmp_path / "labelsTr")
    for folder in (data_root / "broken/derived").iterdir():
        for path in folder.iterdir():
            shutil.copy(path, tmp_path / ("imagesTr" if path.name.endswith("_0000.nii.gz") else "labelsTr"))
    for path in (data_root / "broken/image_without_label").iterdir():
        shutil.copy(path, tmp_path / "imagesTr")
    for path in (data_root / "broken/label_without_image").iterdir():
        shutil.copy(path, tmp_path / "labelsTr")
    return tmp_path


def test_every_real_broken_file_is_found_and_nothing_else(broken_set):
    report = check_dataset(broken_set)
    found = {}
    for fault in report.faults:
        found.setdefault(fault.case, []).append((fault.kind, fault.code))
    expected = {case: [fault] for case, fault in REAL_FAULTS.items() if fault is not None}
    assert found == {
        **expected,
        "hippocampus_118": [("W", "image-without-label")],
        "hippocampus_010": [("E", "label-without-image")],
        "hippocampus_281": [("E", "label-without-image")],
    }
    assert report.empty_labels == 1


def test_real_data_sets_are_sound_and_checked_in_seconds(data_root):
    start = time.monotonic()
    report = check_dataset(data_root / "Dataset004_Hippocampus")
    assert time.monotonic() - start < 60
    assert (report.cases, report.structures, report.faults) == (200, {"Anterior": 200, "Posterior": 200}, ())


@pytest.mark.parametrize("name", ["901_BUSI", "902_KvasirSEG", "903_STARE", "906_CovidCXR", "908_ACDC"])
def test_real_sets_have_no_errors(data_root, name):
    report = check_dataset(data_root / f"Dataset{name}")
    assert report.errors == ()
    assert {fault.code for fault in report.warnings} <= {"spacing-unknown"}


def test_findings_of_one_case_carry_what_the_comparison_needs(volumes):
    dataset = open_dataset(volumes(1))
    found = examine_case(dataset.cases[0], dataset.task)
    assert found.voxels == {"organ": 48, "tumour": 32}
    assert found.content is not None
    assert len(found.content) == 64
