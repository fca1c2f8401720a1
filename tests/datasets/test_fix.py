"""Repairs go into a new folder; the source keeps every byte."""

from __future__ import annotations

import errno
import hashlib
import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from medmargin.datasets.check import check_dataset
from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.fix import Repairs, fix_dataset
from medmargin.datasets.loading import load_case
from medmargin.errors import BudgetError, ConfigError


def _bytes(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _shift_label(folder, shift):
    path = folder / "labelsTr" / "case_0.nii.gz"
    label = nibabel.load(path)
    affine = label.affine.copy()
    affine[0, 3] += shift
    nibabel.save(nibabel.Nifti1Image(np.asarray(label.dataobj), affine), path)


def test_row_22_labels_are_resampled_to_the_image_by_nearest_neighbour(volumes, sound_label, tmp_path):
    folder = volumes(2)
    (folder / "attributes.csv").write_text("case,age\ncase_0,50\n")
    _shift_label(folder, 1.4)
    before = _bytes(folder)
    report = fix_dataset(open_dataset(folder), tmp_path / "fixed", Repairs(resample_labels=True))
    assert report.repaired == {"case_0": ("label resampled to the image's grid",)}
    assert _bytes(folder) == before
    fixed = open_dataset(tmp_path / "fixed")
    assert check_dataset(fixed).faults == ()
    _, label = load_case(fixed.cases[0], fixed.task)
    assert label is not None
    np.testing.assert_array_equal(label.voxels[0, 1:], sound_label[:-1])  # 1.4 voxels: one voxel further
    after = _bytes(tmp_path / "fixed")
    assert {name for name, digest in before.items() if after[name] != digest} == {
        next(name for name in before if name.name == "case_0.nii.gz")
    }
    assert after.keys() == before.keys()


def test_row_24_values_are_mapped_all_at_once(volumes, sound_label, tmp_path):
    folder = volumes(1)
    fix_dataset(open_dataset(folder), tmp_path / "fixed", Repairs(label_map={1: 2, 2: 1}))
    fixed = open_dataset(tmp_path / "fixed")
    _, label = load_case(fixed.cases[0], fixed.task)
    assert label is not None
    np.testing.assert_array_equal(label.voxels[0], np.array([0, 2, 1])[sound_label])


def test_row_24_masks_of_0_and_255_become_usable(pictures, tmp_path):
    folder = pictures()
    for path in (folder / "labelsTr").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) * 255).save(path)
    assert len(check_dataset(folder).errors) == 2
    report = fix_dataset(open_dataset(folder), tmp_path / "fixed", Repairs(label_map={255: 1}))
    assert set(report.repaired) == {"pic_0", "pic_1"}
    assert check_dataset(tmp_path / "fixed").faults == ()


def test_row_24_challenge_files_keep_image_and_boxes(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (8, 9)).astype(np.uint8)
    mask = np.zeros((8, 9), np.uint8)
    mask[2:5, 3:7] = 255
    (tmp_path / "set").mkdir()
    np.savez_compressed(tmp_path / "set/2D_a.npz", imgs=pixels, gts=mask, boxes=np.array([[3, 2, 6, 4]]))
    content = {"channel_names": {"0": "US"}, "labels": {"lesion": 1}}
    (tmp_path / "set/dataset.json").write_text(json.dumps(content))
    fix_dataset(open_dataset(tmp_path / "set"), tmp_path / "fixed", Repairs(label_map={255: 1}))
    with np.load(tmp_path / "fixed/2D_a.npz") as fixed:
        np.testing.assert_array_equal(fixed["imgs"], pixels)
        np.testing.assert_array_equal(fixed["gts"], mask // 255)
        np.testing.assert_array_equal(fixed["boxes"], [[3, 2, 6, 4]])


def test_row_29_channels_are_resampled_to_the_first(volumes, tmp_path):
    folder = volumes(1, channel_names={"0": "T1", "1": "T2"})
    path = folder / "imagesTr" / "case_0_0001.nii.gz"
    plane = np.broadcast_to(np.arange(12, dtype=np.float32)[:, None, None], (12, 8, 7)).copy()
    affine = np.diag([1.0, 1.0, 2.5, 1.0])
    affine[0, 3] = -0.5
    nibabel.save(nibabel.Nifti1Image(plane, affine), path)
    report = fix_dataset(open_dataset(folder), tmp_path / "fixed", Repairs(resample_channels=True))
    assert report.repaired == {"case_0": ("channel 'T2' resampled to the grid of 'T1'",)}
    fixed = open_dataset(tmp_path / "fixed")
    image, _ = load_case(fixed.cases[0], fixed.task)
    np.testing.assert_allclose(image.voxels[1, :, 0, 0], np.arange(9) + 0.5)


def test_row_12_colours_become_grey(pictures, tmp_path):
    folder = pictures()
    colours = np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8)
    Image.fromarray(colours).save(folder / "imagesTr" / "pic_1_0000.png")
    report = fix_dataset(open_dataset(folder), tmp_path / "fixed", Repairs(to_gray=True))
    assert report.repaired == {"pic_1": ("colours turned into grey",)}
    assert check_dataset(tmp_path / "fixed").faults == ()


def test_a_case_that_cannot_be_repaired_is_named_and_stops_no_other(volumes, tmp_path):
    folder = volumes(2)
    _shift_label(folder, 2.0)
    (folder / "labelsTr" / "case_1.nii.gz").write_bytes(b"")
    report = fix_dataset(open_dataset(folder), tmp_path / "fixed", Repairs(resample_labels=True))
    assert set(report.repaired) == {"case_0"}
    assert list(report.failed) == ["case_1"]
    assert str(folder) in report.failed["case_1"]


def test_a_real_shifted_label_fits_after_the_repair(data_root, tmp_path):
    source = data_root / "broken/derived/origin_shift"
    folder = tmp_path / "set"
    for part, name in (("imagesTr", "origin_shift_0000.nii.gz"), ("labelsTr", "origin_shift.nii.gz")):
        (folder / part).mkdir(parents=True)
        (folder / part / name).write_bytes((source / name).read_bytes())
    (folder / "dataset.json").write_bytes((data_root / "Dataset004_Hippocampus/dataset.json").read_bytes())
    fix_dataset(open_dataset(folder), tmp_path / "fixed", Repairs(resample_labels=True))
    report = check_dataset(tmp_path / "fixed")
    assert report.errors == ()


@pytest.mark.parametrize("inside", [True, False])
def test_the_target_must_be_new_and_outside_the_source(volumes, tmp_path, inside):
    folder = volumes(1)
    target = folder / "fixed" if inside else tmp_path / "taken"
    if not inside:
        target.mkdir()
        (target / "file").write_text("")
    with pytest.raises(ConfigError, match="lies inside" if inside else "exists already"):
        fix_dataset(open_dataset(folder), target, Repairs(resample_labels=True))


def test_files_outside_the_folder_are_refused(volumes, tmp_path):
    folder = volumes(1)
    (tmp_path / "lists").mkdir()
    image, label = folder / "imagesTr" / "case_0_0000.nii.gz", folder / "labelsTr" / "case_0.nii.gz"
    (tmp_path / "lists" / "manifest.csv").write_text(f"case,image,label\na,{image},{label}\n")
    with pytest.raises(ConfigError, match="'data convert' first"):
        fix_dataset(open_dataset(tmp_path / "lists"), tmp_path / "fixed", Repairs(resample_labels=True))


def test_asking_for_nothing_is_refused():
    with pytest.raises(ConfigError, match="nothing to repair"):
        Repairs()


def test_negative_values_that_no_mapping_covers_are_refused(volumes, tmp_path):
    folder = volumes(1)
    path = folder / "labelsTr" / "case_0.nii.gz"
    label = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(-np.asarray(label.dataobj).astype(np.int16), label.affine), path)
    report = fix_dataset(open_dataset(folder), tmp_path / "fixed", Repairs(label_map={-1: 1}))
    assert "label value -2 is negative" in report.failed["case_0"]


def test_an_interrupted_repair_leaves_nothing_behind(volumes, tmp_path):
    folder = volumes(2)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fix_dataset(open_dataset(folder), tmp_path / "fixed", Repairs(resample_labels=True), progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Dataset001_Toy"]


def test_row_40_a_full_disk_stops_the_repair_and_leaves_nothing_behind(volumes, tmp_path, monkeypatch):
    folder = volumes(1)
    _shift_label(folder, 2.0)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("medmargin.datasets.fix.write_image", full)
    with pytest.raises(BudgetError, match="disk is full"):
        fix_dataset(open_dataset(folder), tmp_path / "fixed", Repairs(resample_labels=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Dataset001_Toy"]
