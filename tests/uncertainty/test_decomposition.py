"""Uncertainty split in two parts, against the authors' numbers and its own laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file

from medmargin.uncertainty.decomposition import binary_entropy, class_entropy, decompose, decompose_binary

binary_samples = arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 5)), elements=st.floats(0, 1, width=32))


def test_decomposition_equals_the_reference_of_values(golden: Path) -> None:
    reference = load_file(golden / "probabilistic-metrics.safetensors")
    parts = decompose(reference["unc.input.softmax_samples"].astype(np.float64))
    np.testing.assert_allclose(parts.total, reference["unc.output.pred_entropy"], atol=1e-6)
    np.testing.assert_allclose(parts.aleatoric, reference["unc.output.aleatoric_uncertainty"], atol=1e-6)
    np.testing.assert_allclose(parts.epistemic, reference["unc.output.epistemic_uncertainty"], atol=1e-6)


@given(binary_samples)
def test_parts_add_up_and_stay_within_their_bounds(samples: np.ndarray) -> None:
    parts = decompose_binary(samples)
    np.testing.assert_allclose(parts.aleatoric + parts.epistemic, parts.total, atol=1e-6)
    assert (parts.epistemic >= 0).all()
    assert (parts.total <= np.log(2) + 1e-6).all()


@given(binary_samples)
def test_two_classes_are_the_binary_case(samples: np.ndarray) -> None:
    two = decompose(np.stack([1 - samples, samples], axis=1).astype(np.float64))
    for part, expected in zip(decompose_binary(samples.astype(np.float64)), two, strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-7)


def test_members_that_disagree_are_epistemic_and_unsure_members_aleatoric() -> None:
    disagree = decompose_binary(np.array([[0.0], [1.0]]))
    unsure = decompose_binary(np.array([[0.5], [0.5]]))
    assert disagree.epistemic[0] == pytest.approx(np.log(2))
    assert disagree.aleatoric[0] == 0
    assert unsure.aleatoric[0] == pytest.approx(np.log(2))
    assert unsure.epistemic[0] == 0


def test_entropy_of_certain_answers_is_zero_and_of_even_ones_the_log_of_the_classes() -> None:
    assert binary_entropy(np.array([0.0, 1.0])).tolist() == [0, 0]
    assert class_entropy(np.full((4, 1), 0.25))[0] == pytest.approx(np.log(4))
