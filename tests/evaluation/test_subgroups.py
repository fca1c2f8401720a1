from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medmargin.evaluation.equity import equity
from medmargin.evaluation.subgroups import summarise_subgroups


def entry(number: int, dice: float, patient: str | None = None, **attributes: str) -> dict[str, Any]:
    return {
        "patient": patient or f"p{number}",
        "attributes": attributes,
        "structures": {"a": {"dice": dice, "nsd": dice}},
        "uncertainty": {"band": {"ece": 0.1}},
    }


def test_groups_hold_their_cases_and_the_worst_is_named() -> None:
    dice = {"F": [0.8, 0.9, 0.85, 0.87], "M": [0.6, 0.7, 0.65], "": [0.1]}
    entries = [entry(i, d, sex=sex) for sex, values in dice.items() for i, d in enumerate(values, start=10 * len(sex))]
    entries = [{**e, "patient": f"p{i}"} for i, e in enumerate(entries)]
    found = (summarise_subgroups(entries) or {})["sex"]
    assert found["n_missing"] == 1
    assert {name: group["n"] for name, group in found["groups"].items()} == {"F": 4, "M": 3}
    assert found["groups"]["M"]["dice"]["mean"] == pytest.approx(0.65)
    assert (found["worst"], found["best"]) == ("M", "F")
    assert found["gap"] == pytest.approx(0.855 - 0.65)
    assert found["gap_ci95"][0] < found["gap"] < found["gap_ci95"][1]
    assert found["equity_scaled_dice"] == pytest.approx(equity({"F": dice["F"], "M": dice["M"]}).scaled)
    assert found["gap_p"] == pytest.approx(1 / 35)  # of the 35 ways to draw 4 of 7 no other differs as much


def test_small_groups_are_shown_but_not_ranked() -> None:
    entries = [entry(i, 0.8 + 0.01 * i, site="a") for i in range(4)] + [
        entry(10 + i, 0.7 + 0.01 * i, site="b") for i in range(3)
    ]
    # two patients with two scans each: four cases, but too few patients
    entries += [entry(20 + i, 0.1, patient=f"q{i % 2}", site="c") for i in range(4)]
    found = (summarise_subgroups(entries) or {})["site"]
    small = found["groups"]["c"]
    assert (small["n"], small["n_patients"]) == (4, 2)
    assert small["dice"]["mean"] == pytest.approx(0.1)
    assert small["dice"]["ci95"] is None
    assert small["dice"]["ci95_reason"] == "fewer than 3 patients"
    assert found["worst"] == "b"
    alone = (summarise_subgroups(entries[:4] + entries[7:]) or {})["site"]
    assert alone["worst"] is alone["gap"] is alone["gap_p"] is None
    assert alone["reason"] == "fewer than two groups have 3 patients"


def test_numbers_are_cut_into_tertiles_with_named_borders() -> None:
    entries = [entry(i, 0.5, age=str(30 + i)) for i in range(9)]
    found = (summarise_subgroups(entries) or {})["age"]
    assert found["kind"] == "number"
    assert found["borders"] == [32, 35]
    assert {name: group["n"] for name, group in found["groups"].items()} == {
        "up to 32": 3, "above 32, up to 35": 3, "above 35": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["x"] * 20, "all cases have the same value"),
        ([""] * 20, "not recorded for any case"),
        ([f"file{i}" for i in range(20)], "20 different texts are too many to compare"),
        (["7.0"] * 20, "all cases have the same value"),
    ],
)
def test_attributes_that_make_no_groups_say_why(values: list[str], reason: str) -> None:
    entries = [entry(i, 0.5, thing=value) for i, value in enumerate(values)]
    found = (summarise_subgroups(entries) or {})["thing"]
    assert "groups" not in found
    assert found["reason"].startswith(reason)


def test_codes_and_texts_stay_as_they_are_and_patients_are_no_groups() -> None:
    entries = [entry(i, 0.5, grade=str(i % 2), patient_id=f"p{i}") for i in range(8)]
    found = summarise_subgroups(entries) or {}
    assert list(found) == ["grade"]
    assert list(found["grade"]["groups"]) == ["0", "1"]
    assert summarise_subgroups([{**e, "attributes": {}} for e in entries]) is None


def test_groups_drawn_by_lot_seldom_look_unequal() -> None:
    rng = np.random.default_rng(0)
    chances = []
    for _ in range(60):
        entries = [entry(i, float(rng.uniform(0.5, 1)), site=str(rng.choice(list("abcd")))) for i in range(40)]
        chances.append((summarise_subgroups(entries) or {})["site"]["gap_p"])
    assert np.mean(np.array(chances) < 0.05) < 0.15
    assert np.mean(chances) == pytest.approx(0.5, abs=0.12)
