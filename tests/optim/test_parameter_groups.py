"""Parameter groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medmargin.losses.uncertainty_weighting import UncertaintyWeighted
from medmargin.optim.parameter_groups import parameter_groups


def _network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def _by_name(groups: list[dict]) -> dict[str, dict]:
    return {group["name"]: group for group in groups}


def test_matrices_decay_vectors_do_not_and_loss_weights_learn_faster() -> None:
    network, loss = _network(), UncertaintyWeighted(["a", "b"])
    groups = _by_name(parameter_groups(network, lr=1e-3, weight_decay=0.01, loss=loss))
    assert groups["decay"]["params"] == [network[0].weight, network[2].weight]
    assert groups["no_decay"]["params"] == [network[0].bias, network[1].weight, network[1].bias, network[2].bias]
    assert groups["loss"]["params"] == [loss.uncertainty]
    assert {name: group["weight_decay"] for name, group in groups.items()} == {"decay": 0.01, "no_decay": 0, "loss": 0}
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(
        {"decay": 1e-3, "no_decay": 1e-3, "loss": 0.1}
    )


def test_vectors_decay_on_request_and_empty_groups_vanish() -> None:
    network = _network()
    (group,) = parameter_groups(network, lr=1e-3, weight_decay=0.01, decay_vectors=True)
    assert group["params"] == list(network.parameters())


def test_frozen_parameters_are_left_out() -> None:
    network = _network()
    network[0].requires_grad_(False)
    chosen = [p for group in parameter_groups(network, lr=1e-3, weight_decay=0.01) for p in group["params"]]
    assert len(chosen) == 4
    assert all(parameter.requires_grad for parameter in chosen)


def test_without_a_gradient_only_decay_moves_a_weight_and_never_a_loss_weight() -> None:
    network, loss = _network(), UncertaintyWeighted(["a"])
    optimiser = torch.optim.AdamW(parameter_groups(network, lr=0.1, weight_decay=0.5, loss=loss))
    before = [p.detach().clone() for group in optimiser.param_groups for p in group["params"]]
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    after = [p.detach() for group in optimiser.param_groups for p in group["params"]]
    torch.testing.assert_close(after[:2], [0.95 * value for value in before[:2]])
    assert all(torch.equal(a, b) for a, b in zip(after[2:], before[2:], strict=True))


def test_chosen_parameters_learn_faster_and_decay_like_the_others() -> None:
    network = _network()
    groups = _by_name(
        parameter_groups(network, lr=1e-3, weight_decay=0.01, fast=lambda name: name.startswith("2."), fast_lr_factor=5)
    )
    assert groups["fast_decay"]["params"] == [network[2].weight]
    assert groups["fast_no_decay"]["params"] == [network[2].bias]
    assert groups["decay"]["params"] == [network[0].weight]
    assert [groups[name]["lr"] for name in ("decay", "fast_decay", "fast_no_decay")] == pytest.approx(
        [1e-3, 5e-3, 5e-3]
    )
    assert groups["fast_decay"]["weight_decay"] == 0.01
    assert groups["fast_no_decay"]["weight_decay"] == 0
