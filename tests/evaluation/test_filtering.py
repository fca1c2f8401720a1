from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medmargin.evaluation.filtering import curves_of_counts, filter_levels, filtering_figures, joint_counts
from medmargin.evaluation.qu_brats import filtered_curves

CLASSES = arrays(np.int64, 40, elements=st.integers(0, 2))


@given(CLASSES, CLASSES, arrays(np.float64, 40, elements=st.floats(0, 1.0)))
def test_curves_of_counts_equal_those_of_maps(truth: np.ndarray, labels: np.ndarray, share: np.ndarray) -> None:
    percent = np.round(share * 40) * 2.5  # on the thresholds themselves, where > and >= differ
    levels = filter_levels(percent / 100 * math.log(3), 3)
    # the scaling back to percent may be off by a rounding error: compare with what it gave
    seen = np.minimum(percent / 100 * math.log(3) * (100 / math.log(3)), 100)
    counts = joint_counts(levels, truth, labels, 3)
    for structure in (1, 2):
        found = curves_of_counts(counts, structure)
        expected = filtered_curves(truth == structure, labels == structure, seen, np.ones(40))
        np.testing.assert_allclose(found.thresholds, expected.thresholds)
        np.testing.assert_allclose(found.dice, expected.dice)
        np.testing.assert_allclose(found.filtered_true_positives, expected.filtered_true_positives)
        np.testing.assert_allclose(found.filtered_true_negatives, expected.filtered_true_negatives)


def test_map_of_the_errors_scores_best_and_one_of_zeros_keeps_everything() -> None:
    truth, labels = np.array([0, 1, 1, 0, 0]), np.array([0, 1, 0, 1, 0])
    ideal = joint_counts(filter_levels((truth != labels) * math.log(2), 2), truth, labels, 2)
    figures = filtering_figures(ideal, ["lesion"])["lesion"]
    # at tau = 100 all is kept and Dice is 1/2; at the 40 lower thresholds it is 1
    assert figures["dice_auc"] == pytest.approx(1 - 0.025 / 4)
    assert figures["ftp_auc"] == figures["ftn_auc"] == 0
    zeros = filtering_figures(joint_counts(filter_levels(np.zeros(5), 2), truth, labels, 2), ["lesion"])["lesion"]
    assert zeros["dice_auc"] == pytest.approx(0.5)
    assert zeros["qu_brats"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert filtering_figures(None, ["lesion"]) == {}


def test_more_than_the_entropy_of_equal_classes_counts_as_that() -> None:
    assert filter_levels(np.array([0.0, math.log(3), 50.0]), 3).tolist() == [0, 40, 40]
