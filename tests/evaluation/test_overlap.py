from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medmargin.evaluation.overlap import dice, iou, relative_volume_error

MASKS = arrays(bool, (4, 5, 3))


@given(MASKS, MASKS)
def test_overlap_is_symmetric_and_dice_follows_from_iou(truth: np.ndarray, mask: np.ndarray) -> None:
    assert dice(truth, mask) == dice(mask, truth)
    overlap = iou(truth, mask)
    assert 0 <= overlap <= 1
    assert dice(truth, mask) == pytest.approx(2 * overlap / (1 + overlap))


@given(MASKS, MASKS, st.permutations(range(60)))
def test_overlap_does_not_depend_on_where_voxels_are(truth: np.ndarray, mask: np.ndarray, order: list[int]) -> None:
    moved_truth, moved_mask = truth.ravel()[order], mask.ravel()[order]
    assert dice(truth, mask) == dice(moved_truth, moved_mask)
    assert relative_volume_error(truth, mask) == relative_volume_error(moved_truth, moved_mask)


@given(MASKS, st.integers(1, 200))
def test_any_non_zero_value_is_inside(truth: np.ndarray, value: int) -> None:
    assert dice(truth, truth.astype(np.uint8) * value) == 1.0


@pytest.mark.parametrize(
    ("truth", "mask", "overlap", "error"),
    [(1, 1, 1.0, 0.0), (0, 0, 1.0, None), (1, 0, 0.0, -1.0), (0, 1, 0.0, None)],
)
def test_empty_mask_matrix(truth: int, mask: int, overlap: float, error: float | None) -> None:
    truth_mask, predicted = np.full((3, 3), truth), np.full((3, 3), mask)
    assert dice(truth_mask, predicted) == iou(truth_mask, predicted) == overlap
    assert relative_volume_error(truth_mask, predicted) == error


def test_volume_error_has_the_sign_of_the_difference() -> None:
    truth = np.array([1, 1, 1, 1, 0])
    assert relative_volume_error(truth, np.array([1, 1, 1, 1, 1])) == 0.25
    assert relative_volume_error(truth, np.array([1, 1, 0, 0, 0])) == -0.5
