"""The schedules."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medmargin.errors import ConfigError
from medmargin.optim.schedules import constant, cosine_with_warmup, polynomial_with_warmup


def test_the_constant_schedule_leaves_the_rate_alone() -> None:
    assert {constant(step, total_steps=10) for step in range(20)} == {1.0}


def test_it_rises_falls_and_stays() -> None:
    factor = partial(cosine_with_warmup, total_steps=104, warmup_steps=4, floor=0.1)
    assert [factor(step) for step in (0, 1, 3, 4)] == pytest.approx([0.2, 0.4, 0.8, 1.0])
    assert factor(54) == pytest.approx(0.55)
    assert factor(104) == factor(10_000) == pytest.approx(0.1)


@given(st.integers(1, 500), st.data())
def test_it_stays_between_floor_and_one_and_peaks_after_the_warm_up(total: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, total // 2))
    floor = data.draw(st.floats(0, 1))
    values = [
        cosine_with_warmup(step, total_steps=total, warmup_steps=warmup, floor=floor) for step in range(total + 3)
    ]
    assert min(values) > 0 or floor == 0
    assert min(values[warmup:]) >= floor - 1e-12
    assert max(values) == values[warmup] == pytest.approx(1)
    assert values[:warmup] == sorted(values[:warmup])
    assert values[warmup:] == sorted(values[warmup:], reverse=True)


@given(st.integers(1, 60), st.integers(0, 200), st.integers(0, 70))
def test_a_warm_up_takes_at_most_half_of_the_run(total: int, warmup: int, step: int) -> None:
    cut = cosine_with_warmup(step, total_steps=total, warmup_steps=min(warmup, total // 2))
    assert cosine_with_warmup(step, total_steps=total, warmup_steps=warmup) == cut


def test_a_resumed_scheduler_continues_where_it_stopped() -> None:
    def scheduler() -> tuple[torch.optim.SGD, torch.optim.lr_scheduler.LambdaLR]:
        optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
        schedule = partial(cosine_with_warmup, total_steps=20, warmup_steps=3)
        return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, schedule)

    def run(optimiser, schedule, steps: int) -> list[float]:
        rates = []
        for _ in range(steps):
            rates.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            schedule.step()
        return rates

    whole = run(*scheduler(), 20)
    first, second = scheduler(), scheduler()
    rates = run(*first, 7)
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(first[1].state_dict())
    assert rates + run(*second, 13) == whole


@pytest.mark.parametrize(
    "options",
    [
        {"total_steps": 5, "warmup_steps": -1},
        {"total_steps": 0},
        {"total_steps": 5, "floor": 1.5},
        {"total_steps": 5, "floor": -0.1},
    ],
)
def test_impossible_schedules_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        cosine_with_warmup(0, **options)


def test_the_polynomial_is_that_of_samed() -> None:
    """Their training loop, with its counter and its two branches."""

    def theirs(iteration: int, warmup: int, maximum: int) -> float:
        if warmup and iteration < warmup:
            return (iteration + 1) / warmup
        return (1.0 - (iteration - warmup) / maximum) ** 0.9

    for warmup in (0, 1, 25, 50):
        ours = [polynomial_with_warmup(step, total_steps=100, warmup_steps=warmup) for step in range(100)]
        assert ours == pytest.approx([theirs(step, warmup, 100) for step in range(100)])
    assert polynomial_with_warmup(50, total_steps=100) == pytest.approx(0.5**0.9)
    assert polynomial_with_warmup(50, total_steps=100, power=2) == pytest.approx(0.25)


@given(st.integers(1, 300), st.integers(0, 400), st.floats(0.1, 4))
def test_the_polynomial_rises_to_one_and_falls_to_zero(total: int, warmup: int, power: float) -> None:
    values = [
        polynomial_with_warmup(step, total_steps=total, warmup_steps=warmup, power=power) for step in range(2 * total)
    ]
    peak = min(warmup, total // 2)
    assert min(values[:total]) > 0
    assert max(values) == values[peak] == 1
    assert values[:peak] == sorted(values[:peak])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert polynomial_with_warmup(2 * total, total_steps=total, warmup_steps=warmup, power=power) == 0


@pytest.mark.parametrize(
    "options", [{"total_steps": 5, "warmup_steps": -1}, {"total_steps": 0}, {"total_steps": 5, "power": 0}]
)
def test_impossible_polynomials_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        polynomial_with_warmup(0, **options)
