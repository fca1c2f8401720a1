"""The step uphill: its length, its direction, and that nothing is left of it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medmargin.optim.perturbation import ascent, displaced, sharpness


def _random_tensors(seed: int, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for shape in ((3, 4), (5,), (1, 2, 2))]


def test_ascent_by_hand_is_measured_over_all_parameters_together() -> None:
    weights, gradients = [torch.tensor([1.0]), torch.tensor([2.0])], [torch.tensor([3.0]), torch.tensor([4.0])]
    torch.testing.assert_close(ascent(weights, gradients, rho=0.5), [torch.tensor([0.3]), torch.tensor([0.4])])


def test_adaptive_ascent_by_hand() -> None:
    weights, gradients = [torch.tensor([1.0]), torch.tensor([2.0])], [torch.tensor([3.0]), torch.tensor([2.0])]
    norm = math.hypot(3, 4)  # |w| g = 3 and 4
    expected = [torch.tensor([0.5 * 3 / norm]), torch.tensor([0.5 * 8 / norm])]
    torch.testing.assert_close(ascent(weights, gradients, rho=0.5, adaptive=True), expected)


@given(st.integers(0, 100), st.floats(1e-3, 10), st.sampled_from([1e-6, 1.0, 65536.0]))
@settings(max_examples=40, deadline=None)
def test_the_length_is_rho_whatever_the_scale_of_the_gradients(seed: int, rho: float, scale: float) -> None:
    offsets = ascent(_random_tensors(seed), _random_tensors(seed + 1, scale), rho=rho)
    assert torch.cat([e.flatten() for e in offsets]).norm().item() == pytest.approx(rho, rel=1e-4)


@given(st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_the_adaptive_length_is_rho_relative_to_each_weight(seed: int) -> None:
    weights = _random_tensors(seed)
    offsets = ascent(weights, _random_tensors(seed + 1), rho=0.5, adaptive=True)
    relative = torch.cat([(e / w).flatten() for e, w in zip(offsets, weights, strict=True)])
    assert relative.norm().item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_move_nothing(bad: float) -> None:
    gradients = _random_tensors(1)
    gradients[1][2] = bad
    assert not any(offset.any() for offset in ascent(_random_tensors(0), gradients, rho=0.5))


def test_no_gradient_moves_nothing() -> None:
    weights = _random_tensors(0)
    assert not any(offset.any() for offset in ascent(weights, [torch.zeros_like(w) for w in weights], rho=0.5))
    assert ascent([], [], rho=0.5) == []


def test_displaced_weights_come_back_exactly() -> None:
    weights = [nn.Parameter(w) for w in _random_tensors(0)]
    before = [w.detach().clone() for w in weights]
    offsets = _random_tensors(1, scale=1e6)  # adding and subtracting would lose every digit
    with displaced(weights, offsets):
        torch.testing.assert_close([w.detach() - b for w, b in zip(weights, before, strict=True)], offsets)
    assert all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))


def test_displaced_weights_come_back_after_an_error() -> None:
    weight = nn.Parameter(torch.ones(3))
    with pytest.raises(KeyError), displaced([weight], [torch.ones(3)]):
        raise KeyError
    assert torch.equal(weight, torch.ones(3))


def test_sharpness_of_a_parabola_is_known() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    curvature = 2.0
    loss = lambda: 0.5 * curvature * weight.square().sum()  # noqa: E731
    rho = 0.1  # uphill is outward: L rises from c/2 5^2 to c/2 5.1^2
    assert sharpness(loss, [weight], rho=rho) == pytest.approx(0.5 * curvature * (5.1**2 - 5**2), rel=1e-4)


def test_sharpness_grows_with_the_radius_and_the_curvature() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    by_radius = [sharpness(lambda: weight.square().sum(), [weight], rho=rho) for rho in (0.0, 0.01, 0.1, 1.0)]
    assert by_radius[0] == 0
    assert by_radius == sorted(by_radius)
    assert sharpness(lambda: 9 * weight.square().sum(), [weight], rho=0.1) > by_radius[2]


def test_sharpness_changes_neither_weights_nor_gradients() -> None:
    network = nn.Linear(3, 1)
    unused = nn.Parameter(torch.ones(2))
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert sharpness(lambda: network(x).square().mean(), [*network.parameters(), unused, frozen], rho=0.1) > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
