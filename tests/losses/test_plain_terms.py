"""Pixel, region and distribution terms: closed forms, MONAI, precision and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import gradcheck

from medmargin.losses.distribution import binary_cross_entropy
from medmargin.losses.pixel import probability_mse
from medmargin.losses.region import dice_loss

TERMS = (probability_mse, dice_loss, binary_cross_entropy)
CONFIDENT = 40.0


def _batch(seed: int = 0, shape: tuple[int, ...] = (3, 2, 8, 9)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator)
    return logits, (torch.rand(shape, generator=generator) > 0.6).float()


def test_mse_of_probabilities_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 1, 2)  # probabilities 1/2 and 3/4
    target = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    assert probability_mse(logits, target).item() == pytest.approx((1 / 4 + 9 / 16) / 2)


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    assert binary_cross_entropy(logits, target).item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_dice_by_hand_is_a_mean_over_samples_not_over_pixels() -> None:
    half, hit, miss = 0.0, CONFIDENT, -CONFIDENT
    logits = torch.tensor([[half, half], [hit, miss]]).reshape(2, 1, 1, 2)
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).reshape(2, 1, 1, 2)
    first = 1 - (2 * 0.5) / (0.5 + 1)
    assert dice_loss(logits, target, smooth=0.0).item() == pytest.approx(first / 2)


@pytest.mark.parametrize("shape", [(3, 2, 8, 9), (2, 1, 4, 5, 6)])
def test_dice_equals_monai_in_the_setting_of_litemedsam(shape: tuple[int, ...]) -> None:
    from monai.losses import DiceLoss

    logits, target = _batch(shape=shape)
    reference = DiceLoss(sigmoid=True, squared_pred=True, smooth_nr=1e-5, smooth_dr=1e-5)(logits, target)
    assert dice_loss(logits, target).item() == pytest.approx(float(reference), abs=1e-6)


@pytest.mark.parametrize("loss", TERMS)
def test_the_perfect_answer_costs_nothing_and_the_opposite_costs_most(loss, edge_mask: NDArray[np.bool_]) -> None:
    target = torch.from_numpy(edge_mask)[None, None].float()
    right, wrong = CONFIDENT * (2 * target - 1), CONFIDENT * (1 - 2 * target)
    assert loss(right, target).item() == pytest.approx(0, abs=1e-6)
    assert loss(wrong, target) > loss(torch.zeros_like(target), target)


@pytest.mark.parametrize("loss", TERMS)
def test_gradients_agree_with_finite_differences(loss) -> None:
    logits, target = _batch(shape=(2, 1, 3, 4))
    assert gradcheck(lambda z: loss(z, target.double()), logits.double().requires_grad_())


@pytest.mark.parametrize("loss", TERMS)
def test_half_precision_logits_are_scored_in_float32(loss) -> None:
    logits, target = _batch()
    half = logits.bfloat16()
    result = loss(half, target)
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(loss(half.float(), target).item())


@pytest.mark.parametrize("loss", TERMS)
def test_the_order_of_samples_and_pixels_does_not_matter(loss) -> None:
    logits, target = _batch()
    turned = [x.flip(0).transpose(2, 3) for x in (logits, target)]
    assert loss(*turned).item() == pytest.approx(loss(logits, target).item(), rel=1e-5)
