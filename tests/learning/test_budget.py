"""Budgets, and the plan of steps that a budget in minutes becomes."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.errors import ConfigError
from medmargin.learning import pacing
from medmargin.learning.budget import Budget, Plan
from medmargin.learning.pacing import Pacer
from medmargin.optim.schedules import cosine_with_warmup


@pytest.mark.parametrize("amounts", [{}, {"steps": 5, "minutes": 1.0}, {"steps": 0}, {"minutes": -1.0}])
def test_a_budget_is_one_positive_amount(amounts):
    with pytest.raises(ConfigError, match="expected one of minutes, steps and epochs"):
        Budget(**amounts)


def test_epochs_pass_over_every_object():
    assert Budget(epochs=3).total_steps(objects=41, batch_size=4) == 33
    assert Budget(steps=7).total_steps(objects=None, batch_size=4) == 7
    assert Budget(minutes=2).total_steps(objects=41, batch_size=4) is None
    assert Budget(minutes=2).as_dict() == {"minutes": 2}


def test_epochs_of_a_stream_without_end_are_refused():
    with pytest.raises(ConfigError, match="no end"):
        Budget(epochs=1).total_steps(objects=None, batch_size=4)


@given(
    first=st.integers(20, 5000),
    corrections=st.lists(st.tuples(st.floats(0.05, 0.95), st.floats(0.5, 2.0)), max_size=4),
)
def test_progress_rises_without_jumps_and_ends_at_one(first, corrections):
    plan, step = Plan(None).corrected(5, first), 5
    for fraction, change in corrections:
        step += int(fraction * (plan.total - step))
        before = plan.progress(step)
        plan = plan.corrected(step, step + max(1, int(change * (plan.total - step))))
        assert plan.progress(step) == pytest.approx(before)
    values = [plan.progress(s) for s in range(step, plan.total + 1)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1)
    assert Plan(**plan.as_dict()) == plan


def test_the_first_decision_is_as_if_it_had_been_known_from_the_start():
    assert Plan(None).corrected(12, 400) == Plan(400)
    assert [Plan(400).progress(step) * 400 for step in (0, 12, 399)] == pytest.approx([0, 12, 399])


class Clock:
    """Stands in for `time`; moves only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def paced_run(monkeypatch, budget: Budget, seconds_per_step) -> tuple[float, list[float], int]:
    """Drive a pacer without a network; return the time taken, the factor of every step, and the steps planned."""
    clock = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    group = {"lr": 1.0}
    trainer = SimpleNamespace(
        optimizers=[SimpleNamespace(param_groups=[group])], global_step=0, should_stop=False,
        strategy=SimpleNamespace(broadcast=lambda value: value),
    )  # fmt: skip
    pacer = Pacer(budget, Plan(budget.total_steps(objects=None, batch_size=1)), cosine_with_warmup)
    pacer.on_train_start(trainer, None)
    factors = []
    while not trainer.should_stop:
        pacer.on_train_batch_start(trainer, SimpleNamespace(), None, 0)
        factors.append(group["lr"])
        clock.now += seconds_per_step(trainer.global_step)
        trainer.global_step += 1
        pacer.on_train_batch_end(trainer, None, None, None, 0)
        if trainer.global_step % 50 == 0:
            pacer.on_validation_start(trainer, None)
            clock.now += 2
            pacer.on_validation_end(trainer, None)
    return clock.now - 1000, factors, pacer.plan.total


@pytest.mark.parametrize(
    "pace",
    [
        lambda step: 0.2,
        lambda step: 3.0 if step < 2 else 0.2,  # slow first steps
        lambda step: 0.2 if step < 600 else 0.4,  # the laptop gets hot
        lambda step: 0.4 if step < 600 else 0.2,  # another program ends
        lambda step: 11.0,  # 27 steps in all
    ],
)
def test_minutes_are_kept_and_the_schedule_still_ends(monkeypatch, pace):
    taken, factors, planned = paced_run(monkeypatch, Budget(minutes=5), pace)
    assert 270 <= taken <= 311
    assert len(factors) == planned
    assert factors[-1] < 0.02
    assert max(after - before for before, after in pairwise(factors[12:])) < 0.02


def test_a_budget_too_short_for_a_single_step_makes_one(monkeypatch):
    taken, factors, _ = paced_run(monkeypatch, Budget(minutes=0.01), lambda step: 11.0)
    assert taken == pytest.approx(11.0)
    assert factors == [1.0]


def test_steps_do_not_look_at_the_clock(monkeypatch):
    _, factors, planned = paced_run(monkeypatch, Budget(steps=40), lambda step: 100.0 * (step % 3))
    assert planned == 40
    assert factors == [cosine_with_warmup(step, total_steps=40) for step in range(40)]
