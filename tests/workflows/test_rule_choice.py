"""Rules are taken where they help on held-out cases, and hurt no structure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medmargin.datasets import Case, Task
from medmargin.errors import CheckpointError
from medmargin.inference import Rule
from medmargin.runs import Run, RunConfig
from medmargin.workflows.held_out import HeldOut, StoredAnswer, _box
from medmargin.workflows.rule_choice import _ruled, choose_rules
from medmargin.workflows.rules import ChosenRules, attach_rules, write_rules

TASK = Task("Toy", ("MRI",), {"organ": 1, "lesion": 2})
ALONE = ((0,), (1,))
Store = Callable[..., list[StoredAnswer]]
labels_of = arrays(np.uint8, (4, 5, 6), elements=st.integers(0, 2))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    def stored(*pairs: tuple[np.ndarray, np.ndarray]) -> list[StoredAnswer]:
        answers = []
        for number, (truth, labels) in enumerate(pairs):
            file = tmp_path / f"{number}.npz"
            np.savez_compressed(file, truth=truth, labels=labels, seconds=1.0)
            answers.append(StoredAnswer(Case(f"case_{number}", f"case_{number}", ()), file))
        return answers

    return stored


def organ() -> np.ndarray:
    truth = np.zeros((9, 9, 9), np.uint8)
    truth[1:6, 1:6, 1:6] = 1
    return truth


def test_a_stray_piece_and_a_hole_are_found(store: Store) -> None:
    labels = organ()
    labels[8, 8, 8] = 1
    labels[3, 3, 3] = 0
    chosen = choose_rules(store((organ(), labels), (organ(), organ())), TASK, ALONE)
    assert chosen.rules == (Rule("organ", keep_largest=True, fill_holes=True),)
    assert chosen.before["organ"] < 1
    assert chosen.after == {"organ": 1.0, "lesion": 1.0}
    assert chosen.cases == 2


def test_a_structure_of_two_true_pieces_keeps_them(store: Store) -> None:
    truth = organ()
    truth[7:, 7:, 7:] = 1
    assert choose_rules(store((truth, truth)), TASK, ALONE).rules == ()


def test_a_rule_that_helps_one_structure_at_the_cost_of_another_is_left_out(store: Store) -> None:
    regions = Task("Toy", ("MRI",), {"whole": 1, "core": 2}, regions={"whole": (1, 2), "core": (2,)})
    truth, labels = organ(), organ()
    truth[7:, 5:, 5:] = 2
    labels[8, 8, 8] = 2  # the little of the core that was found lies outside the largest piece of the whole
    labels[7:, :5, :5] = 1
    removed = HeldOut(truth, organ(), 0.0).dice(regions)
    before = HeldOut(truth, labels, 0.0).dice(regions)
    assert sum(removed.values()) > sum(before.values())
    assert removed["core"] < before["core"]
    found = choose_rules(store((truth, labels)), regions, ((0, 1), (1,)))
    assert (found.rules, found.before, found.after) == ((), before, before)


def test_what_nobody_labelled_decides_nothing(store: Store) -> None:
    task = Task("Toy", ("MRI",), {"organ": 1, "lesion": 2}, ignore=3)
    truth, labels = organ(), organ()
    truth[8] = 3
    labels[8, 8, 8] = 1
    assert choose_rules(store((truth, labels)), task, ALONE).rules == ()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases=st.lists(st.tuples(labels_of, labels_of), min_size=1, max_size=3))
def test_no_structure_ever_loses_and_the_figures_are_those_of_the_rules(
    cases: list[tuple[np.ndarray, np.ndarray]], store: Store
) -> None:
    chosen = choose_rules(store(*cases), TASK, ALONE)
    for name in TASK.structures:
        assert chosen.after[name] >= chosen.before[name] - 1e-9
        ruled = [HeldOut(truth, _ruled(labels, TASK, ALONE, chosen.rules), 0.0) for truth, labels in cases]
        assert chosen.after[name] == pytest.approx(np.mean([each.dice(TASK)[name] for each in ruled]))
    if chosen.rules:
        assert sum(chosen.after.values()) > sum(chosen.before.values())


@settings(max_examples=60, deadline=None)
@given(truth=labels_of, labels=labels_of, margin=st.integers(0, 3), data=st.data())
def test_the_box_that_is_kept_changes_neither_rules_nor_dice(
    truth: np.ndarray, labels: np.ndarray, margin: int, data: st.DataObject
) -> None:
    flat = data.draw(st.booleans())  # one slice of a volume has neighbours above and below
    whole = [np.pad(np.where(np.arange(6) == 2, each, 0) if flat else each, margin) for each in (truth, labels)]
    box = _box((whole[0] != 0) | (whole[1] != 0))
    rules = [Rule("organ", keep_largest=True, fill_holes=True), Rule("lesion", fill_holes=True)]
    found = []
    for one, other in (whole, [each[box] for each in whole]):
        found.append(HeldOut(one, _ruled(other, TASK, ALONE, rules), 0.0).dice(TASK))
    assert found[0] == found[1]


def test_rules_come_back_from_a_run_or_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, RunConfig(system="plain-unet", arguments={}, task={}, seed=0, threads=1))
    predictor = SimpleNamespace(structures=("organ",))
    attach_rules(predictor, run)  # has none
    assert not hasattr(predictor, "rules")
    write_rules(run, ChosenRules((Rule("spleen", keep_largest=True),), 3, {"spleen": 0.5}, {"spleen": 0.6}))
    with pytest.raises(CheckpointError, match="no structure spleen"):
        attach_rules(predictor, run)
    content = json.loads(run.paths.rules.read_text())
    run.paths.rules.write_text(json.dumps({**content, "rules": [{"structure": "organ", "keep_all": True}]}))
    with pytest.raises(CheckpointError, match="damaged"):
        attach_rules(predictor, run)
