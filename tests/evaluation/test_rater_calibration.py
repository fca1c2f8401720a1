"""Calibration against each rater and against all: the pure functions on all pairs of voxel and rater."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medmargin.evaluation import summarise
from medmargin.evaluation.calibration import equal_width, expected_error, reliability, top_label
from medmargin.evaluation.rater_calibration import rater_calibration
from medmargin.evaluation.voxels import ECE_BINS


@pytest.fixture
def scene() -> tuple[list[np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """Five raters who draw each voxel with its own probability, and an answer with those probabilities."""
    rng = np.random.default_rng(0)
    probability = np.clip(rng.normal(0.5, 0.4, (16, 18, 40)), 0, 1).astype(np.float32)
    raters = [(rng.random(probability.shape) < probability).astype(np.uint8) for _ in range(5)]
    return raters, (probability > 0.5).astype(np.uint8), {"a": probability}


def ece(probability: np.ndarray, truth: np.ndarray) -> float:
    vector = np.stack([1 - probability.ravel(), probability.ravel()], axis=1)
    found = expected_error(reliability(*top_label(vector, truth.ravel()), equal_width(ECE_BINS)))
    assert found is not None
    return found


def test_figures_are_those_of_every_pair_of_voxel_and_rater(scene: Any) -> None:
    raters, labels, probabilities = scene
    found = rater_calibration(raters, labels, {"a": 1}, probabilities)
    assert found["ece_each"] == pytest.approx([ece(probabilities["a"], rater) for rater in raters], abs=1e-6)
    together = ece(np.stack([probabilities["a"]] * 5), np.stack(raters))
    assert found["ece"] == pytest.approx(together, abs=1e-6)
    assert found["ece"] < min(found["ece_each"])  # chance deviations of single raters cancel
    assert len(found["band"]["ece_each"]) == 5


def test_unlabelled_voxels_do_not_count(scene: Any) -> None:
    raters, labels, probabilities = scene
    ignored = np.zeros(labels.shape, bool)
    ignored[:, :, :15] = True
    part = np.s_[:, :, 15:]
    found = rater_calibration(raters, labels, {"a": 1}, probabilities, ignored=ignored)
    alone = rater_calibration(
        [rater[part] for rater in raters], labels[part], {"a": 1}, {"a": probabilities["a"][part]}
    )
    assert found["ece_each"] == pytest.approx(alone["ece_each"])


def test_without_probabilities_there_is_a_reason(scene: Any) -> None:
    raters, labels, _ = scene
    found = rater_calibration(raters, labels, {"a": 1}, None)
    assert found["ece"] is found["ece_each"] is None
    assert found["ece_reason"] == "no probabilities were given"


def test_cases_and_the_summary_hold_them(make_case: Any) -> None:
    results = [make_case(seed, name=f"case_{seed}") for seed in range(2)]
    rater = np.zeros((12, 14, 10), np.uint8)
    rater[3:7, 3:10, 2:8] = 1
    results = [make_case(seed, name=f"case_{seed}", raters=[rater]) for seed in range(2)]
    case = results[0].entry["raters"]
    assert case["ece_each"][0] == pytest.approx(results[0].entry["uncertainty"]["ece"])
    summary = summarise(results)["summary"]
    mean = np.mean([result.entry["raters"]["ece"] for result in results])
    assert summary["raters"]["ece"]["mean"] == pytest.approx(mean)
    assert summary["raters"]["band"]["ece_each"]["n"] == 2
    for figures in (summary["uncertainty"], summary["uncertainty"]["band"]):
        assert all(0 <= figures[name] <= 1 for name in ("ece_classwise", "ece_adaptive", "pavpu"))
    assert summary["uncertainty"]["per_case"]["band_ece_adaptive"]["n"] == 2
