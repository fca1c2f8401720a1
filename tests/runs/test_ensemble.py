"""The folder of an ensemble: whole members, each the one that was put there, or a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from medmargin.errors import CheckpointError
from medmargin.runs import EnsembleRun, Run, RunConfig, copy_run, open_run, write_ensemble, write_run, write_weights

CONFIG = RunConfig(system="udeg-net", arguments={"lr": 1e-3}, task={"structures": {"organ": 1}}, seed=0, threads=1)


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Run]:
    found = {}
    for seed in (0, 1):
        run = write_run(tmp_path / f"run_{seed}", CONFIG.model_copy(update={"seed": seed}))
        write_weights(run.paths.weights, {"w": torch.full((2,), float(seed))})
        found[f"fold_{seed}"] = run
    return found


def test_members_come_back_whole_and_in_order(runs: dict[str, Run], tmp_path: Path) -> None:
    written = write_ensemble(tmp_path / "out", CONFIG, runs)
    for run in runs.values():  # the copy needs nothing of them
        run.paths.weights.unlink()
    found = open_run(tmp_path / "out")
    assert isinstance(found, EnsembleRun)
    assert found == written
    assert [member.config.seed for member in found.members] == [0, 1]
    assert [float(member.weights()["w"][0]) for member in found.members] == [0.0, 1.0]
    with pytest.raises(CheckpointError, match="no weights of its own"):
        found.weights()


def test_an_ordinary_run_is_opened_as_one(runs: dict[str, Run], tmp_path: Path) -> None:
    assert open_run(runs["fold_0"].folder) == runs["fold_0"]
    copy = copy_run(runs["fold_1"], tmp_path / "copy")
    assert not isinstance(open_run(copy.folder), EnsembleRun)
    assert copy.paths.weights.read_bytes() == runs["fold_1"].paths.weights.read_bytes()


def test_a_member_that_was_exchanged_is_refused(runs: dict[str, Run], tmp_path: Path) -> None:
    found = write_ensemble(tmp_path / "out", CONFIG, runs)
    write_weights(found.members[1].paths.weights, {"w": torch.full((2,), 7.0)})  # sound, but another one
    with pytest.raises(CheckpointError, match="fold_1"):
        open_run(tmp_path / "out")
    found.members[1].paths.weights.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        open_run(tmp_path / "out")


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "..", "", ".hidden"])
def test_a_list_that_leads_out_of_the_folder_is_refused(name: str, runs: dict[str, Run], tmp_path: Path) -> None:
    found = write_ensemble(tmp_path / "out", CONFIG, runs)
    content = json.loads(found.paths.weights.read_text())
    content["members"][0]["name"] = name
    found.paths.weights.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="damaged"):
        open_run(tmp_path / "out")


@pytest.mark.parametrize("text", ["", "[]", '{"members": []}', '{"format": 2, "members": []}'])
def test_a_damaged_list_is_refused(text: str, runs: dict[str, Run], tmp_path: Path) -> None:
    found = write_ensemble(tmp_path / "out", CONFIG, runs)
    found.paths.weights.write_text(text)
    with pytest.raises(CheckpointError, match="damaged"):
        open_run(tmp_path / "out")


def test_damaged_weights_are_never_copied(runs: dict[str, Run], tmp_path: Path) -> None:
    content = bytearray(runs["fold_1"].paths.weights.read_bytes())
    content[-1] ^= 1
    runs["fold_1"].paths.weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        write_ensemble(tmp_path / "out", CONFIG, runs)
    with pytest.raises(CheckpointError, match="not a run folder"):
        open_run(tmp_path / "out")
