"""A metric over many cases: mean, median, interval; and the same for the structures of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medmargin.evaluation.states import State
from medmargin.evaluation.statistics import patient_interval
from medmargin.evaluation.structures import STRUCTURE_METRICS

Entry = Mapping[str, Any]
_OVERLAPS = ("dice", "iou", "nsd")


def distribution(values: Sequence[float | None], patients: Sequence[str], *, reason: str) -> dict[str, Any]:
    """Summarise a metric over cases, leaving out those in which it does not exist.

    Args:
        values: one number or None per case.
        patients: patient of each case.
        reason: why the numbers do not exist, said where none does.

    Returns:
        n, mean, median, ci95 = [low, high] of the mean over patients; None with a reason where one does not exist.
    """
    pairs = [(value, patient) for value, patient in zip(values, patients, strict=True) if value is not None]
    if not pairs:
        return {"n": 0, "mean": None, "median": None, "ci95": None, "reason": reason}
    numbers = [value for value, _ in pairs]
    found: dict[str, Any] = {"n": len(pairs), "mean": float(np.mean(numbers)), "median": float(np.median(numbers))}
    interval = patient_interval(numbers, [patient for _, patient in pairs])
    if interval is None:
        return found | {"ci95": None, "ci95_reason": "an interval needs at least two patients"}
    return found | {"ci95": list(interval)}


def structure_distributions(entries: Sequence[Entry], name: str) -> dict[str, Any]:
    """Summarise one structure over the cases of `evaluate --json`.

    Returns:
        One distribution per metric; the overlaps also without the cases in which the structure is rightly absent, which
        count as 1; and the number of cases in each state.
    """
    measured = [entry["structures"][name] for entry in entries]
    patients = [entry["patient"] for entry in entries]
    present = [figures["state"] != State.ABSENT for figures in measured]
    found: dict[str, Any] = {}
    for metric in STRUCTURE_METRICS:
        if not any(metric in figures for figures in measured):
            continue
        reason = next((text for figures in measured if (text := figures.get(f"{metric}_reason"))), "not measured")
        found[metric] = distribution([figures.get(metric) for figures in measured], patients, reason=reason)
        if metric in _OVERLAPS:
            values = [figures[metric] for figures, counts in zip(measured, present, strict=True) if counts]
            found[metric]["mean_without_absent"] = float(np.mean(values)) if values else None
            if not values:
                found[metric]["mean_without_absent_reason"] = "the structure is absent from every case"
    for state in (State.ABSENT, State.MISSED, State.FALSE):
        found[f"n_{state}"] = sum(figures["state"] == state for figures in measured)
    return found | {"n": len(measured)}


def mean_over_structures(structures: Mapping[str, Mapping[str, Any]], metric: str) -> float | None:
    """Compute the plain mean of the structures' means, or None without cases."""
    means = [figures[metric]["mean"] for figures in structures.values() if metric in figures]
    return float(np.mean(means)) if means else None
