"""Layouts into one another and back: voxels, grids, patients, attributes and splits stay."""

from __future__ import annotations

import json
from itertools import pairwise

import nibabel
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat
from PIL import Image

from medmargin.datasets.check import check_dataset
from medmargin.datasets.convert import convert_dataset
from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.loading import load_case
from medmargin.errors import ConfigError, DataError


@pytest.fixture
def oblique(volumes):
    """A data set with an oblique, anisotropic grid, attributes, test cases and folds."""
    volumes(3)
    folder = volumes(1, part="Ts")
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(z=np.deg2rad(20)) @ np.diag([1.0, 1.0, -3.0])
    affine[:3, 3] = (5, -9, 2.5)
    for path in folder.rglob("*.nii.gz"):
        image = nibabel.load(path)
        voxels = np.asarray(image.dataobj)
        moved = nibabel.Nifti1Image(voxels.astype(np.int16) if "images" in str(path) else voxels, affine)
        moved.header.set_xyzt_units("mm")
        nibabel.save(moved, path)
    (folder / "attributes.csv").write_text(
        'case,patient,sex\ncase_0,A,F\ncase_1,A,F\ncase_2,B,M\ntest_0,C,"M, old"\n'
    )
    sides = ["case_0", "case_1"], ["case_2"]
    folds = [{"train": train, "val": val} for train, val in (sides, sides[::-1])]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    return folder


def _assert_equal(one, other, *, orientation=True):
    assert one.task.structures == other.task.structures
    assert one.task.channels == other.task.channels
    assert (one.name, one.task.dims, one.task.unit) == (other.name, other.task.dims, other.task.unit)
    for cases, twins in ((one.cases, other.cases), (one.test_cases, other.test_cases)):
        assert [(case.name, case.patient) for case in cases] == [(twin.name, twin.patient) for twin in twins]
        for case, twin in zip(cases, twins, strict=True):
            assert {**twin.attributes, "patient": ""} == {**case.attributes, "patient": ""}
            (image, label), (image_twin, label_twin) = load_case(case, one.task), load_case(twin, other.task)
            np.testing.assert_array_equal(image_twin.voxels, image.voxels)
            np.testing.assert_array_equal(label_twin.voxels, label.voxels)
            np.testing.assert_allclose(image_twin.spacing, image.spacing, rtol=1e-6)
            if orientation:
                assert image_twin.voxels.dtype == image.voxels.dtype
                assert image_twin.grid.matches(image.grid)
    assert [dict(fold) for fold in other.splits.folds] == [dict(fold) for fold in one.splits.folds]


@pytest.mark.parametrize(
    "chain", [("msd", "nnunet"), ("manifest", "nnunet"), ("manifest", "msd", "manifest"), ("nnunet",)], ids="-".join
)
def test_volumes_survive_every_way_round(oblique, tmp_path, chain):
    source = open_dataset(oblique)
    current = source
    for step, layout in enumerate(chain):
        report = convert_dataset(current, tmp_path / f"step_{step}", layout)
        assert report.failed == {}
        assert sorted(report.written) == ["case_0", "case_1", "case_2", "test_0"]
        current = open_dataset(tmp_path / f"step_{step}")
        assert current.layout == layout
        assert check_dataset(current).errors == ()
        _assert_equal(source, current)


def test_several_channels_survive_the_decathlons_fourth_axis(volumes, sound_image, tmp_path):
    folder = volumes(1, channel_names={"0": "T1", "1": "T2"})
    image = nibabel.Nifti1Image(sound_image(9), np.diag([1.0, 1.0, 2.5, 1.0]))
    nibabel.save(image, folder / "imagesTr" / "case_0_0001.nii.gz")
    source = open_dataset(folder)
    for layout, after in pairwise(["nnunet", "msd", "manifest", "nnunet"]):
        convert_dataset(open_dataset(folder), tmp_path / after / layout, after)
        folder = tmp_path / after / layout
    _assert_equal(source, open_dataset(folder))


@pytest.mark.parametrize("rgb", [False, True])
@pytest.mark.parametrize("layout", ["npz", "manifest", "nnunet"])
def test_pictures_survive_every_layout(pictures, tmp_path, rgb, layout):
    source = open_dataset(pictures(2, rgb=rgb))
    convert_dataset(source, tmp_path / "there", layout)
    there = open_dataset(tmp_path / "there")
    _assert_equal(source, there)
    convert_dataset(there, tmp_path / "back", "nnunet")
    _assert_equal(source, open_dataset(tmp_path / "back"))


def test_challenge_files_keep_spacing_and_say_what_they_lose(oblique, tmp_path):
    source = open_dataset(oblique)
    report = convert_dataset(source, tmp_path / "npz", "npz")
    assert any("origin and orientation" in loss for loss in report.left_out)
    challenge = open_dataset(tmp_path / "npz")
    image, label = load_case(challenge.cases[0], challenge.task)
    original, truth = load_case(source.cases[0], source.task)
    np.testing.assert_allclose(image.spacing, original.spacing)
    np.testing.assert_array_equal(label.voxels, truth.voxels)
    assert image.voxels.dtype == np.uint8
    assert np.corrcoef(image.voxels.ravel(), original.voxels.ravel())[0, 1] > 0.99
    convert_dataset(challenge, tmp_path / "back", "nnunet")
    _assert_equal(challenge, open_dataset(tmp_path / "back"))


def test_unknown_spacing_stays_unknown(volumes, tmp_path):
    source = open_dataset(volumes(1, spacing_known=False))
    for layout in ("msd", "manifest", "npz", "nnunet"):
        convert_dataset(source, tmp_path / layout, layout)
        assert open_dataset(tmp_path / layout).task.unit == "px"


def test_label_values_become_contiguous(volumes, tmp_path):
    folder = volumes(1, labels={"background": 0, "organ": 1, "tumour": 7})
    path = folder / "labelsTr" / "case_0.nii.gz"
    label = nibabel.load(path)
    voxels = np.asarray(label.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.where(voxels == 2, 7, voxels).astype(np.uint8), label.affine), path)
    convert_dataset(open_dataset(folder), tmp_path / "new", "nnunet")
    assert open_dataset(tmp_path / "new").task.original_values == {"organ": 1, "tumour": 2}


def test_a_case_that_cannot_be_read_is_named_and_stops_no_other(oblique, tmp_path):
    (oblique / "imagesTr" / "case_1_0000.nii.gz").write_bytes(b"")
    report = convert_dataset(open_dataset(oblique), tmp_path / "new", "msd")
    assert list(report.failed) == ["case_1"]
    new = open_dataset(tmp_path / "new")
    assert [case.name for case in new.cases] == ["case_0", "case_2"]
    assert [case.name for case in new.split("train")] == ["case_0"]


def test_nothing_is_left_behind_where_no_case_can_be_read(volumes, tmp_path):
    folder = volumes(1)
    (folder / "imagesTr" / "case_0_0000.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match="none of 1 cases could be converted"):
        convert_dataset(open_dataset(folder), tmp_path / "new", "msd")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("layout", "message"), [("bids", "unknown layout 'bids'"), ("msd", "holds volumes only")])
def test_layouts_that_do_not_fit_are_refused(pictures, tmp_path, layout, message):
    with pytest.raises(ConfigError, match=message):
        convert_dataset(open_dataset(pictures()), tmp_path / "new", layout)
    assert not (tmp_path / "new").exists()


def test_multi_channel_volumes_do_not_fit_the_challenge(volumes, tmp_path):
    with pytest.raises(ConfigError, match="no place for 2 channels in 3-D"):
        convert_dataset(open_dataset(volumes(1, channel_names={"0": "T1", "1": "T2"})), tmp_path / "new", "npz")


def test_further_raters_are_said_to_be_left_out(pictures, tmp_path):
    folder = pictures(1)
    (folder / "labelsTr_rater2").mkdir()
    Image.new("L", (16, 12)).save(folder / "labelsTr_rater2" / "pic_0.png")
    assert convert_dataset(open_dataset(folder), tmp_path / "new", "nnunet").left_out == ("labels of further raters",)


def test_real_volumes_survive_the_way_through_the_decathlon(data_root, tmp_path):
    source = data_root / "Dataset004_Hippocampus"
    folder = tmp_path / "few"
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (folder / part).mkdir(parents=True)
        for name in ("hippocampus_001", "hippocampus_003"):
            (folder / part / f"{name}{ending}").write_bytes((source / part / f"{name}{ending}").read_bytes())
    (folder / "dataset.json").write_bytes((source / "dataset.json").read_bytes())
    convert_dataset(open_dataset(folder), tmp_path / "msd", "msd")
    convert_dataset(open_dataset(tmp_path / "msd"), tmp_path / "back", "nnunet")
    _assert_equal(open_dataset(folder), open_dataset(tmp_path / "back"))
