from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from medmargin.errors import ConfigError
from medmargin.evaluation import CaseResult, summarise

MakeCase = Callable[..., CaseResult]


@pytest.fixture
def answer(make_case: MakeCase) -> dict[str, Any]:
    results = [make_case(seed, name=f"case_{seed}", patient=f"patient_{seed // 2}") for seed in range(6)]
    failed = [{"case": "case_7", "error": "DataError: truncated"}]
    return summarise(results, failed=failed, source="prompt perturbation", forward_passes=8, run={"system": "u-medsam"})


def test_answer_has_the_documented_keys_and_is_plain_json(answer: dict[str, Any]) -> None:
    json.dumps(answer, allow_nan=False)
    assert answer.keys() - {"curves"} == {
        "cases", "failed", "summary", "calibrated", "conventions", "run", "versions",
    }  # fmt: skip
    summary = answer["summary"]
    assert summary.keys() - {"n_patients", "raters_reason", "subgroups_reason"} == {
        "n", "structures", "mean", "floors", "uncertainty", "volume_coverage", "raters", "subgroups",
    }  # fmt: skip
    anterior = summary["structures"]["anterior"]
    assert {"mean", "median", "ci95"} <= anterior["dice"].keys() & anterior["nsd"].keys() & anterior["hd95_mm"].keys()
    assert {"n_absent", "n_missed", "n_false"} <= anterior.keys()
    assert {"dice", "nsd"} <= summary["mean"].keys()
    assert all("dice" in summary["floors"][floor] for floor in ("box", "ellipse"))
    assert {"ece", "auroc", "aurc", "band", "source", "forward_passes"} <= summary["uncertainty"].keys()
    assert {"ece", "auroc", "voxels"} <= summary["uncertainty"]["band"].keys()
    assert {"level", "covered", "n"} <= summary["volume_coverage"].keys()
    assert {"nsd_tolerance_mm", "ece_bins", "pooled"} <= answer["conventions"].keys()
    assert answer["failed"] == [{"case": "case_7", "error": "DataError: truncated"}]
    assert {"python", "medmargin", "numpy", "scipy", "torch"} == answer["versions"].keys()


def test_means_are_those_of_the_cases(answer: dict[str, Any]) -> None:
    dice = [case["structures"]["posterior"]["dice"] for case in answer["cases"]]
    found = answer["summary"]["structures"]["posterior"]["dice"]
    assert found["mean"] == pytest.approx(np.mean(dice))
    assert found["median"] == pytest.approx(np.median(dice))
    assert found["ci95"][0] <= found["mean"] <= found["ci95"][1]
    structures = answer["summary"]["structures"].values()
    assert answer["summary"]["mean"]["dice"] == pytest.approx(np.mean([s["dice"]["mean"] for s in structures]))
    boxes = [case["floors"]["box"]["anterior"] for case in answer["cases"]]
    assert answer["summary"]["floors"]["box"]["structures"]["anterior"] == pytest.approx(np.mean(boxes))


def test_voxels_are_pooled_not_averaged(make_case: MakeCase) -> None:
    results = [make_case(seed) for seed in range(3)]
    pooled = summarise(results)["summary"]["uncertainty"]
    voxels = [result.whole.voxels for result in results]
    brier = [result.entry["uncertainty"]["brier"] for result in results]
    assert pooled["brier"] == pytest.approx(np.average(brier, weights=voxels))
    assert pooled["error_rate"] == pytest.approx(sum(result.whole.errors for result in results) / sum(voxels))


def test_order_of_cases_does_not_matter(make_case: MakeCase) -> None:
    results = [make_case(seed, name=f"case_{seed}") for seed in range(5)]
    forward, backward = summarise(results)["summary"], summarise(results[::-1])["summary"]
    for name in ("ece", "brier", "auroc", "aurc"):
        assert forward["uncertainty"][name] == pytest.approx(backward["uncertainty"][name])
    assert forward["structures"]["anterior"]["dice"]["ci95"] == pytest.approx(
        backward["structures"]["anterior"]["dice"]["ci95"]
    )


def test_results_may_be_measured_on_the_way_and_failures_noted_meanwhile(make_case: MakeCase) -> None:
    failed: list[dict[str, str]] = []

    def measured() -> Iterator[CaseResult]:
        yield make_case(0)
        failed.append({"case": "case_9", "error": "DataError: empty"})
        yield make_case(1)

    answer = summarise(measured(), failed=failed)
    assert answer["summary"]["n"] == 2
    assert answer["failed"] == failed


def test_states_are_counted_and_absent_ones_do_not_flatter_the_second_mean(make_case: MakeCase) -> None:
    shape = (12, 14, 10)
    empty, full = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    full[2:5, 2:5, 2:5] = 1
    pairs = {"absent": (empty, empty), "missed": (full, empty), "false": (empty, full), "found": (full, full)}
    results = [make_case(name=name, truth=truth, labels=labels, floors=None) for name, (truth, labels) in pairs.items()]
    found = summarise(results)["summary"]["structures"]["anterior"]
    assert (found["n"], found["n_absent"], found["n_missed"], found["n_false"]) == (4, 1, 1, 1)
    assert found["dice"]["mean"] == pytest.approx(0.5)
    assert found["dice"]["mean_without_absent"] == pytest.approx(1 / 3)
    assert found["hd95_mm"]["n"] == 3
    diagonal = np.sqrt(12**2 + 14**2 + 20**2)
    assert found["hd95_mm"]["mean"] == pytest.approx(2 * diagonal / 3)


def missing_without_reason(value: Any, path: str = "") -> list[str]:
    """Paths of None that have no reason beside them."""
    if isinstance(value, dict):
        found = [
            f"{path}/{key}" for key, entry in value.items()
            if entry is None and f"{key}_reason" not in value and "reason" not in value
        ]  # fmt: skip
        for key, entry in value.items():
            found += missing_without_reason(entry, f"{path}/{key}")
        return found
    if isinstance(value, list):
        return [found for entry in value for found in missing_without_reason(entry, path)]
    return []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"unit": "px"},
        {"raters": [np.zeros((12, 14, 10), np.uint8)], "attributes": {"sex": "F", "age": "50"}},
        {"raters": [np.ones((12, 14, 10), np.uint8)], "uncertainty": None},
        {"probabilities": None, "uncertainty": None, "volumes": None, "floors": None, "seconds": None},
        {"truth": np.zeros((12, 14, 10), np.uint8), "labels": np.zeros((12, 14, 10), np.uint8)},
    ],
)
def test_every_missing_number_has_a_reason(make_case: MakeCase, changes: dict[str, Any]) -> None:
    answer = summarise([make_case(**changes)])
    json.dumps(answer, allow_nan=False)
    answer["conventions"] = {}  # a tolerance in a unit that no case has is no number that is missing
    assert missing_without_reason(answer) == []


def test_no_cases_give_no_numbers() -> None:
    answer = summarise([], failed=[{"case": "a", "error": "DataError: unreadable"}])
    json.dumps(answer, allow_nan=False)
    assert answer["summary"]["n"] == 0
    assert answer["summary"]["mean"]["dice"] is None
    assert answer["summary"]["mean"]["dice_reason"] == "no case was measured"
    answer["conventions"] = {}
    assert missing_without_reason(answer) == []


def test_coverage_of_volumes(make_case: MakeCase) -> None:
    coverage = summarise([make_case()])["summary"]["volume_coverage"]  # 0.42 and 0.252 ml in [0.3, 0.5]
    assert {key: coverage[key] for key in ("level", "covered", "n", "n_covered")} == {
        "level": 0.9, "covered": 0.5, "n": 2, "n_covered": 1,
    }  # fmt: skip
    assert coverage["mean_relative_width"] == pytest.approx((0.2 / 0.42 + 0.2 / 0.252) / 2)
    anterior = coverage["structures"]["anterior"]
    assert (anterior["covered"], anterior["n"]) == (1.0, 1)
    assert anterior["mean_relative_width"] == pytest.approx(0.2 / 0.42)
    assert anterior["ci95"] == pytest.approx([0.025, 1.0])  # one of one: 0.05 / 2 to 1


def test_width_leaves_out_structures_that_are_not_there(make_case: MakeCase) -> None:
    empty = np.zeros((12, 14, 10), np.uint8)
    coverage = summarise([make_case(truth=empty)])["summary"]["volume_coverage"]
    assert coverage["mean_relative_width"] is None
    assert coverage["mean_relative_width_reason"] == "every true volume is 0"


def test_cases_are_told_apart_by_their_score(make_case: MakeCase) -> None:
    truth = np.zeros((12, 14, 10), np.uint8)
    truth[2:8, 2:8, 2:8], truth[9:11, 9:12, 2:8] = 1, 2
    results = [
        make_case(name=f"c{shift}", truth=truth, labels=np.roll(truth, shift, axis=0),
                  uncertainty=np.full(truth.shape, 0.1 + 0.1 * shift))
        for shift in (0, 1, 3, 4)
    ]  # fmt: skip
    cases = summarise(results)["summary"]["uncertainty"]["cases"]
    assert cases["n_failures"] == 3
    assert cases["failure_auroc"] == cases["spearman"] == pytest.approx(1)
    without = summarise(results[:1] * 3)["summary"]["uncertainty"]["cases"]
    assert without["failure_auroc_reason"] == "no case has a Dice below 0.7"
    assert without["spearman"] is None


def test_uncertainty_that_follows_dice_has_no_excess_risk(make_case: MakeCase) -> None:
    shape = (12, 14, 10)
    truth = np.zeros(shape, np.uint8)
    truth[2:8, 2:8, 2:8] = 1
    results = []
    for error in (0, 1, 2, 3):
        labels = np.roll(truth, error, axis=0)
        results.append(
            make_case(name=f"c{error}", truth=truth, labels=labels, uncertainty=np.full(shape, 0.1 + 0.1 * error))
        )
    cases = summarise(results)["summary"]["uncertainty"]["cases"]
    assert cases["n"] == 4
    assert cases["e_aurc"] == pytest.approx(0, abs=1e-12)


def test_one_tolerance_for_all_cases(make_case: MakeCase) -> None:
    with pytest.raises(ConfigError, match="Measure all cases with one tolerance"):
        summarise([make_case(nsd_tolerance=1.0), make_case(nsd_tolerance=2.0)])
    answer = summarise([make_case(nsd_tolerance=3.0), make_case(unit="px")])
    assert answer["conventions"]["nsd_tolerance_mm"] == 3.0
    assert answer["conventions"]["nsd_tolerance_px"] == 2.0
