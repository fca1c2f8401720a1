from __future__ import annotations

import numpy as np
import pytest

from medmargin.evaluation.qu_brats import filtered_curves


def masks(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((6, 6, 4)) < 0.3, rng.random((6, 6, 4)) < 0.3, np.ones((6, 6, 4))


def test_perfect_mask_without_uncertainty_has_the_best_score() -> None:
    truth, _, brain = masks()
    curves = filtered_curves(truth, truth, np.zeros(truth.shape), brain)
    assert len(curves.thresholds) == 41
    assert curves.areas == pytest.approx((1, 0, 0))
    assert curves.score == pytest.approx(1)


def test_released_code_loses_the_first_threshold() -> None:
    truth, _, brain = masks()
    curves = filtered_curves(truth, truth, np.zeros(truth.shape), brain, released=True)
    assert curves.thresholds.tolist() == np.arange(97.5, -1, -2.5).tolist()
    assert curves.areas[0] == pytest.approx(0.975)


def test_constant_certainty_scores_high_without_knowing_anything() -> None:
    truth, mask, brain = masks()
    curves = filtered_curves(truth, mask, np.zeros(truth.shape), brain)
    assert curves.areas[1:] == (0, 0)
    assert curves.score > 2 / 3


def test_filtering_exactly_the_errors_is_better_than_filtering_the_hits() -> None:
    truth, mask, brain = masks()
    good = filtered_curves(truth, mask, 50.0 * (truth != mask), brain)
    bad = filtered_curves(truth, mask, 50.0 * (truth == mask), brain)
    assert good.dice[-1] == 1
    assert good.filtered_true_positives[-1] == 0
    assert bad.filtered_true_positives[-1] == pytest.approx(1, abs=1e-6)
    assert good.score > bad.score


def test_brain_mask_limits_the_filtered_shares_but_not_dice() -> None:
    truth, mask, brain = masks()
    uncertainty = 100.0 * np.random.default_rng(1).random(truth.shape)
    whole = filtered_curves(truth, mask, uncertainty, brain)
    nothing = filtered_curves(truth, mask, uncertainty, np.zeros_like(brain))
    np.testing.assert_array_equal(whole.dice, nothing.dice)
    assert whole.filtered_true_negatives[-1] > 0
    assert not nothing.filtered_true_negatives.any()


@pytest.mark.parametrize(("truth", "mask", "dice"), [(1, 1, 1.0), (0, 0, 1.0), (1, 0, 0.0), (0, 1, 0.0)])
def test_empty_mask_matrix(truth: int, mask: int, dice: float) -> None:
    shape = (3, 3, 3)
    curves = filtered_curves(np.full(shape, truth), np.full(shape, mask), np.zeros(shape), np.ones(shape))
    assert set(curves.dice.tolist()) == {dice}
    assert not curves.filtered_true_positives.any()
