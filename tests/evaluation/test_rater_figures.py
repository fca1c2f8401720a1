from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.loading import load_image, load_label
from medmargin.evaluation import rater_figures
from medmargin.evaluation.overlap import dice
from medmargin.evaluation.rater_figures import SAMPLES, measure_raters
from medmargin.evaluation.raters import (
    disagreement,
    generalised_energy_distance,
    hungarian_iou,
    normalised_cross_correlation,
    sample_diversity,
)
from medmargin.workflows.rater_labels import load_rater_labels

SHAPE = (3, 3, 4)


def level_sets(probability: np.ndarray) -> np.ndarray:
    return np.stack([probability > (index + 0.5) / SAMPLES for index in range(SAMPLES)])


@settings(deadline=None)
@given(
    arrays(np.bool_, (3, *SHAPE)),
    arrays(np.float64, SHAPE, elements=st.sampled_from([0.0, 1 / 32, 0.1, 0.5, 17 / 32, 0.97, 1.0])),
)
def test_counts_give_the_figures_of_the_stacks(raters: np.ndarray, probability: np.ndarray) -> None:
    mask = probability > 0.5
    maps = [rater.astype(int) for rater in raters]
    found = measure_raters(maps, mask.astype(int), {"a": 1}, {"a": probability}, None)
    samples = level_sets(probability)
    assert (found["n"], found["samples"]) == (3, SAMPLES)
    figures = found["structures"]["a"]
    assert figures["ged"] == pytest.approx(generalised_energy_distance(samples, raters), abs=1e-12)
    assert figures["hungarian_iou"] == pytest.approx(hungarian_iou(samples, raters))
    assert figures["sample_diversity"] == pytest.approx(sample_diversity(samples), abs=1e-12)
    pairs = [dice(raters[a], raters[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert figures["rater_dice"] == pytest.approx(np.mean(pairs))
    assert figures["mask_dice"] == pytest.approx(np.mean([dice(rater, mask) for rater in raters]))


def test_without_probabilities_the_mask_is_the_only_sample() -> None:
    rng = np.random.default_rng(0)
    raters, mask = rng.random((2, *SHAPE)) > 0.5, rng.random(SHAPE) > 0.5
    found = measure_raters([rater.astype(int) for rater in raters], mask.astype(int), {"a": 1}, None, None)
    assert (found["samples"], found["samples_are"]) == (1, "the mask alone")
    assert found["structures"]["a"]["ged"] == pytest.approx(generalised_energy_distance(mask[None], raters))
    assert found["ncc"] is None
    assert found["ncc_reason"]


def test_correlation_equals_that_of_the_maps_and_slabs_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    raters, uncertainty = rng.random((3, *SHAPE)) > 0.5, rng.random(SHAPE)
    arguments = (
        [r.astype(int) for r in raters],
        raters[0].astype(int),
        {"a": 1},
        {"a": rng.random(SHAPE)},
        uncertainty,
    )
    found = measure_raters(*arguments)
    assert found["ncc"] == pytest.approx(normalised_cross_correlation(disagreement(raters), uncertainty))
    monkeypatch.setattr(rater_figures, "_SLAB_VOXELS", 1)
    assert measure_raters(*arguments) == found


def test_raters_that_agree_leave_nothing_to_correlate() -> None:
    truth = np.zeros(SHAPE, int)
    truth[0] = 1
    found = measure_raters([truth, truth], truth, {"a": 1, "b": 2}, None, np.random.default_rng(0).random(SHAPE))
    assert found["ncc_reason"] == "the raters agree everywhere"
    assert found["structures"]["b"] == {
        "ged": 0, "hungarian_iou": 1, "sample_diversity": 0, "rater_dice": 1, "mask_dice": 1,
    }  # fmt: skip


def test_perfect_spread_beats_a_sure_answer() -> None:
    """Nested raters that are drawn like the level sets: the map of their share is closer than any single mask."""
    radius = np.hypot(*np.mgrid[-20:21, -20:21])[..., None]
    raters = [(radius < r).astype(int) for r in (8, 10, 12, 14)]
    share = np.mean(raters, axis=0)
    spread = measure_raters(raters, raters[1], {"a": 1}, {"a": share}, None)["structures"]["a"]
    sure = measure_raters(raters, raters[1], {"a": 1}, {"a": raters[1].astype(float)}, None)["structures"]["a"]
    assert spread["ged"] == pytest.approx(0, abs=1e-12)
    assert spread["hungarian_iou"] == pytest.approx(1)
    assert sure["ged"] > 0.1


def test_agreement_of_the_raters_of_real_images(data_root: Path) -> None:
    data = open_dataset(data_root / "Dataset903_STARE")
    for case in data.cases[:3]:
        image = load_image(case, data.task)
        truth = load_label(case, data.task, image=image).voxels[0]
        raters = load_rater_labels(case, data.task, image)
        found = measure_raters([truth, *raters], truth, data.task.structures, None, None)
        assert found["n"] == 2
        assert found["mean"]["rater_dice"] == pytest.approx(float(case.attributes["dice_between_raters"]), abs=1e-4)
