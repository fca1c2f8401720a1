"""The plan of prompts: seeded, starting with the prompt as given, never leaving the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.errors import ConfigError
from medmargin.uncertainty.prompt_perturbation import Member, PromptPerturbation


def test_the_first_member_asks_exactly_as_given() -> None:
    first = PromptPerturbation().plan()[0]
    box, points = np.array([3, 4, 50, 64], np.float32), np.array([[5, 6]], np.float32)
    assert first == Member()
    assert np.array_equal(first.box(box, width=64, height=64), box)
    assert np.array_equal(first.points(points, size=64), points)


def test_one_seed_gives_one_plan() -> None:
    assert PromptPerturbation(seed=3).plan() == PromptPerturbation(seed=3).plan()
    assert PromptPerturbation(seed=3).plan() != PromptPerturbation(seed=4).plan()


def test_flips_take_turns_and_each_starts_with_the_prompt_as_given() -> None:
    plan = PromptPerturbation(members=7, flips=("none", "horizontal", "vertical")).plan()
    assert [member.flip for member in plan] == ["none", "horizontal", "vertical"] * 2 + ["none"]
    assert [any(member.growth) for member in plan] == [False] * 3 + [True] * 4


def test_sides_move_within_the_declared_fractions_both_ways() -> None:
    plan = PromptPerturbation(members=400, flips=("none",), outward=0.2, inward=0.1).plan()
    growth = np.array([member.growth for member in plan])
    assert growth.min() >= -0.1
    assert growth.max() <= 0.2
    assert growth.min() < -0.09
    assert growth.max() > 0.19
    moved = Member(growth=(0.1, 0.2, -0.1, 0.0)).box(np.array([20, 20, 29, 39], np.float32), width=64, height=64)
    np.testing.assert_allclose(moved, [19, 16, 28, 39], atol=1e-5)


@given(
    st.tuples(*[st.integers(0, 63)] * 4),
    st.tuples(*[st.floats(-0.49, 0.49)] * 4),
)
def test_a_moved_box_stays_a_box_inside_the_picture(corners: tuple[int, ...], growth: tuple[float, ...]) -> None:
    x, y = sorted(corners[:2]), sorted(corners[2:])
    box = np.array([x[0], y[0], x[1], y[1]], np.float32)
    moved = Member(growth=growth).box(box, width=64, height=64)  # type: ignore[arg-type]
    assert (moved[:2] <= moved[2:]).all()
    assert moved.min() >= 0
    assert moved.max() <= 64


@pytest.mark.parametrize(
    "arguments",
    [
        {"members": 1},
        {"flips": ()},
        {"flips": ("horizontal",)},
        {"flips": ("none", "diagonal")},
        {"outward": 0.5},
        {"inward": -0.1},
    ],
)
def test_values_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PromptPerturbation(**arguments)
