"""The authors' metric implementations, number by number, on the masks, probabilities and curves of the file.

Which numbers a vector holds, their tolerances and bin counts stand in the file's `config` and in the names of its
outputs, so any file of the format can be recomputed. Numbers that the authors' code gives for empty masks (NaN,
infinity, 0 or 1, by code base) are reproduced here and nowhere else: the toolkit's own rule is in `evaluation.states`.

`values` of an `rc*` part with equal confidences depends on how NumPy sorts equal items. The file's numbers were made
with the vectorised sort of x86 processors (AVX2 or later); elsewhere that vector can differ in the third decimal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medmargin.errors import CheckpointError
from medmargin.evaluation import calibration, equity, error_detection, qu_brats, raters, risk_coverage, scoring_rules
from medmargin.evaluation.overlap import dice, iou
from medmargin.evaluation.surface import (
    SurfaceDistances,
    average_symmetric_distance,
    boundary_iou,
    directed_averages,
    element_surface,
    hausdorff,
    surface_dice,
    voxel_surface,
    weighted_hausdorff,
)
from medmargin.uncertainty.decomposition import decompose
from medmargin.uncertainty.local_temperature import LocalTemperature
from medmargin.uncertainty.risk_control import controlled_lambda
from medmargin.verification.reference import Reference

TOLERANCE = 1e-6
_SURFACE_TOLERANCE = 1e-5  # MONAI measures distances in single precision
_Array = NDArray[Any]
_Inputs = dict[str, _Array]
_Numbers = Mapping[str, Any]


def tolerance_of(name: str) -> float:
    """Tolerance of an output: the surface vectors of a pair of masks have their own."""
    group, _, vector = name.partition(".output.")
    return _SURFACE_TOLERANCE if vector in _SURFACE_SOURCES and _kind(group) not in _PARTS else TOLERANCE


def recompute(reference: Reference) -> dict[str, _Array]:
    """Recompute every output of the file from its inputs, its weights and its config."""
    answers: dict[str, _Array] = {}
    for group in sorted({name.split(".output.")[0] for name in reference.outputs}):
        inputs, outputs, _ = reference.group(group)
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        numbers = _part(group, arrays)(reference, group, arrays)
        answers |= {f"{group}.output.{name}": np.asarray(numbers[name]) for name in outputs if name in numbers}
    return answers


def _part(group: str, inputs: _Inputs) -> Callable[[Reference, str, _Inputs], _Numbers]:
    if {"gt", "pred", "spacing"} <= inputs.keys():
        return _surface
    kind = _kind(group)
    if kind not in _PARTS:
        raise CheckpointError(f"part '{group}' is none of {', '.join(sorted(_PARTS))} and no pair of masks")
    return _PARTS[kind]


def _kind(group: str) -> str:
    return group.split("_")[0]  # rc_ties is another rc


# Surface and overlap


def _surface(reference: Reference, group: str, inputs: _Inputs) -> _Numbers:
    truth, mask, spacing = inputs["gt"] > 0, inputs["pred"] > 0, inputs["spacing"].tolist()
    elements, voxels = element_surface(truth, mask, spacing), voxel_surface(truth, mask, spacing)
    numbers: dict[str, Any] = {"dice_iou": [dice(truth, mask), iou(truth, mask)]}
    for source, empty_value in _SURFACE_SOURCES.items():
        vector = []
        for name in reference.config["surface"][source]:
            distances = elements if source == "deepmind" or "subvoxel" in name else voxels
            if name.startswith("boundary IoU"):
                found = boundary_iou(truth, mask, _last_number(name))
            else:
                found = _surface_number(name, distances, weighted=source == "deepmind")
            vector.append(empty_value(name, distances) if found is None else found)
        numbers[source] = vector
    return numbers


def _surface_number(name: str, distances: SurfaceDistances, *, weighted: bool) -> float | None:
    if name.startswith("NSD"):
        return surface_dice(distances, _last_number(name))
    if name.startswith("HD"):
        percentile = float(name[2:] or 100)
        return (weighted_hausdorff if weighted else hausdorff)(distances, percentile)
    if name.startswith("ASSD"):
        return average_symmetric_distance(distances)
    averages = directed_averages(distances)
    if averages is None:
        return None
    if name.startswith("MASD"):
        return sum(averages) / 2
    return averages[0 if name.startswith("ASD gt->pred") else 1]


def _deepmind_empty(name: str, distances: SurfaceDistances) -> float:
    if name.startswith("HD"):
        return math.inf
    side = distances.truth_to_mask if name.startswith("ASD gt->pred") else distances.mask_to_truth
    return math.inf if name.startswith("ASD") and side.size else math.nan


def _monai_empty(name: str, distances: SurfaceDistances) -> float:
    both_empty = not distances.truth_to_mask.size and not distances.mask_to_truth.size
    return math.inf if not both_empty and (name.startswith("AS") or name == "HD100") else math.nan


def _metricsreloaded_empty(name: str, distances: SurfaceDistances) -> float:
    if distances.truth_to_mask.size or distances.mask_to_truth.size or name.startswith("boundary IoU"):
        return math.nan
    return 1.0 if name.startswith("NSD") else 0.0


_SURFACE_SOURCES: dict[str, Callable[[str, SurfaceDistances], float]] = {
    "deepmind": _deepmind_empty,
    "monai": _monai_empty,
    "metricsreloaded": _metricsreloaded_empty,
}


# Calibration


def _multiclass_calibration(reference: Reference, group: str, inputs: _Inputs) -> _Numbers:
    probabilities = torch.from_numpy(inputs["logits"]).softmax(dim=1).numpy()  # in single precision, as the authors
    labels, boundary = inputs["labels"], inputs["boundary"].ravel() > 0
    confidence, right = calibration.top_label(probabilities, labels)
    classwise_bins = _first_number(next(name for name in reference.config["cal"]["metricsreloaded"] if "bins" in name))
    brier = scoring_rules.brier_score(probabilities, labels)
    numbers: dict[str, Any] = {
        "nll": [scoring_rules.negative_log_likelihood(probabilities, labels)],
        "metricsreloaded": [
            calibration.classwise_error(probabilities, labels, calibration.open_at_zero(classwise_bins)),
            brier,
            math.sqrt(brier),
            scoring_rules.logarithmic_score(probabilities, labels),
        ],
    }
    for name, bins in _binned_outputs(reference, group):
        if name.startswith("torchmetrics"):
            counted = calibration.reliability(confidence, right, calibration.torchmetrics_binning(bins))
            numbers[name] = [
                calibration.expected_error(counted),
                calibration.maximum_error(counted),
                calibration.root_mean_square_error(counted),
            ]
        elif name.startswith("lts_paper"):
            chosen = boundary if "boundary" in name else np.ones(labels.size, bool)
            numbers[name] = _ding(probabilities.argmax(axis=1), labels, confidence, chosen, bins)
        elif name.startswith("values_ace"):
            counted = calibration.reliability(confidence, right, calibration.equal_width(bins))
            numbers[name] = [calibration.average_error(counted)]
    return numbers


def _ding(predicted: _Array, labels: _Array, confidence: _Array, chosen: _Array, bins: int) -> list[float | None]:
    """ECE, MCE, SCE and ACE of the chosen items; the percentiles are those of all items."""
    percentiles = calibration.percentile_binning(confidence, bins)
    predicted, labels, confidence = predicted[chosen], labels[chosen], confidence[chosen]
    counted = calibration.reliability(confidence, predicted == labels, calibration.open_at_zero(bins))
    return [
        calibration.expected_error(counted, of_all_items=True),
        calibration.maximum_error(counted),
        calibration.predicted_class_error(confidence, predicted, labels, calibration.open_at_zero(bins)),
        calibration.predicted_class_error(confidence, predicted, labels, percentiles),
    ]


def _binary_calibration(reference: Reference, group: str, inputs: _Inputs) -> _Numbers:
    probability, truth = inputs["prob"].ravel(), inputs["target"].ravel()
    numbers: dict[str, Any] = {}
    for name, bins in _binned_outputs(reference, group):
        if name.startswith("jungo"):
            counted = calibration.reliability(probability, truth, calibration.jungo_binning(bins))
            weightings: tuple[calibration.Weights, ...] = ("proportion", "log_proportion", "mean_proportion")
            numbers[name] = [calibration.expected_error(counted, weights) for weights in weightings]
        elif name.startswith("metricsreloaded"):
            counted = calibration.reliability(probability, truth, calibration.open_at_zero(bins))
            numbers[name] = [calibration.expected_error(counted), calibration.maximum_error(counted)]
        elif name.startswith("monai"):
            counted = calibration.reliability(probability, truth, calibration.monai_binning(bins))
            kinds = (calibration.expected_error, calibration.average_error, calibration.maximum_error)
            numbers[name] = [kind(counted) for kind in kinds]
    return numbers


def _local_temperature(reference: Reference, group: str, inputs: _Inputs) -> _Numbers:
    logits, image = torch.from_numpy(inputs["logits"]), torch.from_numpy(inputs["image"])
    weights = reference.group(group)[2]
    local, per_image = (_temperature_network(weights, logits, image, per_image=choice) for choice in (False, True))
    with torch.inference_mode():
        return {
            "temperature": local.temperature(logits, image).numpy(),
            "scaled_logits": local(logits, image).numpy(),
            "ibts_scaled_logits": per_image(logits, image).numpy(),
        }


def _temperature_network(
    weights: Mapping[str, Tensor], logits: Tensor, image: Tensor, *, per_image: bool
) -> LocalTemperature:
    network = LocalTemperature(
        logits.shape[1], image.shape[1], dims=logits.ndim - 2, per_image=per_image, released=True
    ).eval()
    network.load_state_dict(dict(weights))
    return network


# Uncertainty, errors, raters, guarantees


def _entropy(reference: Reference, group: str, inputs: _Inputs) -> _Numbers:
    maps = decompose(inputs["softmax_samples"].astype(np.float64))
    return {
        "pred_entropy": maps.total,
        "aleatoric_uncertainty": maps.aleatoric,
        "epistemic_uncertainty": maps.epistemic,
    }


def _risk_coverage(reference: Reference, group: str, inputs: _Inputs) -> _Numbers:
    risk, confidence = 1.0 - inputs["dice"], inputs["confidence"]
    curve = risk_coverage.risk_coverage(risk, confidence)
    best = risk_coverage.aurc(risk_coverage.oracle(risk))
    area = risk_coverage.aurc(curve)
    return {
        "coverages": curve.coverages,
        "risks": curve.selective,
        "fdshifts": [area, area - best, best, risk_coverage.augrc(curve)],
        "values": [
            risk_coverage.values_aurc(risk, confidence, released=True),
            risk_coverage.values_excess_aurc(risk, confidence, released=True),
        ],
    }


def _failures(reference: Reference, group: str, inputs: _Inputs) -> _Numbers:
    """Failed images, told by their confidence; the images are those of the part `rc`."""
    images = reference.group("rc")[0]
    failed = images["dice"].numpy() < _last_number(reference.config["rc"]["fail"].split(",")[0])
    ranked = error_detection.ranking(-images["confidence"].numpy(), failed)
    return {"auroc_aupr": [error_detection.auroc(ranked), error_detection.average_precision(ranked)]}


def _pixel_errors(reference: Reference, group: str, inputs: _Inputs) -> _Numbers:
    uncertainty, error = inputs["uncertainty"], inputs["error"] > 0
    ranked = error_detection.ranking(uncertainty, error)
    kinds = (error_detection.auroc, error_detection.average_precision, error_detection.false_positive_rate)
    return {
        "auroc_aupr_fpr95": [kind(ranked) for kind in kinds],
        "ueo": error_detection.uncertainty_error_overlap(uncertainty, error, inputs["thresholds"]),
    }


def _qu_brats(reference: Reference, group: str, inputs: _Inputs) -> _Numbers:
    curves = qu_brats.filtered_curves(
        inputs["gt"], inputs["pred"], inputs["uncertainty"], inputs["brain"], released=True
    )
    return {
        "thresholds": curves.thresholds,
        "dice": curves.dice,
        "ftp": curves.filtered_true_positives,
        "ftn": curves.filtered_true_negatives,
        "auc_dice_ftp_ftn_score": [*curves.areas, curves.score],
    }


def _raters(reference: Reference, group: str, inputs: _Inputs) -> _Numbers:
    samples, labels = inputs["samples"], inputs["labels"]
    correlation = raters.normalised_cross_correlation(raters.disagreement(labels), raters.disagreement(samples))
    return {
        "ged_hmiou": [raters.generalised_energy_distance(samples, labels), raters.hungarian_iou(samples, labels)],
        "ncc": [math.nan if correlation is None else correlation],
    }


def _conformal(reference: Reference, group: str, inputs: _Inputs) -> _Numbers:
    text = reference.config["crc"]  # "alpha = 0.05, 0.1, 0.2; B = 1; ..."
    alphas, bound = text.split(";")[0].split("=")[1].split(","), _last_number(text.split(";")[1])
    chosen = [
        controlled_lambda(inputs["loss_table"], inputs["lambdas"], float(alpha), bound=bound, released=True)
        for alpha in alphas
    ]
    return {"lambda_hat": chosen}


def _equity(reference: Reference, group: str, inputs: _Inputs) -> _Numbers:
    groups = {str(index): scores for index, scores in enumerate(inputs["dice_by_group"])}
    return {"es_dice": [equity.equity(groups, alpha=_first_number(reference.config["equity"])).scaled]}


_PARTS: dict[str, Callable[[Reference, str, _Inputs], _Numbers]] = {
    "cal": _multiclass_calibration,
    "calb": _binary_calibration,
    "crc": _conformal,
    "equity": _equity,
    "fail": _failures,
    "lts": _local_temperature,
    "multi": _raters,
    "pix": _pixel_errors,
    "qubrats": _qu_brats,
    "rc": _risk_coverage,
    "unc": _entropy,
}


def _binned_outputs(reference: Reference, group: str) -> list[tuple[str, int]]:
    """Outputs of a part that carry a number of bins in their name, such as `lts_paper_10bins`."""
    outputs = reference.group(group)[1]
    found = ((name, re.search(r"(\d+)bins", name)) for name in outputs)
    return [(name, int(match.group(1))) for name, match in found if match]


def _first_number(text: str) -> int:
    return int(_numbers_in(text)[0])


def _last_number(text: str) -> float:
    return float(_numbers_in(text)[-1])


def _numbers_in(text: str) -> list[str]:
    found = re.findall(r"\d+(?:\.\d+)?", text)
    if not found:
        raise CheckpointError(f"the config says '{text}' where a number is expected")
    return found
