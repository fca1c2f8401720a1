"""Overlapping structures: each is measured as it would be alone."""

from __future__ import annotations

import numpy as np
import pytest

from medmargin.evaluation import measure_case
from medmargin.evaluation.qu_brats import filtered_curves
from medmargin.imaging.volume import Grid

STRUCTURES = {"whole": 1, "core": 2, "enhancing": 3}
REGIONS = {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}


def _nested(shift: int = 0) -> np.ndarray:
    labels = np.zeros((14, 15, 12), np.uint8)
    labels[2:11, 2:12, 2:10] = 1
    labels[4 + shift : 9 + shift, 4:10, 3:8] = 2
    labels[5 + shift : 7 + shift, 5:8, 4:7] = 3
    return labels


@pytest.fixture
def scene():
    rng = np.random.default_rng(3)
    truth, labels = _nested(), _nested(1)
    masks = {name: np.isin(labels, values) for name, values in REGIONS.items()}
    noise = rng.random(truth.shape)
    probabilities = {name: (0.2 * noise + 0.7 * mask).astype(np.float32) for name, mask in masks.items()}
    uncertainty = (np.log(2) * rng.random(truth.shape)).astype(np.float32)
    return truth, labels, probabilities, uncertainty


def _measure(truth, labels, structures, probabilities, uncertainty, **more):
    grid = Grid(truth.shape, np.diag([1.0, 1.0, 2.0, 1.0]), "mm")
    return measure_case(
        "case", "patient", truth, labels, grid=grid, structures=structures, probabilities=probabilities,
        uncertainty=uncertainty, **more,
    )  # fmt: skip


def _alone(scene, name):
    """Measure one region as the only structure of its data set."""
    truth, labels, probabilities, uncertainty = scene
    true, mask = (np.isin(array, REGIONS[name]).astype(np.uint8) for array in (truth, labels))
    return _measure(true, mask, {name: 1}, {name: probabilities[name]}, uncertainty)


def test_overlap_distances_and_volumes_are_those_of_the_region_alone(scene):
    truth, labels, probabilities, uncertainty = scene
    entry = _measure(truth, labels, STRUCTURES, probabilities, uncertainty, regions=REGIONS).entry
    for name in STRUCTURES:
        alone = _alone(scene, name).entry
        assert entry["structures"][name] == alone["structures"][name]
        assert entry["volumes_ml"][name] == alone["volumes_ml"][name]
    assert entry["structures"]["whole"]["dice"] == 1.0 > entry["structures"]["core"]["dice"]


def test_calibration_asks_every_region_at_every_voxel(scene):
    truth, labels, probabilities, uncertainty = scene
    whole = _measure(truth, labels, STRUCTURES, probabilities, uncertainty, regions=REGIONS).whole
    alone = [_alone(scene, name).whole for name in STRUCTURES]
    assert whole.bins.items == sum(tally.bins.items for tally in alone) == 3 * truth.size
    assert whole.brier == pytest.approx(sum(tally.brier for tally in alone), rel=1e-6)
    assert whole.likelihood == pytest.approx(sum(tally.likelihood for tally in alone), rel=1e-6)


def test_perfect_probabilities_of_nested_regions_have_no_calibration_error(scene):
    truth, _, _, uncertainty = scene
    certain = {name: np.isin(truth, values).astype(np.float32) for name, values in REGIONS.items()}
    figures = _measure(truth, truth, STRUCTURES, certain, uncertainty, regions=REGIONS).entry["uncertainty"]
    assert (figures["ece"], figures["brier"], figures["error_rate"]) == (0.0, 0.0, 0.0)


def test_an_error_is_a_voxel_where_any_region_is_wrong(scene):
    truth, labels, probabilities, uncertainty = scene
    whole = _measure(truth, labels, STRUCTURES, probabilities, uncertainty, regions=REGIONS).whole
    wrong = np.any([np.isin(truth, values) != np.isin(labels, values) for values in REGIONS.values()], axis=0)
    assert (whole.voxels, whole.errors) == (truth.size, np.count_nonzero(wrong))


def test_filtering_curves_are_those_of_the_masks(scene):
    truth, labels, probabilities, uncertainty = scene
    entry = _measure(truth, labels, STRUCTURES, probabilities, uncertainty, regions=REGIONS).entry
    for name, values in REGIONS.items():
        expected = filtered_curves(
            np.isin(truth, values), np.isin(labels, values), uncertainty * (100 / np.log(2)), np.ones(truth.shape)
        )
        assert entry["uncertainty"]["structures"][name]["qu_brats"] == pytest.approx(expected.score, abs=1e-6)
    scores = [figures["qu_brats"] for figures in entry["uncertainty"]["structures"].values()]
    assert entry["uncertainty"]["qu_brats"] == pytest.approx(np.mean(scores))


def test_raters_are_compared_region_by_region(scene):
    truth, labels, probabilities, uncertainty = scene
    entry = _measure(
        truth, labels, STRUCTURES, probabilities, uncertainty, regions=REGIONS, raters=[_nested(1)]
    ).entry  # fmt: skip
    figures = entry["raters"]["structures"]
    assert figures["whole"]["rater_dice"] == 1.0
    core = [np.isin(array, REGIONS["core"]) for array in (truth, _nested(1))]
    overlap = 2 * np.count_nonzero(core[0] & core[1]) / (np.count_nonzero(core[0]) + np.count_nonzero(core[1]))
    assert figures["core"]["rater_dice"] == pytest.approx(overlap)


def test_regions_and_unlabelled_voxels_go_together(scene):
    truth, _, probabilities, uncertainty = scene
    gap = truth.copy()
    gap[:, :, 6:] = 4
    labels = np.where(gap == 4, 3, truth).astype(np.uint8)
    entry = _measure(gap, labels, STRUCTURES, probabilities, uncertainty, regions=REGIONS, ignore=4).entry
    assert all(figures["dice"] == 1.0 for figures in entry["structures"].values())
