from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from medmargin.errors import CheckpointError
from medmargin.verification import verify

pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # inside MONAI
SLUG, FILE = "probabilistic-metrics", "probabilistic-metrics.safetensors"


def contents(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def written(path: Path, config: dict[str, Any], tensors: dict[str, Any]) -> Path:
    stored = {name: torch.as_tensor(np.asarray(value)) for name, value in tensors.items()}
    save_file(stored, path, metadata={"config": json.dumps(config)})
    return path


def failures(path: Path) -> list[str]:
    return [f"{output.name}: {output.reason}" for output in verify(SLUG, path).outputs if not output.passed]


def test_every_number_of_the_authors(golden: Path) -> None:
    result = verify(SLUG, golden / FILE)
    assert [output.name for output in result.outputs if not output.passed] == []
    assert result.passed
    _, tensors = contents(golden / FILE)
    assert {output.name for output in result.outputs} == {name for name in tensors if ".output." in name}
    surfaces = [output for output in result.outputs if output.tolerance != 1e-6]
    assert {output.tolerance for output in surfaces} == {1e-5}
    assert {output.name.split(".")[-1] for output in surfaces} == {"deepmind", "monai", "metricsreloaded"}


def test_a_number_that_is_off_is_found(golden: Path, tmp_path: Path) -> None:
    metadata, tensors = contents(golden / FILE)
    for name in ("cal.output.nll", "s3d.output.deepmind", "unc.output.pred_entropy"):
        tensors[name] = tensors[name] + 1e-3
    save_file(tensors, tmp_path / FILE, metadata=metadata)
    result = verify(SLUG, tmp_path / FILE)
    assert not result.passed
    assert {output.name for output in result.outputs if not output.passed} == {
        "cal.output.nll", "s3d.output.deepmind", "unc.output.pred_entropy",
    }  # fmt: skip


CONFIG = {
    "surface": {
        "deepmind": ["NSD tau=0.75", "HD95"],
        "monai": [
            "HD100", "HD90", "ASSD symmetric", "ASD pred->gt (symmetric=False)", "NSD tau=1.5", "NSD subvoxel tau=3",
        ],
        "metricsreloaded": ["MASD", "boundary IoU d=3"],
    },
    "cal": {"metricsreloaded": ["classwise ECE 5 bins", "Brier", "root Brier", "log score"]},
    "rc": {"fail": "failure = Dice < 0.6, score = -confidence"},
    "crc": "alpha = 0.15, 0.3; B = 1; columns ordered from small to large loss",
    "equity": "alpha 2, overall = mean over all",
}  # fmt: skip


@pytest.mark.parametrize("shape", [(17, 31), (9, 14, 11)])
def test_masks_of_another_size_equal_monai(tmp_path: Path, shape: tuple[int, ...]) -> None:
    metrics = pytest.importorskip("monai.metrics")
    ndimage = pytest.importorskip("scipy.ndimage")
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(2, *shape)), (0, *[2] * len(shape)))
    truth, mask = noise[0] > 0, noise[1] + 0.7 * noise[0] > 0.02
    spacing = np.array([0.9, 1.3, 2.2][: len(shape)])
    y, y_pred = (torch.from_numpy(array[None, None].astype(np.float32)) for array in (truth, mask))
    options: dict[str, Any] = {"include_background": True, "spacing": spacing.tolist()}
    numbers = [
        metrics.compute_hausdorff_distance(y_pred, y, **options),
        metrics.compute_hausdorff_distance(y_pred, y, percentile=90, **options),
        metrics.compute_average_surface_distance(y_pred, y, symmetric=True, **options),
        metrics.compute_average_surface_distance(y_pred, y, **options),
        metrics.compute_surface_dice(y_pred, y, [1.5], **options),
        metrics.compute_surface_dice(y_pred, y, [3.0], use_subvoxels=True, **options),
    ]
    dice = 2 * (truth & mask).sum() / (truth.sum() + mask.sum())
    tensors = {
        "pair.input.gt": truth.astype(np.uint8), "pair.input.pred": mask.astype(np.uint8),
        "pair.input.spacing": spacing,
        "pair.output.monai": np.array([float(number) for number in numbers]),
        "pair.output.dice_iou": np.array([dice, dice / (2 - dice)]),
    }  # fmt: skip
    assert failures(written(tmp_path / FILE, CONFIG, tensors)) == []


@pytest.mark.filterwarnings("ignore:.*all 0, this may result in nan/inf distance")
@pytest.mark.parametrize(("has_truth", "has_mask"), [(False, False), (True, False), (False, True)])
def test_empty_masks_give_what_the_authors_code_gives(tmp_path: Path, has_truth: bool, has_mask: bool) -> None:
    metrics = pytest.importorskip("monai.metrics")
    block = np.zeros((8, 9), np.uint8)
    block[2:5, 3:7] = 1
    truth, mask = block * has_truth, block * has_mask
    y, y_pred = (torch.from_numpy(array[None, None].astype(np.float32)) for array in (truth, mask))
    numbers = [
        metrics.compute_hausdorff_distance(y_pred, y, include_background=True),
        metrics.compute_hausdorff_distance(y_pred, y, include_background=True, percentile=90),
        metrics.compute_average_surface_distance(y_pred, y, include_background=True, symmetric=True),
        metrics.compute_average_surface_distance(y_pred, y, include_background=True),
        metrics.compute_surface_dice(y_pred, y, [1.5], include_background=True),
        metrics.compute_surface_dice(y_pred, y, [3.0], include_background=True, use_subvoxels=True),
    ]
    one_empty = has_truth or has_mask
    tensors = {
        "pair.input.gt": truth, "pair.input.pred": mask, "pair.input.spacing": np.ones(2),
        "pair.output.monai": np.array([float(number) for number in numbers]),
        "pair.output.deepmind": np.array([0.0 if one_empty else math.nan, math.inf]),
        "pair.output.metricsreloaded": np.array([math.nan if one_empty else 0.0, 0.0 if one_empty else math.nan]),
    }  # fmt: skip
    assert failures(written(tmp_path / FILE, CONFIG, tensors)) == []


def test_calibration_with_other_classes_items_and_bins(tmp_path: Path) -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    calibration = pytest.importorskip("monai.metrics.calibration")
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(0, 3, (350, 6)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, 6, 350))
    errors = [
        functional.multiclass_calibration_error(logits, labels, num_classes=6, n_bins=12, norm=norm)
        for norm in ("l1", "max", "l2")
    ]
    probability = rng.random((1, 1, 13, 17)).astype(np.float32)
    target = (rng.random(probability.shape) < probability).astype(np.float32)
    monai = []
    for kind in ("expected", "average", "maximum"):
        metric = calibration.CalibrationErrorMetric(num_bins=8, calibration_reduction=kind)
        metric(torch.from_numpy(probability), torch.from_numpy(target))
        monai.append(float(metric.aggregate()))
    tensors = {
        "cal.input.logits": logits, "cal.input.labels": labels, "cal.input.boundary": np.ones((14, 25), np.uint8),
        "cal.output.nll": np.array([float(torch.nn.functional.cross_entropy(logits, labels))]),
        "cal.output.torchmetrics_top_label_12bins": np.array([float(error) for error in errors]),
        "calb.input.prob": probability, "calb.input.target": target,
        "calb.output.monai_8bins_expected_average_maximum": np.array(monai),
    }  # fmt: skip
    assert failures(written(tmp_path / FILE, CONFIG, tensors)) == []


def test_detection_selection_and_guarantees_with_other_sizes(tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    dice, confidence = rng.random(60), rng.random(60)
    error, uncertainty = (rng.random((11, 7)) < 0.3).astype(np.uint8), rng.random((11, 7))
    false_rates, true_rates, _ = metrics.roc_curve(error.ravel(), uncertainty.ravel(), drop_intermediate=False)
    order = np.argsort(confidence)
    kept_risks = [(1 - dice[order[removed:]]).mean() for removed in range(60)]
    losses = np.sort(rng.random((30, 50)), axis=1)
    corrected = 30 / 31 * losses.mean(axis=0) + 1 / 31
    lambdas = np.linspace(0, 1, 50)
    groups = rng.random((4, 9))
    overall = groups.mean()
    tensors = {
        "rc.input.dice": dice, "rc.input.confidence": confidence,
        "rc.output.risks": np.array([*kept_risks, kept_risks[-1]]),
        "rc.output.coverages": np.arange(60, -1, -1) / 60,
        "fail.output.auroc_aupr": np.array([
            metrics.roc_auc_score(dice < 0.6, -confidence), metrics.average_precision_score(dice < 0.6, -confidence),
        ]),
        "pix.input.error": error, "pix.input.uncertainty": uncertainty, "pix.input.thresholds": np.array([0.25, 0.5]),
        "pix.output.auroc_aupr_fpr95": np.array([
            metrics.roc_auc_score(error.ravel(), uncertainty.ravel()),
            metrics.average_precision_score(error.ravel(), uncertainty.ravel()),
            false_rates[true_rates >= 0.95][0],
        ]),
        "pix.output.ueo": np.array([metrics.f1_score(error.ravel(), uncertainty.ravel() > t) for t in (0.25, 0.5)]),
        "crc.input.loss_table": losses, "crc.input.lambdas": lambdas,
        "crc.output.lambda_hat": np.array([lambdas[max(np.argmax(corrected > alpha) - 1, 0)] for alpha in (0.15, 0.3)]),
        "equity.input.dice_by_group": groups,
        "equity.output.es_dice": np.array([overall / (1 + 2 * np.abs(groups.mean(axis=1) - overall).sum())]),
    }  # fmt: skip
    assert failures(written(tmp_path / FILE, CONFIG, tensors)) == []


def test_part_that_nobody_knows_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / FILE, CONFIG, {"novel.input.x": np.ones(2), "novel.output.y": np.ones(2)})
    with pytest.raises(CheckpointError, match="'novel' is none of cal, calb"):
        verify(SLUG, path)


def test_output_that_nobody_knows_is_named(tmp_path: Path) -> None:
    tensors = {"unc.input.softmax_samples": np.full((2, 2, 3, 3), 0.5), "unc.output.novel": np.ones(2)}
    with pytest.raises(CheckpointError, match=r"cannot recompute unc\.output\.novel"):
        verify(SLUG, written(tmp_path / FILE, CONFIG, tensors))


def test_config_without_the_needed_number_is_refused(tmp_path: Path) -> None:
    tensors = {"equity.input.dice_by_group": np.ones((2, 2)), "equity.output.es_dice": np.ones(1)}
    with pytest.raises(CheckpointError, match="where a number is expected"):
        verify(SLUG, written(tmp_path / FILE, {**CONFIG, "equity": "no weight"}, tensors))
