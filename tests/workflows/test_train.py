from __future__ import annotations

import json
from pathlib import Path

import pytest

from medmargin.errors import ConfigError, DataError
from medmargin.runs import read_run
from medmargin.workflows.labelled import labelled_subset
from medmargin.workflows.train import train


def test_run_folder_tells_everything(trained: Path) -> None:
    config = read_run(trained).config
    assert config.system == "u-medsam"
    assert config.scale == "laptop"
    assert config.budget == {"steps": 4}
    assert config.arguments["init"] == "none"
    assert config.built["weights"] > 3_000_000
    assert len(config.data["train"]) + len(config.data["val"]) == 8
    assert not set(config.data["train"]) & set(config.data["val"])
    assert config.versions["torch"]
    assert "Not a medical device" in (trained / "README.md").read_text()
    steps = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    logged = {name for record in steps for name in record}
    assert {"loss/mse", "loss/dice", "loss/ce", "loss/sd", "weight/mse", "sharpness"} <= logged
    assert {"val/dice", "val/box", "val/ellipse"} <= logged


def test_the_seed_decides_every_weight(phantoms: Path, tmp_path: Path) -> None:
    weights = {}
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        train(
            "u-medsam", phantoms, run=tmp_path / name, steps=1, seed=seed, scale="laptop",
            settings={"init": "none", "rho": 0.0}, progress=False,
        )  # fmt: skip
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert weights["one"] == weights["again"]
    assert weights["one"] != weights["other"]


def test_an_occupied_folder_is_refused(trained: Path, phantoms: Path) -> None:
    with pytest.raises(ConfigError, match="--resume"):
        train("u-medsam", phantoms, run=trained, steps=4, scale="laptop", settings={"init": "none"}, progress=False)


def test_a_resumed_run_keeps_its_arguments(trained: Path, phantoms: Path) -> None:
    with pytest.raises(ConfigError, match=r"arguments\.rho was 0\.05 and is 0\.1"):
        train(
            "u-medsam", phantoms, run=trained, steps=4, scale="laptop", settings={"init": "none", "rho": 0.1},
            resume=True, progress=False,
        )  # fmt: skip


@pytest.mark.parametrize("budget", [{"steps": 2, "minutes": 1}, {"steps": 0}, {"epochs": -1}])
def test_impossible_budgets_are_refused(budget: dict, phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="budget"):
        train("u-medsam", phantoms, run=tmp_path / "run", scale="laptop", settings={"init": "none"}, **budget)
    assert not (tmp_path / "run").exists()


def test_labelled_shares_are_nested_and_by_patient(phantoms: Path) -> None:
    from medmargin.datasets import open_dataset

    cases = open_dataset(phantoms).cases
    few, more = (labelled_subset(cases, share, seed=1) for share in (0.3, 0.7))
    assert {case.name for case in few} < {case.name for case in more}
    left_out = {case.patient for case in cases} - {case.patient for case in few}
    assert not left_out & {case.patient for case in few}


def test_labelled_file_must_name_training_cases(phantoms: Path, tmp_path: Path) -> None:
    from medmargin.datasets import open_dataset

    cases = open_dataset(phantoms).cases
    (tmp_path / "names.txt").write_text(f"{cases[0].name}\n")
    assert labelled_subset(cases, tmp_path / "names.txt", seed=0) == (cases[0],)
    (tmp_path / "names.json").write_text(json.dumps(["nobody"]))
    with pytest.raises(DataError, match="nobody"):
        labelled_subset(cases, tmp_path / "names.json", seed=0)
    with pytest.raises(ConfigError, match="share"):
        labelled_subset(cases, "1.5", seed=0)
