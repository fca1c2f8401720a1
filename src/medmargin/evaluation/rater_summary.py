"""Cases with several raters to one table: the agreement of people is the ceiling for any program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medmargin.evaluation.distributions import distribution
from medmargin.evaluation.rater_figures import FIGURES


def summarise_raters(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Summarise the raters' figures over the cases (`cases` of `evaluate --json`) that have further raters.

    Returns:
        n (cases), n_raters and samples (lowest, highest), what the samples are; `structures` and `mean`: figure ->
        distribution over cases; `ncc`; `ece` (voxels x raters), `ece_each` (the mean over a case's raters) and both of
        the `band`. None where no case has further raters.
    """
    measured = [entry for entry in entries if "raters" in entry]
    if not measured:
        return None
    patients = [entry["patient"] for entry in measured]
    found = [entry["raters"] for entry in measured]

    def distributions(blocks: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        return {
            key: distribution([block[key] for block in blocks], patients, reason="there is no structure")
            for key in FIGURES
        }

    reason = next((case["ncc_reason"] for case in found if case["ncc"] is None), "")
    return {
        "n": len(measured),
        "n_raters": [min(case["n"] for case in found), max(case["n"] for case in found)],
        "samples": [min(case["samples"] for case in found), max(case["samples"] for case in found)],
        "samples_are": sorted({case["samples_are"] for case in found}),
        "structures": {
            name: distributions([case["structures"][name] for case in found]) for name in found[0]["structures"]
        },
        "mean": distributions([case["mean"] for case in found]),
        "ncc": distribution([case["ncc"] for case in found], patients, reason=reason),
        **_calibration(found, patients),
        "band": _calibration([case["band"] for case in found], patients),
    }


def _calibration(found: Sequence[Mapping[str, Any]], patients: Sequence[str]) -> dict[str, Any]:
    reason = next((case["ece_reason"] for case in found if case["ece"] is None), "")
    each = [None if case["ece_each"] is None else float(np.mean(case["ece_each"])) for case in found]
    return {
        "ece": distribution([case["ece"] for case in found], patients, reason=reason),
        "ece_each": distribution(each, patients, reason=reason),
    }
