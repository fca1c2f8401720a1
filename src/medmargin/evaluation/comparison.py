"""Compare results of `medmargin evaluate` on the same patients: every pair of results, metric by metric."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import ConfigError
from medmargin.evaluation.compared_metrics import ComparedMetric, chosen_metrics
from medmargin.evaluation.matched_cases import Answer, Entry, common_cases, common_structures, different_truths
from medmargin.evaluation.paired_statistics import FEWEST_PAIRS, holm, paired_difference
from medmargin.evaluation.rank_stability import rank_stability
from medmargin.evaluation.statistics import RESAMPLES, patient_interval

MEAN_OF_STRUCTURES, WHOLE_CASE = "mean of structures", "all structures"
SIGNIFICANCE = 0.05
CONVENTIONS = {
    "patients": "cases of a patient are averaged first; only cases that all results hold count",
    "difference": "first - second, in the unit of the metric; its 95 % interval is that of the mean over patients",
    "ci95": f"percentile bootstrap over patients, {RESAMPLES} draws, seed 0; of one comparison, not corrected",
    "p": "Wilcoxon signed-rank test, two-sided; patients without a difference are left out; exact up to 50 "
    "patients, up to 13 where differences tie, beyond that the normal approximation with tie correction",
    "p_holm": "Holm's correction over all pairs of results and all structures of one metric, not over the metrics",
    "few_patients": f"no p-value where fewer than {FEWEST_PAIRS} patients differ; smallest_p is 2^(1 - n) with n of "
    "them, smallest_p_holm that times the number of tests: above 0.05 no result, however clear, could show anything",
    "rank_biserial": "matched-pairs rank-biserial correlation, from -1 to 1: 0 no difference, 1 the first is larger in "
    "every patient",
    "cohens_dz": "mean of the differences divided by their standard deviation",
    "ranking": f"by the mean over patients, in {RESAMPLES} bootstrap samples of the patients; Kendall's tau-a to the "
    "ranking of all patients",
    MEAN_OF_STRUCTURES: "per case, over its structures; a case counts where all of them have a number in all results",
}

Matched = Sequence[tuple[Entry, ...]]  # [C] cases, each with its entry in all R results


def compare_results(results: Mapping[str, Answer], metrics: Sequence[str] | None = None) -> dict[str, Any]:
    """Compare two or more answers of `evaluate --json`.

    Args:
        results: name -> answer.
        metrics: names in `compared_metrics.METRICS`; by default overlap, distance, and uncertainty near borders.

    Returns:
        The object of `compare --json`, of plain JSON types: per metric and row (a structure, their mean, or the whole
        case) the values per patient, the means, every pair of results, and the stability of the ranking. A number that
        does not exist is None with its reason beside it.

    Raises:
        ConfigError: fewer than two results, an unknown metric, or a metric measured under different conventions.
        DataError: no common case or structure, a case that stands twice in a result or belongs to another patient.
    """
    if len(results) < 2:
        raise ConfigError(f"a comparison needs at least two results, {len(results)} given")
    names = list(results)
    matched, left_out = common_cases(results)
    structures, structures_left_out = common_structures(matched, names)
    chosen = chosen_metrics(metrics, matched[0][0])
    for metric in chosen:
        _require_same_conventions(metric, results)
    return {
        "results": [_described(name, answer) for name, answer in results.items()],
        "n": len(matched),
        "n_patients": len({entries[0]["patient"] for entries in matched}),
        "left_out": left_out,
        "structures": structures,
        "structures_left_out": structures_left_out,
        "warnings": different_truths(matched, structures),
        "metrics": {metric.name: _compared(metric, names, matched, structures) for metric in chosen},
        "conventions": dict(CONVENTIONS),
    }


def _compared(metric: ComparedMetric, names: list[str], matched: Matched, structures: list[str]) -> dict[str, Any]:
    rows = {row: _row(metric, names, matched, members) for row, members in _rows(metric, structures).items()}
    pairs = [pair for row in rows.values() for pair in row["pairs"]]
    tested = [pair for pair in pairs if pair["p"] is not None]
    smallest = min(1.0, len(tested) * min(pair["smallest_p"] for pair in tested)) if tested else None
    for pair, adjusted in zip(tested, holm([pair["p"] for pair in tested]), strict=True):
        pair["p_holm"] = adjusted
    for pair in pairs:
        pair["verdict"] = _verdict(pair, smallest)
        pair["is_shown"] = pair["verdict"] == f"{pair['better']} is better"
    found: dict[str, Any] = {"title": metric.title, "better": "higher" if metric.higher_is_better else "lower"}
    found |= {"tests": len(tested), "smallest_p_holm": smallest}
    if smallest is None:
        found["smallest_p_holm_reason"] = "no pair could be tested"
    return found | {"rows": rows}


def _verdict(pair: Mapping[str, Any], smallest_p_holm: float | None) -> str:
    """Say in words what a pair shows; `smallest_p_holm` is the least that any result of these tests could have had."""
    if pair["n"] == pair["n_zero"]:
        return "no difference"
    if pair["p_holm"] is None or smallest_p_holm is None or smallest_p_holm > SIGNIFICANCE:
        return "too few to tell"
    if pair["p_holm"] > SIGNIFICANCE or pair["better"] is None:
        return "no difference shown"
    if pair["difference"]["mean"] * pair["rank_biserial"] < 0:
        return "mean and ranks disagree"
    return f"{pair['better']} is better"


def _rows(metric: ComparedMetric, structures: list[str]) -> dict[str, list[str | None]]:
    """Row -> the structures whose mean it is; None stands for the whole case."""
    if not metric.of_structures:
        return {WHOLE_CASE: [None]}
    rows: dict[str, list[str | None]] = {name: [name] for name in structures}
    if len(structures) > 1:
        rows[MEAN_OF_STRUCTURES] = list(structures)
    return rows


def _row(metric: ComparedMetric, names: list[str], matched: Matched, members: list[str | None]) -> dict[str, Any]:
    numbers = np.array(
        [[_mean(metric, entry, members) for entry in entries] for entries in matched]
    )  # [C, R], NaN where a number does not exist
    exists = ~np.isnan(numbers).any(axis=1)
    cases = [entries[0]["case"] for entries in matched]
    found: dict[str, Any] = {
        "n": int(exists.sum()),
        "without_number": [case for case, there in zip(cases, exists, strict=True) if not there],
    }
    if not exists.any():
        reason = _reason(metric, matched, members)
        return found | {"n_patients": 0, "reason": reason, "patients": [], "values": {}, "means": {}, "pairs": [],
                        "ranking": None}  # fmt: skip
    owners = np.array([entries[0]["patient"] for entries in matched])[exists]
    patients, values = _patient_means(owners, numbers[exists])  # [P, R]
    return found | {
        "n_patients": len(patients),
        "patients": patients,
        "values": {name: values[:, index].tolist() for index, name in enumerate(names)},
        "means": {name: _mean_with_interval(values[:, index], patients) for index, name in enumerate(names)},
        "pairs": [_pair(metric, names, values, *pair) for pair in itertools.combinations(range(len(names)), 2)],
        "ranking": rank_stability(values, names, higher_is_better=metric.higher_is_better),
    }


def _pair(
    metric: ComparedMetric, names: list[str], values: NDArray[np.float64], first: int, second: int
) -> dict[str, Any]:
    compared = paired_difference(values[:, first], values[:, second])
    advantage = compared["difference"]["mean"] * (1 if metric.higher_is_better else -1)
    better = None if advantage == 0 else names[first if advantage > 0 else second]
    found = {"first": names[first], "second": names[second], **compared, "better": better, "p_holm": None}
    if better is None:
        found["better_reason"] = "the means are equal"
    if compared["p"] is None:
        found["p_holm_reason"] = compared["p_reason"]
    return found


def _mean(metric: ComparedMetric, entry: Entry, members: list[str | None]) -> float:
    """Mean over structures, NaN where one of them has no number."""
    return float(np.mean([np.nan if (v := metric.value(entry, name)) is None else v for name in members]))


def _reason(metric: ComparedMetric, matched: Matched, members: list[str | None]) -> str:
    """Why no case has the number in every result: the reason that stands beside the first one that is missing."""
    for entry in itertools.chain.from_iterable(matched):
        figures = entry["structures"].get(members[0], {}) if metric.of_structures else entry["uncertainty"]
        figures = figures["band"] if metric.name.startswith("band_") else figures
        reason = figures.get(f"{metric.name.removeprefix('band_')}_reason")
        if reason:
            return f"{entry['case']}: {reason}"
    return "no case has this number in every result"


def _patient_means(owners: NDArray[Any], numbers: NDArray[np.float64]) -> tuple[list[str], NDArray[np.float64]]:
    patients, group, counts = np.unique(owners, return_inverse=True, return_counts=True)
    sums = np.zeros((patients.size, numbers.shape[1]))
    np.add.at(sums, group, numbers)
    return patients.tolist(), sums / counts[:, None]


def _mean_with_interval(values: NDArray[np.float64], patients: list[str]) -> dict[str, Any]:
    interval = patient_interval(values.tolist(), patients)
    found: dict[str, Any] = {"mean": float(values.mean()), "ci95": None if interval is None else list(interval)}
    return found if interval else found | {"ci95_reason": "an interval needs at least two patients"}


def _require_same_conventions(metric: ComparedMetric, results: Mapping[str, Answer]) -> None:
    for key in metric.conventions:
        stated = {name: answer["conventions"].get(key) for name, answer in results.items()}
        if len(set(map(str, stated.values()))) > 1:
            listed = ", ".join(f"{name}: {text}" for name, text in stated.items())
            raise ConfigError(
                f"{metric.title} was measured under different conventions ({key} of {listed}). Evaluate all results "
                "alike, or choose other figures with --metric."
            )


def _described(name: str, answer: Answer) -> dict[str, Any]:
    uncertainty = answer["summary"].get("uncertainty", {})
    return {
        "name": name,
        "n": len(answer["cases"]),
        "n_failed": len(answer.get("failed", ())),
        "calibrated": answer.get("calibrated"),
        "uncertainty": uncertainty.get("source"),
        "forward_passes": uncertainty.get("forward_passes"),
        "run": dict(answer.get("run", {})),
    }
