"""The uncertainty of many cases: pooled voxels, the spread over cases, and whether it tells good cases from bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.evaluation.bands import BAND_VOXELS
from medmargin.evaluation.calibration import Reliability, equal_width
from medmargin.evaluation.distributions import distribution
from medmargin.evaluation.risk_coverage import augrc, aurc, excess_aurc, oracle, risk_coverage
from medmargin.evaluation.voxels import ECE_BINS, VoxelTally, voxel_figures

Entry = Mapping[str, Any]
_TOO_FEW = "fewer than two cases with an uncertainty map"


def pooled_uncertainty(entries: Sequence[Entry], whole: VoxelTally, near: VoxelTally) -> dict[str, Any]:
    """Summarise the uncertainty over cases.

    Args:
        entries: `cases` of `evaluate --json`.
        whole, near: voxels of all cases, everywhere and near borders.

    Returns:
        The figures of the pooled voxels, `band` likewise, `per_case` distributions, and `cases` (images as items).
    """
    patients = [entry["patient"] for entry in entries]
    per_case: dict[str, Any] = {}
    for region, figures in (("", [entry["uncertainty"] for entry in entries]),
                            ("band_", [entry["uncertainty"]["band"] for entry in entries])):  # fmt: skip
        for metric in ("ece", "auroc"):
            reason = next((text for case in figures if (text := case.get(f"{metric}_reason"))), "no case was measured")
            values = [case[metric] for case in figures]
            per_case[region + metric] = distribution(values, patients, reason=reason)
    return {
        **voxel_figures(whole),
        "band": {**voxel_figures(near), "voxels": BAND_VOXELS},
        "per_case": per_case,
        "cases": _selective_prediction(entries),
    }


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
    risk, confidence = _risks(entries)
    if risk.size < 2:
        return {"n": int(risk.size), **dict.fromkeys(("aurc", "e_aurc", "augrc"), None), "reason": _TOO_FEW}
    curve = risk_coverage(risk, confidence)
    return {
        "n": int(risk.size),
        "aurc": aurc(curve),
        "e_aurc": excess_aurc(risk, confidence),
        "augrc": augrc(curve),
    }


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
