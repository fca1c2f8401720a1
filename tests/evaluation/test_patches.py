"""Squares by accuracy and uncertainty: a plain loop, regions, and the ends of the scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.evaluation.error_overlap import UEO_THRESHOLD
from medmargin.evaluation.patches import PATCH_VOXELS, patch_counts, patch_figures


def looped(error: np.ndarray, uncertainty: np.ndarray, region: np.ndarray) -> np.ndarray:
    counts = np.zeros((2, 2), np.int64)
    for layer in range(error.shape[2]):
        for row in range(0, error.shape[0], PATCH_VOXELS):
            for column in range(0, error.shape[1], PATCH_VOXELS):
                square = np.s_[row : row + PATCH_VOXELS, column : column + PATCH_VOXELS, layer]
                inside = region[square]
                if inside.any():
                    wrong = error[square][inside].mean() >= 0.5
                    counts[int(wrong), int(uncertainty[square][inside].mean() > UEO_THRESHOLD)] += 1
    return counts


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.tuples(st.integers(1, 11), st.integers(1, 11), st.integers(1, 3)), st.booleans())
def test_counts_equal_those_of_a_loop(seed: int, shape: tuple[int, ...], everywhere: bool) -> None:
    rng = np.random.default_rng(seed)
    error, uncertainty = rng.random(shape) < 0.5, rng.random(shape).astype(np.float32) * 0.7
    region = np.ones(shape, bool) if everywhere else rng.random(shape) < 0.4
    found = patch_counts(error, uncertainty, None if everywhere else region)
    np.testing.assert_array_equal(found, looped(error, uncertainty, region))


def test_a_map_of_the_errors_is_best_and_its_opposite_worst() -> None:
    error = np.zeros((8, 8, 2), bool)
    error[:4, :4] = True
    best, worst = (patch_figures(patch_counts(error, values.astype(float)), "") for values in (error, ~error))
    assert best == {"pavpu": 1.0, "accurate_if_certain": 1.0, "uncertain_if_inaccurate": 1.0}
    assert worst == {"pavpu": 0.0, "accurate_if_certain": 0.0, "uncertain_if_inaccurate": 0.0}


def test_shares_that_do_not_exist_have_a_reason() -> None:
    right = patch_figures(patch_counts(np.zeros((4, 4, 1), bool), np.ones((4, 4, 1))), "")
    assert (right["pavpu"], right["accurate_if_certain"], right["uncertain_if_inaccurate"]) == (0.0, None, None)
    assert right["accurate_if_certain_reason"] == "no square is certain"
    assert patch_figures(None, "no map")["pavpu_reason"] == "no map"


def test_slices_add_up() -> None:
    rng = np.random.default_rng(0)
    error, uncertainty = rng.random((9, 10, 6)) < 0.5, rng.random((9, 10, 6))
    parts = sum(patch_counts(error[..., k : k + 2], uncertainty[..., k : k + 2]) for k in (0, 2, 4))
    np.testing.assert_array_equal(parts, patch_counts(error, uncertainty))
    assert patch_figures(parts, "")["pavpu"] == pytest.approx((parts[0, 0] + parts[1, 1]) / parts.sum())
