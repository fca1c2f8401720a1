"""`medmargin data`: exit codes, one JSON object on stdout, examples in every help text."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest

from medmargin.cli.app import run

COMMANDS = ("check", "fix", "convert", "split", "get", "phantom")


@pytest.fixture
def toy(tmp_path):
    """A data set of three sound cases of two patients."""
    folder = tmp_path / "Dataset001_Toy"
    label = np.zeros((9, 8, 7), np.uint8)
    label[2:6, 2:6, 2:5] = 1
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in range(3):
        image = np.random.default_rng(number).normal(100, 20, label.shape).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / "imagesTr" / f"case_{number}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), folder / "labelsTr" / f"case_{number}.nii.gz")
    content = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    (folder / "attributes.csv").write_text("case,patient\ncase_0,A\ncase_1,A\ncase_2,B\n")
    return folder


def _shift_label(folder):
    path = folder / "labelsTr" / "case_0.nii.gz"
    affine = np.eye(4)
    affine[0, 3] = 2.0
    nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(path).dataobj), affine), path)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command, capsys):
    assert run(["data", command, "--help"]) == 0
    assert f"Example: medmargin data {command}" in capsys.readouterr().out


def test_a_sound_set_is_checked_with_exit_0(toy, capsys):
    assert run(["data", "check", str(toy)]) == 0
    output = capsys.readouterr().out
    assert "3 cases read" in output
    assert "0 errors (E), 0 warnings (W)" in output


def test_a_faulty_set_ends_with_its_table_and_exit_3(toy, capsys):
    _shift_label(toy)
    assert run(["data", "check", str(toy)]) == 3
    output = capsys.readouterr().out
    assert "1 errors (E)" in output
    assert "case_0" in output[output.index("1 errors (E)") :]


def test_json_is_one_object_and_keeps_the_exit_code(toy, capsys):
    _shift_label(toy)
    assert run(["data", "check", str(toy), "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["faults"][0]["repair"] == "--resample-labels"


def test_a_data_set_that_is_not_there_is_one_line_and_exit_3(tmp_path, capsys):
    assert run(["data", "check", str(tmp_path / "absent")]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "looked for" in captured.err
    assert "Traceback" not in captured.err


def test_what_check_finds_fix_repairs(toy, tmp_path, capsys):
    _shift_label(toy)
    assert run(["data", "fix", str(toy), "--out", str(tmp_path / "fixed"), "--resample-labels", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["repaired"]) == ["case_0"]
    assert run(["data", "check", str(tmp_path / "fixed")]) == 0


def test_cases_that_cannot_be_repaired_are_listed_with_exit_6(toy, tmp_path, capsys):
    (toy / "labelsTr" / "case_1.nii.gz").write_bytes(b"")
    assert run(["data", "fix", str(toy), "--out", str(tmp_path / "fixed"), "--map-label", "1=1"]) == 6
    assert "NOT repaired" in capsys.readouterr().out


@pytest.mark.parametrize("options", [[], ["--map-label", "255"], ["--map-label", "a=b"]])
def test_a_repair_without_or_with_a_wrong_order_is_exit_2(toy, tmp_path, options):
    assert run(["data", "fix", str(toy), "--out", str(tmp_path / "fixed"), *options]) == 2
    assert not (tmp_path / "fixed").exists()


@pytest.mark.parametrize("layout", ["nnunet", "msd", "npz", "manifest"])
def test_conversion_writes_a_set_that_passes_the_check(toy, tmp_path, layout, capsys):
    assert run(["data", "convert", str(toy), "--to", layout, "--out", str(tmp_path / "new"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == ["case_0", "case_1", "case_2"]
    assert run(["data", "check", str(tmp_path / "new")]) == 0


def test_a_partial_conversion_is_exit_6(toy, tmp_path):
    (toy / "imagesTr" / "case_1_0000.nii.gz").write_bytes(b"")
    assert run(["data", "convert", str(toy), "--to", "msd", "--out", str(tmp_path / "new")]) == 6
    assert (tmp_path / "new" / "imagesTr" / "case_2.nii.gz").exists()


def test_splits_are_drawn_by_patient_and_read_back(toy, tmp_path, capsys):
    file = tmp_path / "split.json"
    assert run(["data", "split", str(toy), "--out", str(file), "--fractions", "train=0.6,test=0.4", "--json"]) == 0
    capsys.readouterr()
    sides = json.loads(file.read_text())
    assert sorted(map(sorted, sides.values())) == [["case_0", "case_1"], ["case_2"]]
    assert run(["data", "check", str(toy), "--split", str(file)]) == 0
    file.write_text(json.dumps({"train": ["case_0"], "test": ["case_1"]}))
    assert run(["data", "check", str(toy), "--split", str(file)]) == 3


def test_fractions_that_are_no_numbers_are_exit_2(toy, tmp_path):
    assert run(["data", "split", str(toy), "--out", str(tmp_path / "s.json"), "--fractions", "train=most"]) == 2


def test_the_phantom_passes_its_own_check(tmp_path, capsys):
    words = ["--dims", "2", "--cases", "10", "--test-cases", "1", "--raters", "1"]
    assert run(["data", "phantom", "--out", str(tmp_path / "phantom"), *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == str(tmp_path / "phantom")
    assert run(["data", "check", str(tmp_path / "phantom")]) == 0


def test_an_unknown_download_is_exit_2_and_uses_no_network(tmp_path, capsys):
    assert run(["data", "get", "liver", "--out", str(tmp_path)]) == 2
    assert "can get: hippocampus" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_sets_are_found_by_name(toy, monkeypatch):
    monkeypatch.setenv("MEDMARGIN_DATA", str(toy.parent))
    assert run(["data", "check", "Toy"]) == 0
    shutil.rmtree(toy)
    assert run(["data", "check", "Toy"]) == 3
