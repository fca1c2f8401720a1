"""Progressive weights: their mean, their direction, and that no gradient passes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medmargin.losses.progressive import SCHEDULES, exponential, progressive_weights


def _uncertainty(seed: int = 0, shape: tuple[int, ...] = (3, 9, 11)) -> Tensor:
    return 0.02 + 0.98 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _proximity(uncertainty: Tensor) -> Tensor:
    return torch.rand(uncertainty.shape, generator=torch.Generator().manual_seed(7))


@given(st.integers(0, 999), st.floats(0, 1), st.floats(0, 4), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_weights_have_mean_one_over_every_image(seed: int, rho: float, beta: float, eta: float) -> None:
    u = _uncertainty(seed)
    weights = progressive_weights(u, _proximity(u), rho, beta=beta, eta=eta)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.flatten(1).mean(1), torch.ones(3), rtol=0, atol=1e-5)


@given(st.integers(0, 999), st.floats(0.05, 1))
@settings(max_examples=40, deadline=None)
def test_certain_pixels_lead_at_the_start_and_uncertain_ones_at_the_end(seed: int, eta: float) -> None:
    u = _uncertainty(seed)
    for rho, sign in ((0.0, -1), (1.0, 1)):
        weights = progressive_weights(u, _proximity(u), rho, eta=eta)
        for image in range(3):
            correlation = np.corrcoef(weights[image].flatten(), u[image].flatten())[0, 1]
            assert sign * correlation > 0.5


def test_weights_follow_their_formula() -> None:
    u, near = _uncertainty(), _proximity(_uncertainty())
    for rho in (0.0, 0.3, 1.0):
        w = (1 - rho) * (1 - u) + rho * u * (1 + 2 * near)
        expected = 0.2 + 0.8 * w / w.mean((1, 2), keepdim=True)
        torch.testing.assert_close(progressive_weights(u, near, rho, beta=2.0, eta=0.8), expected, rtol=1e-5, atol=1e-5)


def test_no_gradient_reaches_the_uncertainty() -> None:
    u = _uncertainty().requires_grad_()
    assert not progressive_weights(u, _proximity(u), 0.5).requires_grad


def test_all_weights_are_one_without_eta_and_where_everything_is_uncertain() -> None:
    u = _uncertainty()
    assert (progressive_weights(u, _proximity(u), 0.4, eta=0.0) == 1).all()
    everything = torch.ones(1, 4, 4)
    torch.testing.assert_close(progressive_weights(everything, torch.zeros(1, 4, 4), 0.0, eta=1.0), everything)


def test_one_image_does_not_change_the_weights_of_another() -> None:
    u = _uncertainty()
    together = progressive_weights(u, _proximity(u), 0.6)
    torch.testing.assert_close(together[1:2], progressive_weights(u[1:2], _proximity(u)[1:2], 0.6))


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedules_rise_to_one(name: str) -> None:
    values = [SCHEDULES[name](t) for t in np.linspace(0, 1, 101)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0.01 if name == "exp" else 0, abs=1e-12)
    assert values[-1] == pytest.approx(1)


def test_the_exponential_schedule_is_the_annealing_factor_of_devis() -> None:
    start, steps = 0.01, 101
    for step in (0, 1, 50.5, 101):
        expected = start * math.exp(-math.log(start) / steps * step)
        assert exponential(step / steps) == pytest.approx(expected)
