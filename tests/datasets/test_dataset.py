"""Opening data sets by path and by name, and their splits."""

from __future__ import annotations

import json
import shutil

import pytest

from medmargin.datasets.dataset import open_dataset
from medmargin.errors import ConfigError, DataError


def test_a_folder_is_opened_with_its_cases_and_task(volumes):
    dataset = open_dataset(volumes(3, name="Toy set"))
    assert (dataset.name, dataset.layout, dataset.task.dims, dataset.task.unit) == ("Toy set", "nnunet", 3, "mm")
    assert dataset.task.structures == {"organ": 1, "tumour": 2}
    assert [case.name for case in dataset.cases] == ["case_0", "case_1", "case_2"]
    assert dataset.test_cases == ()


@pytest.mark.parametrize("name", ["Dataset001_Toy", "Toy", "toy", "1", "001"])
def test_names_are_looked_up_in_the_data_folder(volumes, monkeypatch, name):
    folder = volumes()
    monkeypatch.setenv("MEDMARGIN_DATA", str(folder.parent))
    assert open_dataset(name).folder == folder


def test_an_unknown_name_is_answered_with_what_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDMARGIN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=rf"the path Liver and a folder 'Liver', .* in {tmp_path} \(MEDMARGIN_DATA\)"):
        open_dataset("Liver")
    monkeypatch.delenv("MEDMARGIN_DATA")
    with pytest.raises(DataError, match="MEDMARGIN_DATA, which is not set"):
        open_dataset("Liver")


def test_an_ambiguous_name_lists_the_candidates(volumes, monkeypatch):
    folder = volumes()
    shutil.copytree(folder, folder.parent / "Task07_Toy")
    monkeypatch.setenv("MEDMARGIN_DATA", str(folder.parent))
    with pytest.raises(DataError, match="fits several data sets"):
        open_dataset("Toy")


def test_an_unknown_layout_is_refused_with_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"no data set layout recognised.*imagesTr.*MSD.*manifest\.csv.*\.npz"):
        open_dataset(tmp_path)
    (tmp_path / "scan.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match="expected a folder or a CSV manifest"):
        open_dataset(tmp_path / "scan.nii.gz")


def test_without_a_split_file_five_folds_are_drawn_by_patient(volumes):
    dataset = open_dataset(volumes(10))
    assert len(dataset.splits.folds) == 5
    assert len(dataset.split("train", 4)) == 8
    assert len(dataset.split("val", 4)) == 2
    assert "drawn by patient" in dataset.splits.source


def test_the_folders_own_folds_are_used(volumes):
    folder = volumes(3)
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["case_2"], "val": ["case_0", "case_1"]}]))
    dataset = open_dataset(folder)
    assert [case.name for case in dataset.split("train")] == ["case_2"]
    assert [case.name for case in dataset.split("val")] == ["case_0", "case_1"]


def test_a_given_split_file_wins_and_may_name_all_four_sides(volumes, tmp_path):
    folder = volumes(4)
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["case_0"], "val": ["case_1"]}]))
    split = {"train": ["case_3"], "val": ["case_2"], "calibration": ["case_1"], "test": ["case_0"]}
    (tmp_path / "mine.json").write_text(json.dumps(split))
    dataset = open_dataset(folder, split_file=tmp_path / "mine.json")
    assert {part: [case.name for case in dataset.split(part)] for part in split} == split


def test_an_absent_side_lists_the_available_ones(volumes):
    with pytest.raises(DataError, match="no split 'calibration'; available: train, val"):
        open_dataset(volumes(3)).split("calibration")


def test_a_split_that_names_unknown_cases_is_refused(volumes):
    folder = volumes(2)
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["case_0", "gone"], "val": ["case_1"]}]))
    dataset = open_dataset(folder)
    with pytest.raises(DataError, match=r"'Toy' does not hold \(1\), e\.g\. gone; expected names such as case_0"):
        dataset.split("train")
    assert [case.name for case in dataset.split("val")] == ["case_1"]


def test_test_images_are_the_test_side(volumes):
    volumes(2)
    dataset = open_dataset(volumes(3, part="Ts"))
    assert [case.name for case in dataset.split("test")] == ["test_0", "test_1", "test_2"]
    assert len(dataset.split("train")) == 1


def test_a_folder_with_nothing_but_test_images_is_legal(volumes):
    dataset = open_dataset(volumes(2, part="Ts"))
    assert dataset.cases == ()
    assert [case.label is not None for case in dataset.split("test")] == [True, True]
    with pytest.raises(DataError, match="no split 'train'; available: test"):
        dataset.split("train")


def test_row_31_a_patient_in_training_and_test_is_refused(volumes):
    volumes(2)
    folder = volumes(1, part="Ts")
    (folder / "attributes.csv").write_text("case,patient\ncase_0,A\ncase_1,B\ntest_0,A\n")
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["case_0"], "val": ["case_1"]}]))
    with pytest.raises(DataError, match=r"'train' and 'test' share patients \(1\): A \(case_0, test_0\)"):
        open_dataset(folder).split("train")


def test_patients_come_from_a_pattern_in_the_names(volumes, tmp_path):
    dataset = open_dataset(volumes(12), patient_pattern=r"case_(\d)")
    assert {case.patient for case in dataset.cases} == {str(digit) for digit in range(10)}
    assert next(case.patient for case in dataset.cases if case.name == "case_11") == "1"


@pytest.mark.parametrize(("pattern", "message"), [("(", "not a regular expression"), ("scan", "does not match")])
def test_a_wrong_patient_pattern_is_refused(volumes, pattern, message):
    with pytest.raises(ConfigError, match=message):
        open_dataset(volumes(1), patient_pattern=pattern)


def test_real_data_sets_open_with_patients_and_folds(data_root, monkeypatch):
    monkeypatch.setenv("MEDMARGIN_DATA", str(data_root))
    acdc = open_dataset("ACDC")
    assert (len(acdc.cases), len({case.patient for case in acdc.cases}), acdc.task.unit) == (40, 20, "px")
    assert len(acdc.split("train")) + len(acdc.split("val")) == 40
    stare = open_dataset("STARE")
    assert stare.task.channels == ("R", "G", "B")
    assert all(len(case.raters) == 1 for case in stare.cases)
    assert open_dataset("BUSI").cases[0].text == "breast lesion"
    assert all(case.scribbles for case in acdc.cases)
