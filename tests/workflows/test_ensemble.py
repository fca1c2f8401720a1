"""Runs put together: one folder that answers with all of them, or with the best kind of them."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medmargin.cli.app import run as command
from medmargin.datasets import open_dataset
from medmargin.datasets.phantoms import write_phantom_dataset
from medmargin.errors import CheckpointError, ConfigError, DataError
from medmargin.inference import Rule
from medmargin.runs import Run, RunConfig, read_run, write_run, write_weights
from medmargin.systems.registry import build_system, resolve_arguments
from medmargin.workflows import held_out
from medmargin.workflows.calibrate import calibrate
from medmargin.workflows.ensemble import ensemble
from medmargin.workflows.evaluate import evaluate
from medmargin.workflows.model import load
from medmargin.workflows.plan import plan_for_training


def untrained(system: str, data: Path, folder: Path, *, fold: int = 0, seed: int = 0, **settings: object) -> Run:
    """A finished run whose weights are those it would start from: enough for everything but a good answer."""
    opened = open_dataset(data)
    task = replace(opened.task, extent=64)
    if system == "plain-unet":
        task = replace(task, plan=plan_for_training(opened, scale="laptop"))
    arguments = resolve_arguments(system, "laptop", settings)
    torch.manual_seed(seed)
    built = build_system(system, task, arguments)
    sides = {part: [case.name for case in opened.split(part, fold)] for part in ("train", "val")}
    config = RunConfig(
        system=system, arguments=arguments, task=asdict(task), seed=seed, threads=1, built=built.described(),
        data={"name": opened.name, "fold": fold, **sides},
    )  # fmt: skip
    run = write_run(folder, config)
    write_weights(run.paths.weights, built.network.state_dict())
    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "Dataset901_Pictures"
    return write_phantom_dataset(folder, dims=2, cases=6, test_cases=2, raters=1)


@pytest.fixture(scope="module")
def folds(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of udeg-net."""
    folder = tmp_path_factory.mktemp("runs") / "udeg"
    for fold in (0, 1):
        untrained("udeg-net", pictures, folder / f"fold_{fold}", fold=fold, seed=fold, init="none", edge_prompts=False)
    return folder


@pytest.fixture(scope="module")
def planned(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folds of plain-unet."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    for fold in (0, 1):
        untrained("plain-unet", pictures, folder / f"fold_{fold}", fold=fold, seed=fold)
    return folder


def image_of(pictures: Path) -> Path:
    return sorted((pictures / "imagesTs").iterdir())[0]


@pytest.mark.parametrize("kind", ["folds", "planned"])
def test_an_ensemble_answers_like_its_members_given_one_by_one(
    kind: str, pictures: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue(kind)
    answer = ensemble([source], tmp_path / "out")
    assert answer["members"] == [str(source / "fold_0"), str(source / "fold_1")]
    assert answer["estimator"] == "deep ensemble, 2 answers"
    assert (answer["selection"], answer["rules"]) == (None, None)
    expected = load(source / "fold_0", members=[source / "fold_1"])(image_of(pictures))
    moved = shutil.move(tmp_path / "out", tmp_path / "elsewhere")  # it needs nothing but itself
    found = load(moved)(image_of(pictures))
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.uncertainty["epistemic"], expected.uncertainty["epistemic"])
    assert found.uncertainty["epistemic"].max() > 0
    assert found.forward_passes == 2


def test_the_other_commands_take_it_for_a_run(folds: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ensemble([folds], out)
    measured = evaluate(out, pictures)
    assert measured["run"]["members"] == ["fold_0", "fold_1"]
    assert measured["summary"]["uncertainty"]["forward_passes"] == 2
    learned = {case for fold in (0, 1) for case in read_run(folds / f"fold_{fold}").config.data["train"]}
    assert set(read_run(out).config.data["train"]) == learned
    assert "An ensemble of 2 runs" in (out / "README.md").read_text()
    with pytest.raises(DataError, match="was trained"):  # a patient held out by one fold is known to the other
        calibrate(out, pictures, split="val", fold=0)
    with pytest.raises(ConfigError, match="an ensemble cannot be a member"):
        load(folds / "fold_0", members=[out])
    with pytest.raises(ConfigError, match="an ensemble already"):
        ensemble([out], tmp_path / "again")


def test_a_calibration_belongs_to_its_members(folds: Path, tmp_path: Path) -> None:
    data = write_phantom_dataset(tmp_path / "Dataset901_Pictures", dims=2, cases=6, test_cases=4, raters=1)
    out = tmp_path / "out"
    ensemble([folds], out)
    assert not load(out).calibrated
    answer = calibrate(out, data, split="test")
    assert len(answer["data"]["weights"]) == 1
    assert load(out).calibrated
    listed = out / "ensemble.json"
    content = json.loads(listed.read_text())
    listed.write_text(json.dumps({**content, "members": content["members"][::-1]}))
    with pytest.raises(CheckpointError, match="other weights"):
        load(out)


def test_kinds_of_runs_need_data_to_choose_by(folds: Path, planned: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"its system is plain-unet.*--data"):
        ensemble([folds, planned], tmp_path / "out")
    other = untrained("udeg-net", pictures, tmp_path / "other", init="none", edge_prompts=False, lr=0.5)
    with pytest.raises(ConfigError, match=r"other arguments.*lr"):
        ensemble([folds, other.folder], tmp_path / "out")
    with pytest.raises(ConfigError, match="twice"):
        ensemble([folds, folds / "fold_1"], tmp_path / "out")
    with pytest.raises(ConfigError, match="--data"):
        ensemble([folds], tmp_path / "out", rules=True)
    with pytest.raises(ConfigError, match="prompts"):
        ensemble([untrained("u-medsam", pictures, tmp_path / "boxes", init="none").folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unfinished_and_foreign_folders_are_named(folds: Path, tmp_path: Path) -> None:
    shutil.copytree(folds, tmp_path / "folds")
    (tmp_path / "folds" / "fold_1" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"fold_1.*--resume"):
        ensemble([tmp_path / "folds"], tmp_path / "out")
    with pytest.raises(CheckpointError, match="nor a folder of folds"):
        ensemble([tmp_path], tmp_path / "out")
    with pytest.raises(ConfigError, match="holds a run already"):
        ensemble([folds], folds / "fold_0")


def test_members_of_other_images_are_refused(planned: Path, tmp_path: Path) -> None:
    shutil.copytree(planned, tmp_path / "planned")
    path = tmp_path / "planned" / "fold_1" / "config.json"
    content = json.loads(path.read_text())
    for configuration in content["task"]["plan"]["configurations"]:
        configuration["spacing"] = [2 * side for side in configuration["spacing"]]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"configuration\.spacing"):
        ensemble([tmp_path / "planned"], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"configuration\.spacing"):
        load(planned / "fold_0", members=[path.parent])


def test_the_better_kind_is_chosen_by_cross_validation(
    folds: Path, planned: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["ensemble", str(folds), str(planned), "--data", str(pictures), "--out", str(out), "--no-rules"]
    assert command([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    found = answer["selection"]
    assert json.loads((out / "selection.json").read_text()) == found
    data = open_dataset(pictures)
    for candidate, source in zip(found["candidates"], (folds, planned), strict=True):
        scores = defaultdict(list)
        for fold in (0, 1):
            measured = evaluate(source / f"fold_{fold}", pictures, split="val", fold=fold)
            for case in measured["cases"]:
                scores[case["patient"]] += [case["structures"][name]["dice"] for name in data.task.structures]
        expected = np.mean([np.mean(of_patient) for of_patient in scores.values()])
        assert candidate["dice"]["mean"] == pytest.approx(expected)
    best = max(found["candidates"], key=lambda each: each["dice"]["mean"])
    assert found["chosen"] == best["name"]
    assert [str(member) for member in answer["members"]] == best["members"]
    assert read_run(out).config.system == best["system"]
    assert (answer["rules"], answer["rules_reason"]) == (None, "not asked for")
    assert not list(out.glob(".held-out*"))
    words[words.index(str(out))] = str(tmp_path / "table")
    assert command(words) == 0
    assert "Cross-validation" in capsys.readouterr().out


def test_rules_are_chosen_kept_and_used(planned: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "one"
    answer = ensemble([planned / "fold_0"], out, data=pictures)
    rules = answer["rules"]["rules"]
    assert rules  # noise of an untrained network has pieces and holes
    assert sum(answer["rules"]["after"].values()) > sum(answer["rules"]["before"].values())
    with_rules, without = load(out), load(planned / "fold_0")
    assert with_rules.predictor.rules == tuple(Rule(**rule) for rule in rules)
    assert with_rules.predictor.uncertainty == without.predictor.uncertainty  # one member stays what it was
    image = image_of(pictures)
    assert np.any(with_rules(image).labels != without(image).labels)
    assert not (out / "members").exists()
    again = ensemble([out], tmp_path / "again", data=pictures)  # chosen anew, from answers without rules
    assert again["rules"] == answer["rules"]


def test_an_interrupted_call_predicts_nothing_twice(
    folds: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    predict = held_out._predict

    def counted(model: object, case: object, *rest: object) -> None:
        if len(asked) == 1 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        asked.append(case.name)
        predict(model, case, *rest)

    monkeypatch.setattr(held_out, "_predict", counted)
    with pytest.raises(KeyboardInterrupt):
        ensemble([folds], tmp_path / "out", data=pictures)
    (tmp_path / "again").touch()
    answer = ensemble([folds], tmp_path / "out", data=pictures)
    assert len(asked) == len(set(asked)) == answer["selection"]["cases"]


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["ensemble", "--help"]) == 0
    assert "Example: medmargin ensemble" in " ".join(capsys.readouterr().out.split())


def test_another_data_set_decides_nothing(folds: Path, tmp_path: Path) -> None:
    other = write_phantom_dataset(tmp_path / "Dataset902_Other", dims=2, cases=6, test_cases=1, raters=1, seed=1)
    with pytest.raises(ConfigError, match="trained on"):
        ensemble([folds], tmp_path / "out", data=other)
