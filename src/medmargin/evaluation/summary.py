"""Many measured cases to one answer: the JSON object of `medmargin evaluate`."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from medmargin.errors import ConfigError
from medmargin.evaluation.conventions import conventions
from medmargin.evaluation.distributions import distribution, mean_over_structures, structure_distributions
from medmargin.evaluation.error_overlap import HeldOutOverlap
from medmargin.evaluation.measure import CaseResult
from medmargin.evaluation.pooling import curves, pooled_uncertainty
from medmargin.evaluation.rater_summary import summarise_raters
from medmargin.evaluation.subgroups import summarise_subgroups
from medmargin.evaluation.volume_coverage import volume_coverage
from medmargin.evaluation.voxels import VoxelCounter

_FLOORS = ("box", "ellipse")
_LIBRARIES = ("medmargin", "numpy", "scipy", "torch")


def summarise(
    results: Iterable[CaseResult],
    *,
    failed: Sequence[Mapping[str, str]] = (),
    source: str | None = None,
    forward_passes: int | None = None,
    calibrated: bool = False,
    run: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Summarise an evaluation.

    The results are consumed one by one and only their entries are kept, so a generator that measures as it goes needs
    little memory; `failed` is read after the last result.

    Args:
        results: one per case.
        failed: {"case", "error"} of each case that could not be measured.
        source: name of the uncertainty, e.g. "prompt perturbation".
        forward_passes: network evaluations per image behind it.
        calibrated: whether a held-out set calibrated the predictor.
        run: what is known of the run (system, arguments, weights, seed).

    Returns:
        The object of `evaluate --json`, of plain JSON types; a number that does not exist is None with its reason
        beside it, as `<name>_reason` or `reason`.

    Raises:
        ConfigError: cases of one unit were measured with different tolerances.
    """
    entries: list[dict[str, Any]] = []
    whole, near = VoxelCounter(), VoxelCounter()
    overlaps = HeldOutOverlap(), HeldOutOverlap()
    tolerances: dict[str, float] = {}
    for result in results:
        entries.append(result.entry)
        whole.add(result.whole)
        near.add(result.band)
        for overlap, tally in zip(overlaps, (result.whole, result.band), strict=True):
            overlap.add(result.patient, tally.ranked)
        if tolerances.setdefault(result.unit, result.nsd_tolerance) != result.nsd_tolerance:
            raise ConfigError(
                f"{result.case}: its surface Dice has the tolerance {result.nsd_tolerance} {result.unit}, that of the "
                f"cases before it {tolerances[result.unit]}. Measure all cases with one tolerance."
            )
    everywhere, at_borders = whole.tally(), near.tally()
    names = list(entries[0]["structures"]) if entries else []
    structures = {name: structure_distributions(entries, name) for name in names}
    uncertainty = pooled_uncertainty(entries, (everywhere, at_borders), overlaps)
    for key, value in (("source", source), ("forward_passes", forward_passes)):
        uncertainty[key] = value
        if value is None:
            uncertainty[f"{key}_reason"] = "not recorded with the prediction"
    return {
        "cases": entries,
        "failed": [dict(failure) for failure in failed],
        "summary": {
            "n": len(entries),
            "n_patients": len({entry["patient"] for entry in entries}),
            "structures": structures,
            "mean": _means(entries, structures),
            "floors": _floors(entries, names),
            "uncertainty": uncertainty,
            "volume_coverage": volume_coverage(entries),
            **_optional("raters", summarise_raters(entries), "no case has a second rater"),
            **_optional("subgroups", summarise_subgroups(entries), "no case has attributes"),
        },
        "curves": curves(entries, everywhere, at_borders),
        "calibrated": calibrated,
        "conventions": conventions(tolerances),
        "run": dict(run or {}),
        "versions": _versions(),
    }


def _optional(name: str, found: dict[str, Any] | None, reason: str) -> dict[str, Any]:
    return {name: found} if found is not None else {name: None, f"{name}_reason": reason}


def _means(entries: Sequence[Mapping[str, Any]], structures: Mapping[str, Any]) -> dict[str, Any]:
    """Means over structures, with the interval of the cases' means."""
    means: dict[str, Any] = {}
    patients = [entry["patient"] for entry in entries]
    for metric in ("dice", "nsd"):
        per_case = [float(np.mean([figures[metric] for figures in entry["structures"].values()])) for entry in entries]
        over_cases = distribution(per_case, patients, reason="no case was measured")
        means[metric], means[f"{metric}_ci95"] = mean_over_structures(structures, metric), over_cases["ci95"]
        if means[metric] is None:
            means[f"{metric}_reason"] = over_cases["reason"]
        if over_cases["ci95"] is None:
            means[f"{metric}_ci95_reason"] = over_cases.get("ci95_reason", over_cases.get("reason"))
    return means


def _floors(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Dice of what the prompts alone give, on the same cases."""
    floors: dict[str, Any] = {}
    for floor in sorted({*_FLOORS, *(name for entry in entries for name in entry.get("floors", {}))}):
        measured = [entry["floors"][floor] for entry in entries if floor in entry.get("floors", {})]
        if not measured:
            floors[floor] = {"dice": None, "dice_reason": "the prompts did not come from the truth"}
            continue
        by_structure = {name: float(np.mean([case[name] for case in measured])) for name in names}
        floors[floor] = {"dice": float(np.mean(list(by_structure.values()))), "structures": by_structure}
        floors[floor]["n"] = len(measured)
    return floors


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found
