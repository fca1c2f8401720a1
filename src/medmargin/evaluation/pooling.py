"""The uncertainty of many cases: pooled voxels, the spread over cases, and whether it tells good cases from bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medmargin.evaluation.calibration import Reliability, equal_width
from medmargin.evaluation.distributions import distribution
from medmargin.evaluation.error_detection import auroc, ranking
from medmargin.evaluation.error_overlap import HeldOutOverlap
from medmargin.evaluation.filtering import filtering_figures
from medmargin.evaluation.risk_coverage import augrc, aurc, excess_aurc, oracle, risk_coverage
from medmargin.evaluation.voxels import ECE_BINS, VoxelTally, voxel_figures
from medmargin.uncertainty.bands import BAND_VOXELS

Entry = Mapping[str, Any]
_PER_CASE = (
    "ece", "ece_classwise", "ece_adaptive", "brier", "auroc", "average_precision", "fpr95", "ueo", "ueo_max", "pavpu",
    "qu_brats",
)  # fmt: skip
FAILURE_DICE = 0.7  # a case below it counts as failed
_TOO_FEW = "fewer than two cases with an uncertainty map"


def pooled_uncertainty(
    entries: Sequence[Entry], tallies: tuple[VoxelTally, VoxelTally], overlaps: tuple[HeldOutOverlap, HeldOutOverlap]
) -> dict[str, Any]:
    """Summarise the uncertainty over cases.

    Args:
        entries: `cases` of `evaluate --json`.
        tallies: voxels of all cases, everywhere and near borders.
        overlaps: the same voxels by patient.

    Returns:
        The figures of the pooled voxels, `band` likewise, `per_case` distributions, and `cases` (images as items).
    """
    patients = [entry["patient"] for entry in entries]
    per_case: dict[str, Any] = {}
    for region, figures in (("", [entry["uncertainty"] for entry in entries]),
                            ("band_", [entry["uncertainty"]["band"] for entry in entries])):  # fmt: skip
        for metric in _PER_CASE:
            per_case[region + metric] = _over_cases(figures, metric, patients)
    per_case["case_score"] = _over_cases([entry["uncertainty"] for entry in entries], "case_score", patients)
    names = list(entries[0]["structures"]) if entries else []
    everywhere, at_borders = (
        voxel_figures(tally) | _held_out(overlap) | {"structures": filtering_figures(tally.filtered, names)}
        for tally, overlap in zip(tallies, overlaps, strict=True)
    )
    return {
        **everywhere,
        "band": {**at_borders, "voxels": BAND_VOXELS},
        "per_case": per_case,
        "cases": _selective_prediction(entries),
    }


def _over_cases(figures: Sequence[Entry], metric: str, patients: Sequence[str]) -> dict[str, Any]:
    reason = next((text for case in figures if (text := case.get(f"{metric}_reason"))), "no case was measured")
    return distribution([case[metric] for case in figures], patients, reason=reason)


def _held_out(overlap: HeldOutOverlap) -> dict[str, Any]:
    found = overlap.overlap()
    if found is None:
        reason = "fewer than two patients with an uncertainty map"
        return {"ueo_held_out": None, "ueo_held_out_threshold": None} | {
            f"{name}_reason": reason for name in ("ueo_held_out", "ueo_held_out_threshold")
        }
    return {"ueo_held_out": found[0], "ueo_held_out_threshold": found[1]}


def curves(entries: Sequence[Entry], whole: VoxelTally, near: VoxelTally) -> dict[str, Any]:
    """Collect the points of the reliability diagram and of the risk-coverage curve of the cases."""
    risk, confidence = _risks(entries)
    reliability: dict[str, Any] = {
        name: _reliability_points(tally.bins) for name, tally in (("whole", whole), ("band", near))
    }
    found: dict[str, Any] = {"reliability": reliability, "risk_coverage": None}
    if None in reliability.values():
        reliability["reason"] = "no probabilities were given"
    if risk.size < 2:
        return found | {"risk_coverage_reason": _TOO_FEW}
    curve, best = risk_coverage(risk, confidence), oracle(risk)
    found["risk_coverage"] = {
        "coverage": curve.coverages.tolist(),
        "risk": curve.selective.tolist(),
        "oracle_coverage": best.coverages.tolist(),
        "oracle_risk": best.selective.tolist(),
    }
    return found


def _selective_prediction(entries: Sequence[Entry]) -> dict[str, Any]:
    """Images as items: areas under the risk-coverage curve, and whether the case score tells bad cases from good."""
    risk, confidence = _risks(entries)
    n = int(risk.size)
    if n < 2:
        names = ("aurc", "e_aurc", "augrc", "spearman", "failure_auroc")
        return {"n": n, **dict.fromkeys(names), "failure_dice": FAILURE_DICE, "n_failures": 0, "reason": _TOO_FEW}
    curve = risk_coverage(risk, confidence)
    failed = risk > 1.0 - FAILURE_DICE
    found: dict[str, Any] = {
        "n": n,
        "aurc": aurc(curve),
        "e_aurc": excess_aurc(risk, confidence),
        "augrc": augrc(curve),
        "failure_dice": FAILURE_DICE,
        "n_failures": int(failed.sum()),
        "failure_auroc": auroc(ranking(-confidence, failed)),
    }
    if found["failure_auroc"] is None:
        found["failure_auroc_reason"] = f"{'every' if failed.all() else 'no'} case has a Dice below {FAILURE_DICE}"
    if np.ptp(risk) == 0 or np.ptp(confidence) == 0:
        return found | {"spearman": None, "spearman_reason": "all cases have the same Dice or the same score"}
    return found | {"spearman": float(stats.spearmanr(-confidence, risk).statistic)}


def _risks(entries: Sequence[Entry]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Risk 1 - mean Dice over structures, and confidence, of the cases with an uncertainty map."""
    scored = [entry for entry in entries if entry["uncertainty"]["case_score"] is not None]
    risk = [1.0 - np.mean([figures["dice"] for figures in entry["structures"].values()]) for entry in scored]
    return np.array(risk, np.float64), -np.array([entry["uncertainty"]["case_score"] for entry in scored], np.float64)


def _reliability_points(bins: Reliability | None) -> list[dict[str, float]] | None:
    if bins is None:
        return None
    edges = np.minimum(equal_width(ECE_BINS).edges, 1.0)
    return [
        {
            "low": float(edges[index]),
            "high": float(edges[index + 1]),
            "voxels": int(bins.counts[index]),
            "confidence": float(bins.confidences[index] / bins.counts[index]),
            "observed": float(bins.outcomes[index] / bins.counts[index]),
        }
        for index in np.flatnonzero(bins.filled)
    ]
