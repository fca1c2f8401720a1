"""The conventions behind every number, in words that travel with the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmargin.evaluation.calibration import FINE_BINS
from medmargin.evaluation.error_overlap import UEO_THRESHOLD
from medmargin.evaluation.patches import PATCH_VOXELS
from medmargin.evaluation.pooling import FAILURE_DICE
from medmargin.evaluation.rater_figures import SAMPLES
from medmargin.evaluation.statistics import RESAMPLES
from medmargin.evaluation.subgroups import FEWEST_PATIENTS
from medmargin.evaluation.voxels import ADAPTIVE_RANGES, ECE_BINS, MCE_VOXELS
from medmargin.uncertainty.bands import BAND_VOXELS


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
        "ignored": "voxels nobody labelled: background in truth and answer for overlap and distances, left out of all "
        "counts of voxels; volumes outside of them, without an interval; only the case score looks at them",
        "regions": "overlapping structures: every voxel counts once per structure with (1 - p, p); wrong is a voxel "
        "where any structure is; 100 of QU-BraTS = ln 2",
        "grid": "every case is measured as a whole on the grid of its truth",
        "ece": "most probable class, equal bins [low, high), the last with 1, weighted by their voxels",
        "ece_bins": ECE_BINS,
        "mce": f"largest gap of the ECE's bins that hold at least {MCE_VOXELS} voxels",
        "rmsce": "root of the squared gaps of the ECE's bins, weighted by their voxels",
        "ece_classwise": "mean over classes with the background (Nixon's static error), or over regions, of the ECE of "
        "that class's own probability, in the bins of `ece`",
        "ece_adaptive": f"the same with {ADAPTIVE_RANGES} bins of equal mass for every class, each weighing the same "
        f"(Nixon's adaptive error); edges from {FINE_BINS} fine bins, which edges cut in proportion",
        "brier": "sum over classes of squared errors, 0 to 2",
        "nll": "nats, probabilities below 1e-12 count as 1e-12",
        "class_probabilities": "structures as given, background = max(0, 1 - their sum), divided by the sum",
        "auroc": "have wrong voxels (final label) more uncertainty; ties half; uncertainty in half precision",
        "aurc": "mean error of the voxels kept against their share, trapezoids; summary.uncertainty.cases: 1 - Dice",
        "average_precision": "wrong voxels found by falling uncertainty, step form; chance is the error rate",
        "fpr95": "share of right voxels above the highest threshold that finds 95 % of the wrong ones",
        "ueo": f"Dice of wrong voxels and those above {UEO_THRESHOLD:.3f} nats (half of ln 2), fixed in advance",
        "ueo_max": "the same at the threshold that is best on these very voxels: too good, an upper bound",
        "ueo_held_out": "the same, each patient's voxels at the threshold that is best on all other patients",
        "pavpu": f"squares of {PATCH_VOXELS} x {PATCH_VOXELS} voxels in planes of the first two axes, of the band its "
        "own: share that are accurate (more than half right) and certain, or neither; certain: a mean uncertainty "
        f"up to {UEO_THRESHOLD:.3f} nats",
        "accurate_if_certain": "share of the certain squares that are accurate",
        "uncertain_if_inaccurate": "share of the inaccurate squares that are uncertain",
        "qu_brats": "(Dice area + (1 - filtered true positives) + (1 - filtered true negatives)) / 3, mean over "
        "structures; 41 thresholds; one map for all structures, 100 = ln(number of classes); no brain mask",
        "e_aurc": "AURC of the cases minus that of the best order, by the same trapezoids; risk 1 - mean Dice",
        "failure": f"a case fails with a mean Dice below {FAILURE_DICE}; AUROC of the case score",
        "volume_coverage": "ends belong to the interval; width (high - low) / true volume, empty structures left out; "
        "ci95 by structure: Clopper-Pearson over cases",
        "ged": f"squared, d = 1 - IoU (two empty masks: 0), V-statistic; {SAMPLES} samples: the level sets "
        "p > (i + 1/2) / 16 of a structure's map, or the mask alone; by structure, then the mean",
        "hungarian_iou": "mean IoU of the best one-to-one match of samples and raters, repeated to a common number",
        "rater_dice": "mean over pairs of raters; mask_dice: final mask against each rater; the truth is one rater",
        "rater_ece": "ECE with each rater as the truth in turn (ece_each) and over voxels x raters (ece); band: of the "
        "borders of all raters and the mask",
        "ncc": "correlation over all voxels of sum_k q_k (1 - q_k) (q_k: share of raters) and the uncertainty",
        "subgroups": "numbers cut at tertiles of the cases; gap and equity-scaled Dice, M / (1 + sum |M_g - M|), over "
        f"groups of {FEWEST_PATIENTS} patients or more; gap_ci95: patients of best and worst group drawn anew; "
        "gap_p: permutations",
        "band": f"voxels within {BAND_VOXELS} voxels of a border in truth or prediction",
        "case_score": f"mean uncertainty within {BAND_VOXELS} voxels of a predicted border",
        "pooled": "voxels of all cases",
        "ci95": f"percentile bootstrap of the mean over patients, {RESAMPLES} draws, seed 0",
    }
