"""Comparing answers of `evaluate --json`: pairing by patient, what is left out, what is refused, what is concluded."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from medmargin.errors import ConfigError, DataError
from medmargin.evaluation import summarise
from medmargin.evaluation.comparison import MEAN_OF_STRUCTURES, compare_results

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def template() -> Answer:
    """One measured case, as a pattern for many."""
    from medmargin.evaluation import measure_case
    from medmargin.imaging.volume import Grid

    truth = np.zeros((8, 8, 6), np.uint8)
    truth[2:5, 2:6, 1:5], truth[5:7, 2:6, 1:5] = 1, 2
    labels = np.roll(truth, 1, axis=1)
    sure = {name: np.where(labels == value, 0.9, 0.05) for name, value in (("a", 1), ("b", 2))}
    result = measure_case("x", "x", truth, labels, grid=Grid(truth.shape, np.eye(4)), structures={"a": 1, "b": 2},
                          probabilities=sure, uncertainty=np.random.default_rng(0).random(truth.shape))  # fmt: skip
    return summarise([result])


def answer(template: Answer, dice: np.ndarray, cases_per_patient: int = 1, **figures: Any) -> Answer:
    """An answer whose case c has the Dice `dice`[c] (structure b: 0.1 less) and `figures` in both structures."""
    made = copy.deepcopy(template)
    made["cases"] = []
    for index, value in enumerate(dice):
        entry = copy.deepcopy(template["cases"][0])
        entry |= {"case": f"case_{index}", "patient": f"p{index // cases_per_patient}"}
        entry["structures"]["a"] |= {"dice": float(value), **figures}
        entry["structures"]["b"] |= {"dice": float(value) - 0.1, **figures}
        made["cases"].append(entry)
    return made


DICE = np.random.default_rng(0).uniform(0.6, 0.8, 12)


def test_a_clear_difference_is_shown_in_every_row(template: Answer) -> None:
    found = compare_results({"old": answer(template, DICE), "new": answer(template, DICE + 0.05)}, ["dice"])
    json.dumps(found, allow_nan=False)
    metric = found["metrics"]["dice"]
    assert list(metric["rows"]) == ["a", "b", MEAN_OF_STRUCTURES]
    for row in metric["rows"].values():
        (pair,) = row["pairs"]
        assert pair["difference"]["mean"] == pytest.approx(-0.05)
        assert (pair["better"], pair["verdict"], pair["is_shown"]) == ("new", "new is better", True)
        assert pair["p_holm"] == pytest.approx(3 * 2.0**-11)
        assert (pair["rank_biserial"], pair["cohens_dz"]) == (-1.0, None)
        assert row["ranking"]["first"] == {"old": 0.0, "new": 1.0}
    assert metric["tests"] == 3


def test_lower_is_better_for_distances_and_volume_errors_count_by_size(template: Answer) -> None:
    near = answer(template, DICE, hd95_mm=1.0, relative_volume_error=-0.1)
    far = answer(template, DICE, hd95_mm=2.0, relative_volume_error=0.2)
    found = compare_results({"near": near, "far": far}, ["hd95_mm", "relative_volume_error"])
    for metric in found["metrics"].values():
        assert metric["better"] == "lower"
        assert metric["rows"]["a"]["pairs"][0]["better"] == "near"


def test_cases_of_a_patient_are_averaged_before_they_are_compared(template: Answer) -> None:
    first, second = answer(template, DICE, 2), answer(template, DICE[::-1], 2)
    row = compare_results({"x": first, "y": second}, ["dice"])["metrics"]["dice"]["rows"]["a"]
    assert (row["n"], row["n_patients"], row["pairs"][0]["n"]) == (12, 6, 6)
    by_patient = dict(zip(row["patients"], row["values"]["x"], strict=True))
    assert by_patient["p3"] == pytest.approx(DICE[6:8].mean())


def test_order_of_cases_does_not_matter(template: Answer) -> None:
    first, second = answer(template, DICE), answer(template, DICE**2)
    shuffled = second | {"cases": second["cases"][::-1]}
    assert compare_results({"x": first, "y": second}, ["dice"]) == compare_results(
        {"x": first, "y": shuffled}, ["dice"]
    )


def test_cases_and_structures_of_only_one_result_are_named_and_left_out(template: Answer) -> None:
    first, second = answer(template, DICE), answer(template, DICE + 0.05)
    del second["cases"][3]
    second["failed"] = [{"case": "case_3", "error": "DataError: truncated"}]
    del first["cases"][5]
    for entry in second["cases"]:
        entry["structures"]["c"] = entry["structures"]["a"]
    found = compare_results({"x": first, "y": second}, ["dice"])
    reasons = {item["case"]: item["reason"] for item in found["left_out"]}
    assert reasons == {"case_3": "failed in y", "case_5": "missing in x"}
    assert found["structures_left_out"] == [{"structure": "c", "reason": "missing in x"}]
    assert (found["n"], found["metrics"]["dice"]["rows"]["a"]["n_patients"]) == (10, 10)


def test_a_number_that_one_result_lacks_leaves_that_case_out_of_its_row_alone(template: Answer) -> None:
    first, second = answer(template, DICE), answer(template, DICE)
    second["cases"][2]["structures"]["a"] |= {"hd95_mm": None, "hd95_mm_reason": "no distance"}
    rows = compare_results({"x": first, "y": second}, ["hd95_mm"])["metrics"]["hd95_mm"]["rows"]
    assert rows["a"]["without_number"] == rows[MEAN_OF_STRUCTURES]["without_number"] == ["case_2"]
    assert (rows["a"]["n"], rows["b"]["n"]) == (11, 12)
    assert rows["b"]["pairs"][0]["verdict"] == "no difference"


def test_a_metric_that_no_result_has_gives_the_reason(template: Answer) -> None:
    plain = answer(template, DICE)
    for entry in plain["cases"]:
        entry["uncertainty"]["band"] |= {"ece": None, "ece_reason": "no probabilities were given"}
    found = compare_results({"x": plain, "y": answer(template, DICE)})
    assert list(found["metrics"]) == ["dice", "nsd", "hd95_mm", "band_ece", "band_auroc"]
    row = found["metrics"]["band_ece"]["rows"]["all structures"]
    assert (row["n"], row["pairs"], row["reason"]) == (0, [], "case_0: no probabilities were given")
    assert found["metrics"]["band_ece"]["smallest_p_holm_reason"] == "no pair could be tested"


def test_few_patients_are_too_few_to_tell_and_more_results_cost_more(template: Answer) -> None:
    two = compare_results({"x": answer(template, DICE[:5]), "y": answer(template, DICE[:5] + 0.1)}, ["dice"])
    pair = two["metrics"]["dice"]["rows"]["a"]["pairs"][0]
    assert (pair["p"], pair["p_holm"], pair["verdict"]) == (None, None, "too few to tell")
    assert "0.0625" in pair["p_reason"]
    steps = {str(step): answer(template, DICE[:6] + 0.1 * step * DICE[:6]) for step in range(4)}
    metric = compare_results(steps, ["dice"])["metrics"]["dice"]
    assert metric["tests"] == 6 * 3
    assert metric["smallest_p_holm"] == pytest.approx(18 * 2.0**-5)
    assert {pair["verdict"] for pair in metric["rows"]["a"]["pairs"]} == {"too few to tell"}


def test_one_patient_has_means_and_no_intervals(template: Answer) -> None:
    found = compare_results({"x": answer(template, DICE[:1]), "y": answer(template, DICE[:1] + 0.1)}, ["dice"])
    row = found["metrics"]["dice"]["rows"]["a"]
    assert row["means"]["x"]["ci95"] is row["pairs"][0]["difference"]["ci95"] is row["ranking"]["first"] is None
    json.dumps(found, allow_nan=False)


def test_other_truths_are_warned_of(template: Answer) -> None:
    first, second = answer(template, DICE), answer(template, DICE)
    second["cases"][0]["volumes_ml"]["a"]["true"] *= 1.2
    assert "case_0" in compare_results({"x": first, "y": second}, ["dice"])["warnings"][0]
    assert compare_results({"x": first, "y": first}, ["dice"])["warnings"] == []


def test_what_cannot_be_compared_is_refused(template: Answer) -> None:
    whole = answer(template, DICE)
    other_names = copy.deepcopy(whole)
    other_patient, twice, other_structures, other_tolerance = (copy.deepcopy(whole) for _ in range(4))
    for entry in other_names["cases"]:
        entry["case"] += "_0000"
    other_patient["cases"][0]["patient"] = "someone else"
    twice["cases"].append(twice["cases"][0])
    for entry in other_structures["cases"]:
        entry["structures"] = {"liver": entry["structures"]["a"]}
    other_tolerance["conventions"]["nsd_tolerance_mm"] = 3.0
    for other, words in ((other_names, "no case in common"), (other_patient, "different patients"),
                         (twice, "stands twice"), (other_structures, "no structure in common")):  # fmt: skip
        with pytest.raises(DataError, match=words):
            compare_results({"x": whole, "y": other}, ["dice"])
    with pytest.raises(ConfigError, match="different conventions"):
        compare_results({"x": whole, "y": other_tolerance}, ["nsd"])
    assert compare_results({"x": whole, "y": other_tolerance}, ["dice"])["n"] == 12
    with pytest.raises(ConfigError, match="Did you mean 'hd95_mm'"):
        compare_results({"x": whole, "y": whole}, ["hd95mm"])
    with pytest.raises(ConfigError, match="at least two"):
        compare_results({"x": whole})
