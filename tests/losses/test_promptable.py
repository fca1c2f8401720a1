"""The compound loss: what its arguments switch, that it stays finite, and that it trains."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from medmargin.errors import ConfigError
from medmargin.losses.distance_maps import penalty_weights
from medmargin.losses.promptable import PromptableLoss
from medmargin.losses.shape_distance import SHAPE_DISTANCES
from medmargin.networks.prediction import Prediction

ALL = ("mse", "dice", "ce", "sd")
SHAPE = (9, 11)


def _prediction(logits: Tensor, quality: float = 0.5) -> Prediction:
    return Prediction(logits=logits, quality=torch.full((len(logits), 1), quality, requires_grad=True))


def _masks(*masks: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.stack(masks)).float()[:, None]


def _random_batch(size: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(size, 1, *SHAPE, generator=generator), _masks(
        *(torch.rand(size, *SHAPE, generator=generator) > 0.7).numpy()
    )


def test_the_default_is_the_weighting_of_four_terms_plus_the_quality() -> None:
    logits, target = _random_batch()
    report = PromptableLoss()(_prediction(logits), target)
    assert list(report.terms) == [*ALL, "quality"]
    expected = sum(report.terms[name] for name in ALL) / 2 + 4 * math.log(2) + report.terms["quality"]
    assert report.total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert set(report.scalars()) == {
        "loss",
        *(f"loss/{name}" for name in (*ALL, "quality")),
        *(f"weight/{name}" for name in (*ALL, "quality")),
    }


def test_the_terms_are_the_reference_numbers(golden: Path) -> None:
    reference = load_file(golden / "u-medsam.safetensors")
    report = PromptableLoss(quality="off")(
        Prediction(reference["input.logits"]),
        reference["input.target"],
        reference["output.dist_weight_map"][:, None],
    )
    names = {"mse": "mse_prob", "dice": "dice_monai_sigmoid_squared", "ce": "bce_logits", "sd": "dpce_weighted_mean"}
    for term, name in names.items():
        assert report.terms[term].item() == pytest.approx(reference[f"output.{name}"].item(), abs=1e-5)
    assert report.total.item() == pytest.approx(reference["output.awl_total_init_ones"].item(), abs=1e-5)


def test_shape_distance_only_is_an_argument() -> None:
    logits, target = _random_batch()
    report = PromptableLoss(("sd",), weighting="fixed", quality="off")(_prediction(logits), target)
    weights = _masks(*[penalty_weights(mask) for mask in target[:, 0].numpy()])
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    assert report.total.item() == pytest.approx((weights * entropy).mean().item(), rel=1e-6)


def test_plain_dice_and_cross_entropy_is_an_argument() -> None:
    logits, target = _random_batch()
    loss = PromptableLoss(("dice", "ce"), weighting="fixed")
    report = loss(_prediction(logits), target)
    assert report.total.item() == pytest.approx(sum(value.item() for value in report.terms.values()), rel=1e-6)
    assert list(report.terms) == ["dice", "ce", "quality"]
    assert not list(loss.parameters())
    assert loss.distance_map is None


def test_fixed_weights_are_arguments() -> None:
    logits, target = _random_batch()
    loss = PromptableLoss(("dice", "ce"), weighting="fixed", quality="off", weights={"dice": 0.8, "ce": 0.2})
    report = loss(_prediction(logits), target)
    assert report.total.item() == pytest.approx((0.8 * report.terms["dice"] + 0.2 * report.terms["ce"]).item())


def test_the_quality_can_be_a_fifth_weighted_term() -> None:
    loss = PromptableLoss(quality="weighted")
    assert sum(parameter.numel() for parameter in loss.parameters()) == 5
    logits, target = _random_batch()
    assert loss(_prediction(logits), target).weights["quality"].item() == pytest.approx(0.5)


@pytest.mark.parametrize("shape_distance", [n for n, option in SHAPE_DISTANCES.items() if option.can_be_negative])
def test_a_shape_distance_that_can_be_negative_is_weighted_through_softplus(shape_distance: str, two_parts) -> None:
    target = _masks(two_parts)
    loss = PromptableLoss(("dice", "sd"), shape_distance=shape_distance, quality="off")
    report = loss(_prediction(40 * (target - 0.5)), target)
    raw = report.terms["sd"].item()
    assert raw < 0
    expected = (report.terms["dice"].item() + math.log1p(math.exp(raw))) / 2 + 2 * math.log(2)
    assert report.total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("quality", ["fixed", "weighted"])
def test_the_quality_head_learns_and_the_mask_learns_nothing_from_it(quality) -> None:
    logits, target = _random_batch()
    prediction = _prediction(logits.requires_grad_())
    loss = PromptableLoss(("dice",), quality=quality)
    (with_quality,) = torch.autograd.grad(loss(prediction, target).total, logits, retain_graph=True)
    (without,) = torch.autograd.grad(PromptableLoss(("dice",), quality="off")(prediction, target).total, logits)
    torch.testing.assert_close(with_quality, without, rtol=0, atol=0)
    loss(prediction, target).total.backward()
    assert prediction.quality.grad.abs().min() > 0


@pytest.mark.parametrize("shape_distance", [n for n, option in SHAPE_DISTANCES.items() if option.distance_map])
def test_maps_from_the_loader_and_maps_made_here_are_the_same(shape_distance: str) -> None:
    logits, target = _random_batch()
    loss = PromptableLoss(shape_distance=shape_distance)
    maps = _masks(*[loss.distance_map(mask) for mask in target[:, 0].numpy()])
    with_maps, without = (loss(_prediction(logits), target, m).total.item() for m in (maps, None))
    assert with_maps == without


def test_the_option_that_needs_no_map_says_so() -> None:
    assert PromptableLoss(shape_distance="hausdorff_er").distance_map is None


@pytest.mark.parametrize("shape_distance", sorted(SHAPE_DISTANCES))
@pytest.mark.parametrize("weighting", ["uncertainty", "fixed"])
def test_every_option_is_finite_on_every_edge_mask(shape_distance: str, weighting, edge_mask) -> None:
    target = _masks(edge_mask, ~edge_mask)
    loss = PromptableLoss(shape_distance=shape_distance, weighting=weighting)
    for scale in (0.0, 1.0, -50.0, 1e4):
        logits = (scale * (2 * target - 1)).requires_grad_()
        report = loss(_prediction(logits), target)
        report.total.backward()
        assert all(torch.isfinite(value) for value in report.scalars().values())
        assert torch.isfinite(logits.grad).all()


@given(
    arrays(np.float32, (2, *SHAPE), elements=st.floats(-1e4, 1e4, width=32)),
    arrays(bool, (2, *SHAPE)),
    st.sampled_from([name for name, option in SHAPE_DISTANCES.items() if not option.can_be_negative]),
)
@settings(max_examples=60, deadline=None)
def test_no_term_falls_below_its_minimum(
    logits: NDArray[np.float32], masks: NDArray[np.bool_], shape_distance: str
) -> None:
    report = PromptableLoss(shape_distance=shape_distance)(
        _prediction(torch.from_numpy(logits)[:, None]), _masks(*masks)
    )
    rounding = -1e-6  # of a float32 mean over saturated pixels
    assert all(value >= rounding and torch.isfinite(value) for value in report.terms.values())
    assert report.terms["mse"] <= 1
    assert report.terms["dice"] <= 1
    assert report.total >= rounding


@given(arrays(bool, (2, *SHAPE)))
@settings(max_examples=30, deadline=None)
def test_the_perfect_answer_leaves_only_the_price_of_uncertainty(masks: NDArray[np.bool_]) -> None:
    target = _masks(*masks)
    report = PromptableLoss()(_prediction(100 * (target - 0.5), quality=1.0), target)
    assert report.total.item() == pytest.approx(4 * math.log(2), abs=1e-5)


@pytest.mark.parametrize("shape_distance", sorted(SHAPE_DISTANCES))
def test_under_autocast_values_are_those_of_float32_and_gradients_finite(shape_distance: str, edge_mask) -> None:
    weight = torch.randn(16, 16, generator=torch.Generator().manual_seed(3)).requires_grad_()
    target = F.pad(_masks(edge_mask), (0, 6, 0, 4))  # [1, 1, 16, 16]
    loss = PromptableLoss(shape_distance=shape_distance)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = (torch.eye(16) @ weight)[None, None]
        assert logits.dtype == torch.bfloat16
        report = loss(Prediction(logits, quality=torch.tensor([[0.5]]).bfloat16()), target)
    exact = loss(Prediction(logits.float(), quality=torch.tensor([[0.5]])), target)
    assert report.total.dtype == torch.float32
    assert report.total.item() == exact.total.item()
    report.total.backward()
    assert torch.isfinite(weight.grad).all()
    assert torch.isfinite(loss.weighting.uncertainty.grad).all()


@pytest.mark.parametrize(
    ("terms", "weighting", "shape_distance"),
    [
        *itertools.product([ALL], ["uncertainty", "fixed"], sorted(SHAPE_DISTANCES)),
        (("dice", "ce"), "fixed", "penalised_ce"),
        (("sd",), "fixed", "penalised_ce"),
    ],
)
def test_it_trains_free_logits_onto_the_mask(terms, weighting, shape_distance, two_parts) -> None:
    target = _masks(two_parts)
    loss = PromptableLoss(terms, weighting=weighting, shape_distance=shape_distance)
    logits = torch.zeros_like(target, requires_grad=True)
    quality = torch.zeros(1, 1, requires_grad=True)
    optimiser = torch.optim.Adam([logits, quality, *loss.parameters()], lr=0.1)
    values = []
    for _ in range(60):
        optimiser.zero_grad()
        report = loss(Prediction(logits, quality=quality), target)
        report.total.backward()
        optimiser.step()
        values.append(report.total.item())
    assert values[-1] < values[0]
    assert torch.equal(logits > 0, target > 0.5)
    assert quality.item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("terms", "options"),
    [
        ((), {}),
        (("dice", "dice"), {}),
        (("dise",), {}),
        (("dice",), {"weighting": "learned"}),
        (("dice",), {"shape_distance": "sdm"}),
        (("dice",), {"quality": "on"}),
        (("dice",), {"regulariser": "ln"}),
        (("dice",), {"weights": {"dice": 1.0}}),
        (("dice",), {"weighting": "fixed", "weights": {"ce": 1.0}}),
        (("sd",), {"shape_distance": "boundary"}),
        (("sd",), {"shape_distance": "hausdorff_er", "weighting": "fixed"}),
    ],
)
def test_impossible_arguments_are_refused(terms, options) -> None:
    with pytest.raises(ConfigError):
        PromptableLoss(terms, **options)


def test_a_wrong_name_is_answered_with_the_right_ones() -> None:
    with pytest.raises(ConfigError, match="'dise': expected one of mse, dice, ce, sd"):
        PromptableLoss(("dise",))


def test_shapes_that_would_broadcast_are_refused() -> None:
    logits, target = _random_batch()
    loss = PromptableLoss()
    with pytest.raises(ValueError, match="target"):
        loss(_prediction(logits), target[:, 0])
    with pytest.raises(ValueError, match="maps"):
        loss(_prediction(logits), target, target[:1])


def test_a_network_without_quality_needs_a_loss_without_quality() -> None:
    logits, target = _random_batch()
    with pytest.raises(ValueError, match="quality='off'"):
        PromptableLoss()(Prediction(logits), target)
    assert "quality" not in PromptableLoss(quality="off")(Prediction(logits), target).terms
