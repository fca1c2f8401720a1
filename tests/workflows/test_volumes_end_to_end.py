"""The journeys of the planned systems through the command line, on data sets that differ in what they hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medmargin.cli.app import run as command
from medmargin.datasets import open_dataset
from medmargin.datasets.phantoms import write_phantom_dataset
from medmargin.runs import read_run

Write = Callable[..., Path]
MIRRORED = ("--set", "mirrors=true", "--set", "augmentation=nnunet")
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("pictures", "ignore", "channels")]


def answer(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert command([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def train_words(data: Path, run: Path, *further: str, system: str = "plain-unet", steps: int = 2) -> list[str]:
    return ["train", system, str(data), "--run", str(run), "--scale", "laptop", "--steps", str(steps), *further]


@pytest.fixture(scope="module", params=["plain", "regions", *SLOW])
def trained(request: pytest.FixtureRequest, toy_volumes: Write, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A kind, its data set and a run of two steps."""
    kind, folder = request.param, tmp_path_factory.mktemp("journey")
    if kind == "pictures":
        data = write_phantom_dataset(folder / "Dataset001_Pictures", dims=2, cases=6, test_cases=5, raters=1)
    else:
        data = toy_volumes(folder / f"Dataset001_{kind}", kind=kind)
    assert command(train_words(data, folder / "run")) == 0
    return kind, data, folder / "run"


def test_the_run_holds_the_plan_it_followed(trained: tuple) -> None:
    kind, data, run = trained
    config = read_run(run).config
    plan = config.task["plan"]
    assert plan["chosen"] == ("2d" if kind == "pictures" else "3d_fullres")
    assert {*config.data["train"], *config.data["val"]} == {case.name for case in open_dataset(data).cases}
    assert config.task["ignore"] == (3 if kind == "ignore" else None)
    assert len(plan["normalisation"]) == (2 if kind == "channels" else len(config.task["channels"]))
    card = (run / "README.md").read_text()
    assert "validation patches at the plan's spacing" in card
    assert "network resolution" not in card


def test_answers_lie_on_the_grids_of_the_files(trained: tuple, tmp_path: Path) -> None:
    kind, data, run = trained
    words = ["predict", str(run), str(data), "--split", "test", "--out", str(tmp_path), "--probabilities"]
    assert command(words) == 0
    for case in open_dataset(data).split("test"):
        if kind == "pictures":
            assert (tmp_path / f"{case.name}_seg.png").exists()
            continue
        image = nibabel.load(case.images[0])
        found = sorted(tmp_path.glob(f"{case.name}_*.nii.gz"))
        assert len(found) >= 4  # labels, uncertainty, and maps of the structures
        for file in found:
            assert nibabel.load(file).shape[:3] == image.shape, file
            np.testing.assert_allclose(nibabel.load(file).affine, image.affine, atol=1e-4, err_msg=str(file))
        labels = np.asanyarray(nibabel.load(tmp_path / f"{case.name}_seg.nii.gz").dataobj)
        assert set(np.unique(labels)) <= {0, 1, 2}  # never the value of ignored voxels


def test_measured_calibrated_and_measured_again(
    trained: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, data, run = trained
    before = answer(["evaluate", str(run), str(data)], capsys)
    assert not before["calibrated"]
    names = {"regions": {"whole", "core"}, "pictures": {"organ", "lesion", "tube"}}.get(kind, {"ball", "seed"})
    assert set(before["cases"][0]["structures"]) == names
    learned = answer(["calibrate", str(run), str(data), "--split", "test", "--level", "0.6"], capsys)
    assert learned["patients"]["rescaling"] >= 2
    report = tmp_path / "report.html"
    after = answer(["evaluate", str(run), str(data), "--report", str(report)], capsys)
    assert after["calibrated"]
    assert report.stat().st_size > 10_000
    assert before["summary"]["uncertainty"]["ece"] != after["summary"]["uncertainty"]["ece"]


@pytest.mark.slow
@pytest.mark.parametrize("system", ["plain-unet", "residual-unet"])
def test_bright_balls_are_learned(
    system: str, toy_volumes: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is trained, prepared, predicted and brought back to five kinds of grids is the ball, and not its mirror."""
    data = toy_volumes(tmp_path / "Dataset001_Balls", cases=10, test_cases=5)
    assert command(train_words(data, tmp_path / "run", "--set", "warmup_steps=5", system=system, steps=80)) == 0
    measured = answer(["evaluate", str(tmp_path / "run"), str(data)], capsys)
    dice = [case["structures"]["ball"]["dice"] for case in measured["cases"]]
    assert min(dice) > 0.7, dice  # one that is mirrored on its way back reaches half


@pytest.mark.slow
def test_two_folds_answer_together(toy_volumes: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = toy_volumes(tmp_path / "Dataset001_Balls", cases=10, test_cases=2)
    folds, joined = tmp_path / "folds", tmp_path / "joined"
    assert command(train_words(data, folds, "--folds", "0,1", *MIRRORED, steps=3)) == 0
    found = answer(["ensemble", str(folds), "--out", str(joined), "--data", str(data)], capsys)
    assert found["estimator"] == "deep ensemble, 16 answers"  # both members under all mirrors, as each alone
    assert found["selection"]["cases"] == 4
    measured = answer(["evaluate", str(joined), str(data)], capsys)
    assert measured["summary"]["uncertainty"]["forward_passes"] == 16
    assert command(["predict", str(joined), str(data), "--split", "test", "--out", str(tmp_path / "out")]) == 0
    assert list((tmp_path / "out").glob("*_uncertainty_epistemic.nii.gz"))
