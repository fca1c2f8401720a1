"""CSV manifests: any files anywhere, one row per case."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from medmargin.datasets.check import check_dataset
from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.layouts import manifest
from medmargin.datasets.loading import load_case, load_image
from medmargin.errors import DataError


@pytest.fixture
def files(tmp_path, sound_image, sound_label):
    """Two scans in folders of no particular layout."""
    for number in (1, 2):
        folder = tmp_path / f"study_{number}"
        folder.mkdir()
        for name, voxels in (
            ("t1", sound_image(number)),
            ("t2", sound_image(number + 10)),
            ("mask", (sound_label == 1).astype(np.uint8) * 7),
        ):
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / f"{name}.nii.gz")
    return tmp_path


def _write(folder, text, name="manifest.csv"):
    (folder / name).write_text(text)
    return folder / name


FULL = (
    "case,patient,image,image2,label,split,sex\n"
    "a,P1,study_1/t1.nii.gz,study_1/t2.nii.gz,study_1/mask.nii.gz,train,F\n"
    "b,P2,study_2/t1.nii.gz,study_2/t2.nii.gz,study_2/mask.nii.gz,test,M\n"
)


def test_a_manifest_lists_channels_labels_patients_splits_and_attributes(files):
    dataset = open_dataset(_write(files, FULL))
    assert dataset.layout == "manifest"
    assert dataset.task.channels == ("image", "image2")
    assert dataset.task.original_values == {"label 7": 7}
    (case,) = dataset.split("train")
    assert (case.name, case.patient, case.attributes) == ("a", "P1", {"patient": "P1", "sex": "F"})
    assert [case.name for case in dataset.split("test")] == ["b"]
    image, label = load_case(case, dataset.task)
    assert image.channels == 2
    assert label is not None
    assert label.voxels.max() == 1


def test_a_folder_with_a_manifest_is_a_data_set(files):
    _write(files, FULL)
    assert open_dataset(files).name == files.name


def test_a_description_beside_it_names_channels_and_structures(files):
    content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "tumour": 7}}
    (files / "dataset.json").write_text(json.dumps(content))
    task = open_dataset(_write(files, FULL)).task
    assert (task.channels, task.structures) == (("T1", "T2"), {"tumour": 1})


def test_test_cases_alone_leave_the_folds_to_be_drawn(files):
    text = "case,image,label,split\na,study_1/t1.nii.gz,study_1/mask.nii.gz,\nb,study_2/t1.nii.gz,,test\n"
    dataset = open_dataset(_write(files, text))
    assert "drawn" in dataset.splits.source or "single patient" in dataset.splits.source
    assert [case.name for case in dataset.split("train")] == ["a"]


def test_row_28_an_empty_channel_cell_is_named(files):
    text = FULL.replace("study_1/t2.nii.gz", "")
    dataset = open_dataset(_write(files, text))
    with pytest.raises(DataError, match=r"case 'a'.*channel 'image2' is missing"):
        load_image(dataset.cases[0], dataset.task)


def test_a_real_dicom_folder_is_an_image(data_root, tmp_path):
    series = next((data_root / "dicom").rglob("HippoCrop"))
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "MRI"}, "labels": {"organ": 1}}))
    dataset = open_dataset(_write(tmp_path, f"case,image,split\na,{series},test\n"))
    image = load_image(dataset.split("test")[0], dataset.task)
    assert sorted(image.grid.shape) == [34, 40, 50]
    assert check_dataset(dataset).errors == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,image\n", "holds no case"),
        ("image,label\nx.nii.gz,y.nii.gz\n", "no column 'case'"),
        ("case,label\na,y.nii.gz\n", "no column 'image'; found case, label"),
        ("case,image\na,\n", "column 'image' is empty"),
        ("case,image,split\na,study_1/t1.nii.gz,dev\n", "split 'dev'; expected train, val"),
        ("case,image\na,study_1/t1.nii.gz\nb,photo.png\n", "lists pictures and volumes"),
        ("case,image\na,study_1/t1.nii.gz\n", "no structure found in 0 label maps"),
    ],
)
def test_wrong_manifests_are_refused(files, text, message):
    with pytest.raises(DataError, match=message):
        manifest.read(_write(files, text, "list.csv"))
