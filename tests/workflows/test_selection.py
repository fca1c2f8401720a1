"""The better candidate wins, by patients; the cheaper one where they are equal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from medmargin.datasets import Case, Task
from medmargin.errors import DataError
from medmargin.runs import Run, RunConfig
from medmargin.workflows.held_out import StoredAnswer
from medmargin.workflows.selection import Candidate, select

TASK = Task("Toy", ("MRI",), {"organ": 1})


def candidate(name: str, weights: int = 1) -> Candidate:
    config = RunConfig(system="udeg-net", arguments={}, task={}, seed=0, threads=1, built={"weights": weights})
    return Candidate(name, (Run(Path(name), config),), TASK)


def stored(folder: Path, name: str, right: Mapping[str, int], *, patient: str | None = None) -> list[StoredAnswer]:
    """Answers that find `right` of 10 true voxels and no other: Dice 2 right / (10 + right)."""
    answers = []
    for case, found in right.items():
        file = folder / f"{name}_{case}.npz"
        truth, labels = np.ones((10, 1, 1), np.uint8), (np.arange(10) < found).astype(np.uint8)[:, None, None]
        np.savez_compressed(file, truth=truth, labels=labels, seconds=2.0)
        answers.append(StoredAnswer(Case(case, patient or case, ()), file))
    return answers


def test_the_higher_mean_dice_wins(tmp_path: Path) -> None:
    scores = {"small": {f"c{k}": 4 + k % 2 for k in range(8)}, "large": {f"c{k}": 7 + k % 3 for k in range(8)}}
    answers = {name: stored(tmp_path, name, found) for name, found in scores.items()}
    found = select([candidate("small", 1), candidate("large", 9)], answers, TASK)
    assert found["chosen"] == "large"
    by_name = {each["name"]: each for each in found["candidates"]}
    expected = np.mean([2 * right / (10 + right) for right in scores["large"].values()])
    assert by_name["large"]["dice"]["mean"] == pytest.approx(expected)
    low, high = by_name["large"]["dice"]["ci95"]
    assert low < expected < high
    (pair,) = found["differences"]
    gap = by_name["large"]["dice"]["mean"] - by_name["small"]["dice"]["mean"]
    assert (pair["first"], pair["second"]) == ("large", "small")
    assert pair["difference"]["mean"] == pytest.approx(gap)
    assert pair["p"] == pytest.approx(2 / 2**8)


def test_equal_ones_are_decided_by_the_cost(tmp_path: Path) -> None:
    answers = {name: stored(tmp_path, name, {"a": 5, "b": 6}) for name in ("costly", "cheap")}
    found = select([candidate("costly", 100), candidate("cheap", 10)], answers, TASK)
    assert found["chosen"] == "cheap"
    assert "as good as costly" in found["reason"]


def test_only_cases_that_all_were_validated_on_are_compared(tmp_path: Path) -> None:
    answers = {"one": stored(tmp_path, "one", {"a": 5, "b": 10}), "two": stored(tmp_path, "two", {"a": 6, "c": 0})}
    found = select([candidate("one"), candidate("two")], answers, TASK)
    assert (found["chosen"], found["cases"], found["left_out"]) == ("two", 1, ["b", "c"])
    assert found["candidates"][0]["dice"]["ci95"] is None
    answers = {"one": stored(tmp_path, "one", {"a": 5}), "two": stored(tmp_path, "two", {"c": 6})}
    with pytest.raises(DataError, match="same folds"):
        select([candidate("one"), candidate("two")], answers, TASK)


def test_a_patient_counts_once_and_a_case_of_several_runs_with_their_mean(tmp_path: Path) -> None:
    twice = stored(tmp_path, "x", {"a": 10, "b": 10}, patient="p") + stored(tmp_path, "y", {"c": 0})
    twice += stored(tmp_path, "z", {"c": 10})  # a second run of the same case
    found = select([candidate("one")], {"one": twice}, TASK)
    assert (found["cases"], found["patients"]) == (3, 2)
    assert found["candidates"][0]["dice"]["mean"] == pytest.approx((1.0 + 0.5) / 2)
    assert found["reason"] == "the only candidate"
