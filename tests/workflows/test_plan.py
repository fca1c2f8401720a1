"""Plans with their cost on this machine."""

from __future__ import annotations

import json

import pytest

from medmargin.datasets.phantoms.writing import write_phantom_dataset
from medmargin.errors import BudgetError
from medmargin.workflows.plan import plan_dataset
from medmargin.workflows.plan_cost import window_count


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return write_phantom_dataset(tmp_path_factory.mktemp("data") / "phantom", dims=2, cases=3, test_cases=1, raters=1)


def test_both_scales_are_planned_and_timed(phantom):
    planned = plan_dataset(phantom)
    assert list(planned.plans) == ["paper", "laptop"] == list(planned.costs)
    paper, laptop = planned.costs["paper"], planned.costs["laptop"]
    assert paper.configuration == "2d"
    assert laptop.step_seconds > 0
    assert laptop.prediction_seconds > 0
    assert laptop.training_bytes < paper.training_bytes
    assert json.loads(json.dumps(planned.to_dict()))["costs"]["laptop"]["fits"] is True


def test_choices_change_one_plan(phantom):
    planned = plan_dataset(phantom, settings={"batch_size": "3"}, timing=False)
    assert list(planned.plans) == ["paper"]
    assert planned.plans["paper"].configuration().batch_size == 3
    assert planned.costs == {}


def test_a_larger_memory_leaves_the_laptops_plan_small(phantom):
    planned = plan_dataset(phantom, memory=16 * 2**30, timing=False)
    assert planned.plans["paper"].memory == 16 * 2**30
    assert planned.plans["laptop"].memory < 2 * 2**30


def test_too_little_memory_is_refused(phantom):
    with pytest.raises(BudgetError):
        plan_dataset(phantom, memory=2**20, timing=False)


@pytest.mark.parametrize(
    ("shape", "windows"), [((10, 10), 1), ((8, 20), 1), ((20, 21), 4), ((30, 10), 3), ((30, 40), 9)]
)
def test_windows_overlap_by_half(shape, windows):
    assert window_count(shape, (16, 20)) == windows
