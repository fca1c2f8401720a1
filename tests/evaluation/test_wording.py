from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medmargin.evaluation import CaseResult, VolumeInterval, summarise
from medmargin.evaluation.wording import Statement, headlines

MakeCase = Callable[..., CaseResult]


def by_structure(labels: np.ndarray) -> dict[str, np.ndarray]:
    return {"anterior": labels == 1, "posterior": labels == 2}


def by_question(results: list[CaseResult]) -> dict[str, Statement]:
    return {statement.question: statement for statement in headlines(summarise(results))}


def test_model_below_the_ellipse_is_called_out(make_case: MakeCase) -> None:
    truth = np.zeros((12, 14, 10), np.uint8)
    truth[2:8, 2:12, 2:8] = 1
    labels = np.roll(truth, 4, axis=0)
    floors = {"box": by_structure(labels), "ellipse": by_structure(truth)}
    below = by_question([make_case(truth=truth, labels=labels, floors=floors)])
    assert below["Is it more than the prompt?"].tone == "bad"
    assert "does not even reach the ellipse" in below["Is it more than the prompt?"].meaning
    floors = dict.fromkeys(("box", "ellipse"), by_structure(labels))
    above = by_question([make_case(truth=truth, labels=truth, floors=floors)])
    assert above["Is it more than the prompt?"].tone == "good"


def test_without_prompts_from_truth_there_is_no_word_of_floors(make_case: MakeCase) -> None:
    assert "Is it more than the prompt?" not in by_question([make_case(floors=None)])


def test_missed_structures_are_a_headline_only_where_there_are_some(make_case: MakeCase) -> None:
    missed = by_question([make_case(labels=np.zeros((12, 14, 10), np.uint8))])
    assert missed["Was anything missed?"].figure == "2"
    assert "Was anything missed?" not in by_question([make_case()])


@pytest.mark.parametrize(("follows_errors", "tone"), [(1.0, "good"), (0.0, "bad")])
def test_useless_uncertainty_is_said_to_be_useless(make_case: MakeCase, follows_errors: float, tone: str) -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((12, 14, 10), np.uint8)
    truth[2:8, 2:12, 2:8] = 1
    labels = np.roll(truth, 2, axis=0)
    uncertainty = follows_errors * (labels != truth) + 0.1 * rng.random(truth.shape)
    found = by_question([make_case(truth=truth, labels=labels, uncertainty=uncertainty)])
    assert found["Does it know where it is wrong?"].tone == tone


@pytest.mark.parametrize(("confidence", "words"), [(0.99, "too sure"), (0.55, "not sure enough")])
def test_direction_of_miscalibration_is_said(make_case: MakeCase, confidence: float, words: str) -> None:
    truth = np.zeros((12, 14, 10), np.uint8)
    truth[2:8, 2:12, 2:8] = 1
    labels = np.roll(truth, 1, axis=0)
    probabilities = {"anterior": np.where(labels == 1, confidence, 1 - confidence), "posterior": np.zeros(truth.shape)}
    found = by_question([make_case(truth=truth, labels=labels, probabilities=probabilities)])
    assert words in found["Can its probabilities be believed?"].meaning


@pytest.mark.parametrize(("high", "tone"), [(1.0, "good"), (0.1, "bad")])
def test_intervals_that_hold_less_than_they_promise_are_bad(make_case: MakeCase, high: float, tone: str) -> None:
    volumes = {name: VolumeInterval(0.05, 0.0, high, 0.9) for name in ("anterior", "posterior")}
    found = by_question([make_case(volumes=volumes)])["Do the volume intervals hold?"]
    assert found.tone == tone
    assert "90 % should" in found.meaning


def test_raters_are_the_measure_of_what_can_be_asked_for(make_case: MakeCase) -> None:
    truth = np.zeros((12, 14, 10), np.uint8)
    truth[2:8, 2:12, 2:8] = 1
    other = np.roll(truth, 2, axis=0)
    between = np.roll(truth, 1, axis=0)
    question = "Is it as close to the experts as they are to each other?"
    assert by_question([make_case(truth=truth, labels=between, raters=[other])])[question].tone == "good"
    assert by_question([make_case(truth=truth, labels=np.roll(truth, -2, axis=0), raters=[other])])[question].tone == (
        "plain"
    )
    assert question not in by_question([make_case()])


@pytest.mark.parametrize(("follows_sex", "tone"), [(True, "bad"), (False, "plain")])
def test_group_is_called_worse_only_beyond_chance(make_case: MakeCase, follows_sex: bool, tone: str) -> None:
    truth = np.zeros((12, 14, 10), np.uint8)
    truth[2:8, 2:12, 2:8] = 1
    results = []
    for number in range(12):
        is_worse = number % 2 == 1 if follows_sex else number % 4 < 2
        labels = np.roll(truth, 3 if is_worse else 0, axis=0)
        results.append(make_case(name=f"c{number}", truth=truth, labels=labels, attributes={"sex": "FM"[number % 2]}))
    found = by_question(results)["Is any group of patients served worse?"]
    assert found.tone == tone
    assert ("'M' has a mean Dice" in found.meaning) == follows_sex
