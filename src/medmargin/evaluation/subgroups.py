"""Subgroups of cases by age, sex, site ..: is anybody served worse, and by how much at least?

Equity-scaled Dice: see `equity`. Numbers are cut into tertiles at values that occur, texts are groups as they stand. A
group of fewer than three patients is shown without an interval and is no candidate for the worst. With many attributes
some gap is chance, and the best and the worst of many groups always differ: `gap_p` says how often a gap of this size
or larger comes about when the groups are drawn by lot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medmargin.evaluation.distributions import distribution
from medmargin.evaluation.equity import equity
from medmargin.evaluation.statistics import RESAMPLES

Entry = Mapping[str, Any]
FEWEST_PATIENTS = 3
_MOST_GROUPS = 12
_FEWEST_NUMBERS = 4  # numbers with fewer values are codes (0 and 1), and groups as they stand
_NAMES_OF_PATIENTS = ("case", "patient", "patient_id", "patientid", "subject")


def summarise_subgroups(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """Compare the subgroups of every attribute of the cases (`cases` of `evaluate --json`).

    Returns:
        Attribute -> `groups` (name -> n, n_patients, dice, nsd, band_ece as distributions over cases), `kind`
        ("number" with its `borders`, or "text"), `n_missing`, and over the groups of at least three patients:
        `worst`, `best`, `gap` of their mean Dice with `gap_ci95` and `gap_p`, `equity_scaled_dice`. An attribute that
        makes no groups has only a `reason`. None where no case has attributes.
    """
    known = dict.fromkeys(name for entry in entries for name in entry.get("attributes", {}))
    names = [name for name in known if name.lower() not in _NAMES_OF_PATIENTS]
    return {name: _attribute(entries, name) for name in names} if names else None


def _attribute(entries: Sequence[Entry], name: str) -> dict[str, Any]:
    values = [entry.get("attributes", {}).get(name, "").strip() for entry in entries]
    recorded = [value for value in values if value]
    numbers = _numbers(recorded)
    found: dict[str, Any] = {"kind": "text", "n_missing": len(values) - len(recorded)}
    if numbers is not None:
        borders = np.quantile(numbers, [1 / 3, 2 / 3], method="inverted_cdf").tolist()
        found |= {"kind": "number", "borders": borders}
        values = [_tertile(float(value), borders) if value else "" for value in values]
        order = [*_tertile_names(borders)]
    else:
        order = sorted(set(recorded))
    groups = {group: [e for e, value in zip(entries, values, strict=True) if value == group] for group in order}
    groups = {group: members for group, members in groups.items() if members}
    if len(groups) < 2:
        return found | {"reason": "all cases have the same value" if groups else "not recorded for any case"}
    if len(groups) > _MOST_GROUPS:
        return found | {"reason": f"{len(groups)} different texts are too many to compare (at most {_MOST_GROUPS})"}
    found["groups"] = {group: _group(members) for group, members in groups.items()}
    return found | _inequality({g: members for g, members in groups.items() if _patients(members) >= FEWEST_PATIENTS})


def _numbers(values: Sequence[str]) -> list[float] | None:
    """The values as numbers, or None where they are no measurements."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) and len(set(numbers)) >= _FEWEST_NUMBERS else None


def _tertile_names(borders: Sequence[float]) -> dict[str, None]:
    low, high = (f"{border:g}" for border in borders)
    return dict.fromkeys((f"up to {low}", f"above {low}, up to {high}", f"above {high}"))


def _tertile(value: float, borders: Sequence[float]) -> str:
    return [*_tertile_names(borders)][sum(value > border for border in borders)]


def _group(members: Sequence[Entry]) -> dict[str, Any]:
    patients = [entry["patient"] for entry in members]
    columns = {
        "dice": [_mean(entry, "dice") for entry in members],
        "nsd": [_mean(entry, "nsd") for entry in members],
        "band_ece": [entry["uncertainty"]["band"]["ece"] for entry in members],
    }
    found: dict[str, Any] = {"n": len(members), "n_patients": _patients(members)}
    for metric, values in columns.items():
        reason = next((t for e in members if (t := e["uncertainty"]["band"].get("ece_reason"))), "not measured")
        found[metric] = distribution(values, patients, reason=reason)
        if found["n_patients"] < FEWEST_PATIENTS and found[metric]["mean"] is not None:
            found[metric] |= {"ci95": None, "ci95_reason": f"fewer than {FEWEST_PATIENTS} patients"}
    return found


def _inequality(groups: Mapping[str, Sequence[Entry]]) -> dict[str, Any]:
    """Compare the mean Dice of the groups that are large enough."""
    if len(groups) < 2:
        missing = dict.fromkeys(("worst", "best", "gap", "gap_ci95", "gap_p", "equity_scaled_dice"))
        return missing | {"reason": f"fewer than two groups have {FEWEST_PATIENTS} patients"}
    found = equity({name: [_mean(entry, "dice") for entry in members] for name, members in groups.items()})
    best = max(found.groups, key=lambda name: found.groups[name])
    return {
        "worst": found.worst,
        "best": best,
        "gap": found.gap,
        "gap_ci95": _gap_interval(groups[best], groups[found.worst]),
        "gap_p": _chance_of_gap([*groups.values()]),
        "equity_scaled_dice": found.scaled,
    }


def _gap_interval(best: Sequence[Entry], worst: Sequence[Entry]) -> list[float]:
    """95 % interval of the difference of two means when the patients of both groups are drawn anew."""
    groups = [_patient_sums(members) for members in (best, worst)]

    def gap(first: NDArray[np.int64], second: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        means = [
            sums[drawn].sum(axis=axis) / counts[drawn].sum(axis=axis)
            for (sums, counts), drawn in zip(groups, (first, second), strict=True)
        ]
        return np.asarray(means[0] - means[1])

    result = stats.bootstrap(
        [np.arange(sums.size) for sums, _ in groups],
        gap,
        n_resamples=RESAMPLES,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def _chance_of_gap(groups: Sequence[Sequence[Entry]]) -> float:
    """Permutation p-value of the largest minus the smallest group mean; a patient's cases in a group are one item."""
    items = [np.divide(*_patient_sums(members)) for members in groups]

    def gap(*samples: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        means = np.stack([sample.mean(axis=axis) for sample in samples])
        return np.asarray(np.ptp(means, axis=0))

    result = stats.permutation_test(
        items, gap, vectorized=True, n_resamples=RESAMPLES, alternative="greater", rng=np.random.default_rng(0)
    )
    return float(result.pvalue)


def _patient_sums(members: Sequence[Entry]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Summed Dice and number of cases of each patient."""
    _, patient = np.unique([entry["patient"] for entry in members], return_inverse=True)
    dice = np.array([_mean(entry, "dice") for entry in members])
    return np.bincount(patient, weights=dice).astype(np.float64), np.bincount(patient).astype(np.int64)


def _patients(members: Sequence[Entry]) -> int:
    return len({entry["patient"] for entry in members})


def _mean(entry: Entry, metric: str) -> float:
    """Mean over the structures of a case."""
    return float(np.mean([figures[metric] for figures in entry["structures"].values()]))
