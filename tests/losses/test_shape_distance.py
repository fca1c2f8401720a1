"""The Shape-Distance term: every option against its formula, and whether it trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from medmargin.losses.distance_maps import border_distance, penalty_weights, signed_distance
from medmargin.losses.shape_distance import (
    SHAPE_DISTANCES,
    boundary_loss,
    distance_dice,
    penalised_cross_entropy,
    signed_distance_l1,
)


def _disc(size: int = 24, radius: float = 7.0) -> NDArray[np.bool_]:
    row, column = np.indices((size, size)) - size // 2
    return np.hypot(row, column) <= radius


def _loss(name: str, logits: Tensor, mask: NDArray[np.bool_]) -> Tensor:
    option = SHAPE_DISTANCES[name]
    target = torch.from_numpy(mask).float()[None, None]
    if option.distance_map is None:
        return option.loss(logits, target)
    return option.loss(logits, target, torch.from_numpy(option.distance_map(mask))[None, None])


def _random_logits(seed: int = 0, size: int = 24) -> Tensor:
    return 2 * torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(seed))


def test_penalised_cross_entropy_counts_the_weights_unlike_the_released_code() -> None:
    mask, logits = _disc(), _random_logits()
    target, weights = torch.from_numpy(mask).float()[None, None], torch.from_numpy(penalty_weights(mask))[None, None]
    entropy = -F.logsigmoid(torch.where(target > 0, logits, -logits))
    expected = (weights * entropy).sum() / entropy.numel()
    assert penalised_cross_entropy(logits, target, weights).item() == pytest.approx(expected.item(), rel=1e-6)
    assert expected > 1.05 * entropy.mean()


def test_penalised_cross_entropy_lies_between_once_and_twice_the_plain_one(edge_mask: NDArray[np.bool_]) -> None:
    target = torch.from_numpy(edge_mask).float()[None, None]
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    plain = F.binary_cross_entropy_with_logits(logits, target)
    penalised = _loss("penalised_ce", logits, edge_mask)
    assert plain * 0.9999 <= penalised <= 2 * plain * 1.0001


def test_boundary_loss_over_two_softmax_channels_is_that_of_the_logit_difference() -> None:
    phi = torch.from_numpy(signed_distance(_disc()))[None, None]
    channels = torch.cat([_random_logits(1), _random_logits(2)], 1)  # [1, 2, H, W]
    softmax_form = (channels.softmax(1)[:, 1:] * phi).mean()
    difference = channels[:, 1:] - channels[:, :1]
    assert boundary_loss(difference, torch.empty(0), phi).item() == pytest.approx(softmax_form.item(), rel=1e-5)


def test_boundary_loss_falls_as_the_prediction_moves_onto_the_mask() -> None:
    phi = torch.from_numpy(signed_distance(_disc()))[None, None]
    logits = 20 * (torch.from_numpy(_disc()).float() - 0.5)[None, None]
    values = [boundary_loss(logits.roll(shift, -1), torch.empty(0), phi).item() for shift in (6, 4, 2, 0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0


def test_signed_distance_regression_is_zero_where_logits_are_the_distance() -> None:
    phi = torch.from_numpy(border_distance(_disc()))[None, None]
    assert signed_distance_l1(-2 * phi / 3, torch.empty(0), phi, width=3.0).item() == pytest.approx(0, abs=1e-6)
    assert signed_distance_l1(phi, torch.empty(0), phi).item() > 0.1


def test_distance_dice_follows_its_formula_per_sample() -> None:
    masks = [_disc(), _disc(radius=3)]
    target = torch.from_numpy(np.stack(masks)).float()[:, None]
    weights = torch.from_numpy(np.stack([penalty_weights(mask) for mask in masks]))[:, None]
    logits = torch.cat([_random_logits(3), _random_logits(4)])
    s = logits.sigmoid()
    ratios = [
        (2 * (weights[i] * s[i] * target[i]).sum() + 1e-5) / (s[i].sum() + target[i].sum() + 1e-5) for i in range(2)
    ]
    expected = -(ratios[0] + ratios[1]) / 2
    assert distance_dice(logits, target, weights).item() == pytest.approx(expected.item(), rel=1e-6)


def test_hausdorff_option_weighs_errors_by_squared_distances_to_both_borders() -> None:
    mask, logits = _disc(), _random_logits(5)
    predicted = logits[0, 0].numpy() > 0
    squared = sum(distance_transform_edt(m) ** 2 + distance_transform_edt(~m) ** 2 for m in (mask, predicted))
    error = (logits.sigmoid()[0, 0].numpy() - mask) ** 2
    assert _loss("hausdorff_dt", logits, mask).item() == pytest.approx(float((error * squared).mean()), rel=1e-5)


@pytest.mark.parametrize("name", sorted(SHAPE_DISTANCES))
def test_values_are_finite_and_only_the_declared_options_go_negative(name: str, edge_mask: NDArray[np.bool_]) -> None:
    certain = 30 * (2 * torch.from_numpy(edge_mask).float() - 1)[None, None]
    for logits in (certain, -certain, 0 * certain):
        logits = logits.clone().requires_grad_()
        loss = _loss(name, logits, edge_mask)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()
        assert loss >= 0 or SHAPE_DISTANCES[name].can_be_negative


@pytest.mark.parametrize("name", [name for name, option in SHAPE_DISTANCES.items() if option.can_be_negative])
def test_options_that_declare_it_do_go_negative(name: str) -> None:
    mask = _disc()
    assert _loss(name, 20 * (2 * torch.from_numpy(mask).float() - 1)[None, None], mask) < 0


@pytest.mark.parametrize("name", [name for name, option in SHAPE_DISTANCES.items() if option.works_alone])
def test_an_option_that_works_alone_finds_the_mask_from_undecided_logits(name: str) -> None:
    mask = _disc()
    logits = torch.zeros(1, 1, *mask.shape, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimiser.zero_grad()
        _loss(name, logits, mask).backward()
        optimiser.step()
    found = logits.detach()[0, 0].numpy() > 0
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.95


@pytest.mark.parametrize("name", [name for name, option in SHAPE_DISTANCES.items() if not option.works_alone])
def test_an_option_that_does_not_work_alone_leaves_pixels_without_gradient(name: str) -> None:
    undecided = torch.zeros(1, 1, 24, 24, requires_grad=True)
    empty = np.zeros((24, 24), bool)
    _loss(name, undecided, empty).backward()
    assert not undecided.grad.any()
