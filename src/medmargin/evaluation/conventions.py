"""The conventions behind every number, in words that travel with the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmargin.evaluation.bands import BAND_VOXELS
from medmargin.evaluation.statistics import RESAMPLES
from medmargin.evaluation.voxels import ECE_BINS


def conventions(tolerances: Mapping[str, float]) -> dict[str, Any]:
    """Describe how the numbers of a summary were made.

    Args:
        tolerances: unit ("mm", "px") -> tolerance of the surface Dice in cases of that unit.
    """
    return {
        "nsd_tolerance_mm": tolerances.get("mm"),
        "nsd_tolerance_px": tolerances.get("px"),
        "nsd": "surface elements between voxel corners, weighted by area (google-deepmind/surface-distance)",
        "hd95": "larger of the two directed 95th percentiles over surface voxels, linearly interpolated (MONAI)",
        "assd": "mean over the surface voxels of both masks (MONAI, symmetric)",
        "relative_volume_error": "(mask - truth) / truth: positive where the mask is too large",
        "empty": "both empty: Dice, IoU, NSD 1, counted as absent, no distance; one empty: 0 and the image diagonal",
        "grid": "every case is measured as a whole on the grid of its truth",
        "ece": "most probable class, equal bins [low, high), the last with 1, weighted by their voxels",
        "ece_bins": ECE_BINS,
        "brier": "sum over classes of squared errors, 0 to 2",
        "nll": "nats, probabilities below 1e-12 count as 1e-12",
        "class_probabilities": "structures as given, background = max(0, 1 - their sum), divided by the sum",
        "auroc": "have wrong voxels (final label) more uncertainty; ties half; uncertainty in half precision",
        "aurc": "mean error of the voxels kept against their share, trapezoids; summary.uncertainty.cases: 1 - Dice",
        "band": f"voxels within {BAND_VOXELS} voxels of a border in truth or prediction",
        "case_score": f"mean uncertainty within {BAND_VOXELS} voxels of a predicted border",
        "pooled": "voxels of all cases",
        "ci95": f"percentile bootstrap of the mean over patients, {RESAMPLES} draws, seed 0",
    }
