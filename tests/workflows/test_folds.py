"""Several folds in one command: each is the run that it would have been alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medmargin.cli.app import run as command
from medmargin.datasets import open_dataset
from medmargin.datasets.phantoms import write_phantom_dataset
from medmargin.errors import ConfigError
from medmargin.learning import TrainingOutcome
from medmargin.runs import read_run
from medmargin.workflows import folds as room
from medmargin.workflows.folds import parse_folds, train_folds
from medmargin.workflows.plan import plan_for_training
from medmargin.workflows.train import train

TINY = {"batch_size": 2, "precision": "32-true"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "Dataset901_Pictures"
    return write_phantom_dataset(folder, dims=2, cases=6, test_cases=2, raters=1)


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "folds"
    found = train_folds(
        "plain-unet", pictures, run=folder, folds="0,2", steps=1, seed=3, scale="laptop", settings=TINY, progress=False
    )
    assert [(each.fold, each.run.name) for each in found] == [(0, "fold_0"), (2, "fold_2")]
    return folder


def test_a_fold_is_the_run_it_would_be_alone(trained: Path, pictures: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    train("plain-unet", pictures, run=alone, steps=1, seed=5, fold=2, scale="laptop", settings=TINY, progress=False)
    assert read_run(trained / "fold_2").config.differences(read_run(alone).config) == []
    assert (trained / "fold_2" / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()


def test_resuming_leaves_finished_folds_alone_and_trains_the_others(
    trained: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "fold_0" / "model.safetensors").stat().st_mtime_ns
    words = [
        "train",
        "plain-unet",
        str(pictures),
        "--run",
        str(trained),
        "--folds",
        "0,1",
        "--steps",
        "1",
        "--seed",
        "3",
    ]
    words += ["--scale", "laptop", *(f"--set={name}={value}" for name, value in TINY.items())]
    assert command(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert command([*words, "--resume", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["folds"]
    assert first == {"fold": 0, "run": str(trained / "fold_0"), "finished_before": True}
    assert (second["fold"], second["steps"], second["stopped_by"]) == (1, 1, "steps")
    assert (trained / "fold_0" / "model.safetensors").stat().st_mtime_ns == before
    assert read_run(trained / "fold_1").config.seed == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 4}, "seed was 3 and is 4"),
        ({"steps": 2}, "budget.steps was 1"),
        ({"settings": {**TINY, "lr": 0.1}}, "lr"),
    ],
)
def test_folds_of_one_training_are_trained_alike(changed: dict, message: str, trained: Path, pictures: Path) -> None:
    asked = {"steps": 1, "seed": 3, "settings": TINY, **changed}
    with pytest.raises(ConfigError, match=message):
        train_folds(
            "plain-unet", pictures, run=trained, folds="0,", scale="laptop", resume=True, progress=False, **asked
        )


def test_folds_share_the_plan_that_each_would_make(trained: Path, pictures: Path) -> None:
    made = json.loads((trained / "plan.json").read_text())
    assert made == plan_for_training(open_dataset(pictures), scale="laptop").to_dict()
    for fold in (0, 2):
        assert read_run(trained / f"fold_{fold}").config.task["plan"] == made


def test_a_signal_ends_all_of_it(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, object]] = []

    def interrupted(*words: object, fold: int, plan: object, **options: object) -> TrainingOutcome:
        asked.append((fold, plan))
        return TrainingOutcome(1, 1.0, {}, "signal" if fold == 1 else "steps")

    monkeypatch.setattr(room, "train", interrupted)
    words = ["train", "udeg-net", str(pictures), "--run", str(tmp_path / "run"), "--folds", "5"]
    assert command(words) == 130
    assert asked == [(0, None), (1, None)]  # this system has no plan


def test_folds_that_the_split_does_not_have_are_refused(pictures: Path) -> None:
    data = open_dataset(pictures)
    assert parse_folds("5", data) == [0, 1, 2, 3, 4]
    assert parse_folds("3,1", data) == [3, 1]
    for text in ("3", "6", "0,5", "1,1", "-1,0", "all", ",", ""):
        with pytest.raises(ConfigError, match="--folds"):
            parse_folds(text, data)


def test_one_fold_or_several(pictures: Path, tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["train", "plain-unet", str(pictures), "--run", str(tmp_path), "--fold", "1", "--folds", "5"]) == 2
    assert "give one of them" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="single run"):
        train_folds("plain-unet", pictures, run=trained / "fold_0", folds="5", steps=1)
