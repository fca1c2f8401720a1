from __future__ import annotations

import numpy as np
import pytest

from medmargin.errors import ConfigError, DataError
from medmargin.uncertainty.risk_control import controlled_lambda, false_negative_losses

LAMBDAS = np.linspace(1, 0, 101)  # from the safest down


def simulated_losses(patients: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    losses = []
    for _ in range(patients):
        truth = rng.random(150) < 0.4
        probabilities = np.clip(0.25 + 0.5 * truth + rng.normal(0, 0.15, 150) + rng.normal(0, 0.1), 0, 1)
        losses.append(false_negative_losses(probabilities, truth, LAMBDAS))
    return np.array(losses)


def test_losses_are_the_share_of_the_structure_outside_the_set() -> None:
    probabilities, truth = np.array([0.9, 0.5, 0.2, 0.8]), np.array([1, 1, 1, 0])
    found = false_negative_losses(probabilities, truth, np.array([1.0, 0.8, 0.5, 0.1, 0.0]))
    assert found == pytest.approx([0, 0, 1 / 3, 2 / 3, 1])
    assert not false_negative_losses(probabilities, np.zeros(4), LAMBDAS).any()


@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_risk_on_new_patients_is_kept_over_200_splits(alpha: float) -> None:
    losses = simulated_losses(200, seed=0)
    rng = np.random.default_rng(1)
    risks = []
    for _ in range(200):
        order = rng.permutation(len(losses))
        calibration, test = losses[order[:100]], losses[order[100:]]
        chosen = controlled_lambda(calibration, LAMBDAS, alpha)
        risks.append(test[:, np.argmin(np.abs(LAMBDAS - chosen))].mean())
    standard_error = np.std(risks, ddof=1) / np.sqrt(len(risks))
    assert np.mean(risks) <= alpha + 2 * standard_error
    assert np.mean(risks) > alpha / 2, "the bound is not wasted either"


def test_answer_is_the_last_lambda_that_keeps_the_corrected_bound() -> None:
    losses = np.tile([0.0, 0.05, 0.10, 0.5], (99, 1))
    lambdas = np.array([4.0, 3.0, 2.0, 1.0])
    # corrected: 0.99 loss + 0.01
    assert controlled_lambda(losses, lambdas, 0.10) == 3.0
    assert controlled_lambda(losses, lambdas, 0.11) == 2.0
    assert controlled_lambda(losses, lambdas, 0.01) == 4.0


def test_released_code_is_far_too_safe_where_nothing_breaks_the_bound() -> None:
    losses, lambdas = np.zeros((99, 3)), np.array([3.0, 2.0, 1.0])
    assert controlled_lambda(losses, lambdas, 0.1) == 1.0
    assert controlled_lambda(losses, lambdas, 0.1, released=True) == 3.0


def test_too_few_patients_are_refused_with_the_number_needed() -> None:
    losses = np.zeros((5, 3))
    with pytest.raises(DataError, match="at least 19 patients"):
        controlled_lambda(losses, np.array([3.0, 2.0, 1.0]), 0.05)
    assert controlled_lambda(losses, np.array([3.0, 2.0, 1.0]), 0.05, released=True) == 3.0


@pytest.mark.parametrize("shape", [(0, 3), (4, 2), (4,)])
def test_sizes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="do not fit"):
        controlled_lambda(np.zeros(shape), np.array([3.0, 2.0, 1.0]), 0.1)
