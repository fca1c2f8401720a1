"""`medmargin calibrate`: exit codes, one JSON object on stdout, and tables for people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medmargin.cli.app import run
from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.phantoms import write_phantom_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures, and a split whose calibration side holds about eight patients."""
    folder = tmp_path_factory.mktemp("data") / "Dataset901_Pictures"
    write_phantom_dataset(folder, dims=2, cases=14, test_cases=1, raters=1)
    cases = open_dataset(folder).cases
    first, second = sorted({case.patient for case in cases})[:2]
    sides: dict[str, list[str]] = {"train": [], "val": [], "calibration": []}
    for case in cases:
        sides["train" if case.patient == first else "val" if case.patient == second else "calibration"].append(
            case.name
        )
    split = folder.parent / "split.json"
    split.write_text(json.dumps(sides), encoding="utf-8")
    return folder, split


@pytest.fixture(scope="module")
def trained(data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pictures"
    words = ["train", "u-medsam", str(data[0]), "--run", str(folder), "--steps", "2", "--scale", "laptop"]
    assert run([*words, "--set", "members=2", "--split", str(data[1])]) == 0
    return folder


def test_one_object_on_stdout_and_the_calibration_is_used(
    data: tuple[Path, Path], trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, split = data
    capsys.readouterr()
    words = ["calibrate", str(trained), str(folder), "--split-file", str(split), "--level", "0.7", "--json"]
    assert run(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"calibration", "patients", "rescaling", "before", "after", "guarantees", "refused"} <= answer.keys()
    assert Path(answer["calibration"]) == trained / "calibration.json"
    assert run(words[:-1]) == 0
    captured = capsys.readouterr()
    assert "Guaranteed at level 0.7" in captured.out
    assert "patients for the rescaling" in captured.err

    evaluation = ["evaluate", str(trained), str(folder), "--json"]
    assert run(evaluation) == 0
    assert json.loads(capsys.readouterr().out)["calibrated"]
    assert run([*evaluation, "--uncalibrated"]) == 0
    assert not json.loads(capsys.readouterr().out)["calibrated"]

    prediction = ["predict", str(trained), str(folder), "--split", "test", "--out", str(tmp_path), "--json"]
    prediction += ["--prompts-from", str(folder / "labelsTs")]
    assert run(prediction) == 0
    assert json.loads(capsys.readouterr().out)["calibrated"]
    assert run([*prediction, "--uncalibrated"]) == 0
    assert not json.loads(capsys.readouterr().out)["calibrated"]

    (trained / "calibration.json").write_text("{", encoding="utf-8")
    assert run(evaluation) == 4
    assert "calibration.json" in capsys.readouterr().err


def test_refusals_have_the_exit_codes_of_their_kind(
    data: tuple[Path, Path], trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["calibrate", str(trained), str(data[0]), "--split-file", str(data[1])]
    assert run([*words, "--split", "train"]) == 3
    assert "was trained on 1 of these patients" in capsys.readouterr().err
    assert run([*words, "--level", "1.2"]) == 2
    assert run(["calibrate", str(trained / "nowhere"), str(data[0])]) == 4


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["calibrate", "--help"]) == 0
    assert "Example: medmargin calibrate" in " ".join(capsys.readouterr().out.split())
