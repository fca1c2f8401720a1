from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medmargin.evaluation.calibration import (
    adaptive_error,
    classwise_error,
    equal_width,
    expected_error,
    reliability,
    top_label,
)
from medmargin.evaluation.scoring_rules import brier_score, negative_log_likelihood
from medmargin.evaluation.voxels import (
    ADAPTIVE_RANGES,
    ECE_BINS,
    VoxelCounter,
    class_vector,
    count_voxels,
    voxel_figures,
)

STRUCTURES = {"a": 1, "b": 4}


def counted(
    probabilities: dict[str, np.ndarray] | None, uncertainty: np.ndarray | None, **arrays: Any
) -> dict[str, Any]:
    counter = VoxelCounter()
    count_voxels(
        [(counter, None)], structures=STRUCTURES, probabilities=probabilities, uncertainty=uncertainty, **arrays
    )
    return voxel_figures(counter.tally())


@given(arrays(np.float32, (2, 5), elements=st.floats(0, 1, width=32)))
def test_class_vector_is_a_distribution(values: np.ndarray) -> None:
    vector = class_vector({"a": values[0], "b": values[1]}, STRUCTURES, (5,))
    np.testing.assert_allclose(vector.sum(axis=0), 1, rtol=1e-5)
    assert (vector >= 0).all()
    fits = values.sum(axis=0) <= 1
    np.testing.assert_allclose(vector[1:, fits], values[:, fits])


def test_overlapping_structures_leave_no_background_and_one_structure_keeps_its_probability() -> None:
    shape = (1,)
    both = class_vector({"a": np.array([0.9]), "b": np.array([0.6])}, STRUCTURES, shape)
    np.testing.assert_allclose(both[:, 0], [0.0, 0.6, 0.4])
    alone = class_vector({"a": np.array([0.3])}, STRUCTURES, shape)
    np.testing.assert_allclose(alone[:, 0], [0.7, 0.3, 0.0])


def test_figures_equal_those_of_the_pure_functions() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 4], (4, 5, 3))
    values = rng.dirichlet([1, 1, 1], truth.shape)
    figures = counted(
        {"a": values[..., 1], "b": values[..., 2]}, None, truth=truth, labels=np.array([0, 1, 4])[values.argmax(-1)]
    )
    probabilities, labels = values.reshape(-1, 3).astype(np.float32), np.searchsorted([0, 1, 4], truth.ravel())
    confidence, right = top_label(probabilities, labels)
    assert figures["ece"] == pytest.approx(
        expected_error(reliability(confidence, right, equal_width(ECE_BINS))), rel=1e-4
    )
    assert figures["ece_classwise"] == pytest.approx(
        classwise_error(probabilities, labels, equal_width(ECE_BINS)), rel=1e-4
    )
    assert figures["ece_adaptive"] == pytest.approx(adaptive_error(probabilities, labels, ADAPTIVE_RANGES), abs=5e-3)
    assert figures["brier"] == pytest.approx(brier_score(probabilities, labels), rel=1e-5)
    assert figures["nll"] == pytest.approx(negative_log_likelihood(probabilities, labels), rel=1e-5)
    assert figures["error_rate"] == pytest.approx(1 - right.mean())


def test_perfect_prediction() -> None:
    truth = np.random.default_rng(0).choice([0, 1, 4], (4, 5, 3))
    figures = counted(
        {"a": (truth == 1).astype(float), "b": (truth == 4).astype(float)},
        np.zeros(truth.shape), truth=truth, labels=truth,
    )  # fmt: skip
    assert figures["ece"] == figures["brier"] == figures["nll"] == figures["aurc"] == figures["error_rate"] == 0
    assert figures["auroc"] is None
    assert figures["auroc_reason"] == "no voxel is wrong"


def test_numbers_that_do_not_exist_have_a_reason() -> None:
    ones, zeros = np.ones((2, 2, 2), int), np.zeros((2, 2, 2), int)
    for figures in (
        counted(None, None, truth=ones, labels=zeros),
        counted(None, np.ones((2, 2, 2)), truth=ones, labels=zeros),
        voxel_figures(VoxelCounter().tally()),
    ):
        missing = [name for name, value in figures.items() if value is None]
        assert missing
        assert all(figures[f"{name}_reason"] for name in missing)


def test_counters_add_up_in_any_order() -> None:
    rng = np.random.default_rng(3)
    tallies = []
    whole = VoxelCounter()
    for _ in range(3):
        truth, labels = rng.choice([0, 1, 4], (2, 3, 4, 5))
        arguments = {
            "truth": truth,
            "labels": labels,
            "structures": STRUCTURES,
            "probabilities": {"a": rng.random(truth.shape) / 2, "b": rng.random(truth.shape) / 2},
            "uncertainty": rng.random(truth.shape),
        }
        part = VoxelCounter()
        count_voxels([(part, None), (whole, None)], **arguments)
        tallies.append(part.tally())
    for order in ([0, 1, 2], [2, 0, 1]):
        pooled = VoxelCounter()
        for index in order:
            pooled.add(tallies[index])
        found, expected = voxel_figures(pooled.tally()), voxel_figures(whole.tally())
        assert found == pytest.approx(expected)


def test_region_limits_what_is_counted() -> None:
    truth, labels = np.zeros((2, 4, 4, 4), int)
    labels[0] = 1
    counter = VoxelCounter()
    region = np.zeros(truth.shape, bool)
    region[0] = True
    count_voxels(
        [(counter, region)], truth=truth, labels=labels, structures=STRUCTURES, probabilities={}, uncertainty=None
    )
    tally = counter.tally()
    assert (tally.voxels, tally.errors) == (16, 16)
    assert tally.bins is not None
    assert tally.bins.items == 16
