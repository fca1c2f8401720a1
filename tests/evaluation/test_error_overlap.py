from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medmargin.evaluation.error_detection import ranking, uncertainty_error_overlap
from medmargin.evaluation.error_overlap import HeldOutOverlap, best_overlap, overlap_at

SCORES = arrays(np.float64, 30, elements=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7]))
ERRORS = arrays(np.bool_, 30)


@given(SCORES, ERRORS, st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.7, 1.0]))
def test_overlap_of_counts_equals_that_of_maps(score: np.ndarray, error: np.ndarray, threshold: float) -> None:
    expected = uncertainty_error_overlap(score, error, np.array([threshold]))[0]
    assert overlap_at(ranking(score, error), threshold) == pytest.approx(expected)


@given(SCORES, ERRORS)
def test_best_overlap_is_reached_and_never_passed(score: np.ndarray, error: np.ndarray) -> None:
    ranked = ranking(score, error)
    value, threshold = best_overlap(ranked)
    assert threshold >= 0
    assert overlap_at(ranked, threshold) == pytest.approx(value)
    assert value >= uncertainty_error_overlap(score, error, np.linspace(0, 1, 21)).max() - 1e-12


def test_held_out_threshold_comes_from_the_others() -> None:
    rng = np.random.default_rng(0)
    held_out = HeldOutOverlap()
    pooled = []
    for patient in range(6):
        error = rng.random(4000) < 0.1
        score = np.where(error, rng.uniform(0.4, 0.9, error.size), rng.uniform(0.0, 0.5, error.size))
        pooled.append((score, error))
        held_out.add(f"p{patient}", ranking(score, error))
    found = held_out.overlap()
    assert found is not None
    score, error = (np.concatenate(values) for values in zip(*pooled, strict=True))
    assert found[0] == pytest.approx(best_overlap(ranking(score, error))[0], abs=0.02)
    assert 0.4 < found[1] < 0.55


def test_held_out_is_not_fooled_by_a_patient_on_another_scale() -> None:
    """A patient whose uncertainty is ten times that of the others has a fine overlap only at a threshold of its own."""
    error = np.arange(100) < 10
    held_out, alone = HeldOutOverlap(), 0.3 * error + 0.1
    for patient, score in (("a", alone), ("b", alone), ("c", 10 * alone)):
        held_out.add(patient, ranking(score, error))
    found = held_out.overlap()
    assert best_overlap(ranking(10 * alone, error))[0] == 1
    assert found is not None
    assert found[0] < 0.5


def test_one_patient_has_no_others() -> None:
    held_out = HeldOutOverlap()
    held_out.add("a", ranking(np.array([0.1]), np.array([True])))
    held_out.add("a", ranking(np.array([0.2]), np.array([False])))
    held_out.add("b", None)
    assert held_out.overlap() is None
