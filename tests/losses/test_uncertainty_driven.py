"""The loss of UDEG-Net: what its terms are, that certainty cannot cheat it, and inputs that usually break it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medmargin.errors import ConfigError
from medmargin.losses.edge_targets import EDGE_KINDS, edge_balance, edge_distance, label_edges
from medmargin.losses.evidential import (
    evidential_cross_entropy,
    foreground_dice,
    kl_to_uniform,
    uncertainty_calibration,
)
from medmargin.losses.progressive import SCHEDULES, progressive_weights
from medmargin.losses.uncertainty_driven import UncertaintyDrivenLoss
from medmargin.networks.evidence import opinion
from medmargin.networks.prediction import Prediction

_SIDE, _COARSE = 32, 8


def _labels(classes: int = 3, batch: int = 2) -> Tensor:
    labels = torch.zeros(batch, _SIDE, _SIDE, dtype=torch.int64)
    for k in range(1, classes):
        labels[:, 6 : 6 + 4 * k, 3 + 8 * k : 9 + 8 * k] = k
    labels[0, 20:, :9] = 1  # touches the border
    return labels


def _prediction(classes: int = 3, *, edges: bool = True, deep: bool = True, scale: float = 2.0) -> Prediction:
    random = torch.Generator().manual_seed(3)

    def logits(channels: int, side: int) -> Tensor:
        return (scale * torch.randn(2, channels, side, side, generator=random)).requires_grad_()

    return Prediction(
        logits(classes, _COARSE),
        edges=logits(2, _COARSE) if edges else None,
        deep=(logits(2, 2), logits(2, 2), logits(2, 4)) if deep else (),
    )


def _upsampled(logits: Tensor) -> Tensor:
    return F.interpolate(logits, (_SIDE, _SIDE), mode="bilinear", align_corners=False)


def test_terms_and_total_are_those_of_the_formulas() -> None:
    prediction, labels, progress = _prediction(), _labels(), 0.1
    report = UncertaintyDrivenLoss(schedule="linear", beta=2.0, eta=0.7, calibration_weight=0.1)(
        prediction, labels, progress
    )
    belief = opinion(_upsampled(prediction.logits))
    edges = label_edges(labels)
    near = (-(edge_distance(edges) ** 2) / (2 * (5 * _SIDE / 256) ** 2)).exp()
    weights = progressive_weights(belief.uncertainty[:, 0], near, progress, beta=2.0, eta=0.7)
    coarse, coarse_near = (F.max_pool2d(x[:, None].float(), _SIDE // _COARSE)[:, 0] for x in (edges, near))
    edge_belief = opinion(prediction.edges)
    edge_weights = progressive_weights(edge_belief.uncertainty[:, 0], coarse_near, progress, beta=2.0, eta=0.7)
    edge_pixels = evidential_cross_entropy(edge_belief.alpha, coarse.long())
    edge_pixels = edge_pixels + 0.4 * kl_to_uniform(edge_belief.alpha, coarse.long())
    side = sum(
        F.binary_cross_entropy_with_logits(
            z[:, 1] - z[:, 0], F.max_pool2d(edges[:, None].float(), _SIDE // z.shape[-1])[:, 0]
        )
        for z in prediction.deep
    )
    expected = {
        "ce": (1.0, (weights * evidential_cross_entropy(belief.alpha, labels)).mean()),
        "kl": (0.4, (weights * kl_to_uniform(belief.alpha, labels)).mean()),  # 0.1 of a ramp of 0.25
        "dice": (1.0, foreground_dice(belief.probability, labels)),
        "calibration": (0.1, uncertainty_calibration(belief.evidence, labels, progress).mean()),
        "edge_ce": (1.0, (edge_weights * edge_balance(coarse) * edge_pixels).mean()),
        "edge_dice": (1.0, foreground_dice(edge_belief.probability, coarse.long())),
        "side": (0.3, side),
    }
    assert report.terms.keys() == expected.keys()
    for name, (weight, value) in expected.items():
        torch.testing.assert_close(report.terms[name], value, msg=name)
        assert report.weights[name].item() == pytest.approx(weight), name
    torch.testing.assert_close(report.total, sum(weight * value for weight, value in expected.values()))


def test_without_evidence_it_is_the_loss_of_samed() -> None:
    prediction, labels = _prediction(edges=False), _labels()
    report = UncertaintyDrivenLoss(evidence=None)(prediction, labels, 0.5)
    logits = _upsampled(prediction.logits)
    expected = 0.2 * F.cross_entropy(logits, labels) + 0.8 * foreground_dice(logits.softmax(1), labels)
    torch.testing.assert_close(report.total, expected)
    assert set(report.terms) == {"ce", "dice"}


def test_a_softmax_network_may_predict_edges() -> None:
    report = UncertaintyDrivenLoss(evidence=None)(_prediction(), _labels(), 0.5)
    assert set(report.terms) == {"ce", "dice", "edge_ce", "edge_dice", "side"}


def test_terms_exist_only_where_something_is_predicted() -> None:
    loss = UncertaintyDrivenLoss()
    assert set(loss(_prediction(edges=False), _labels(), 0.5).terms) == {"ce", "kl", "dice"}
    assert "side" not in loss(_prediction(deep=False), _labels(), 0.5).terms


def test_without_progression_every_pixel_counts_the_same() -> None:
    prediction, labels = _prediction(edges=False), _labels()
    report = UncertaintyDrivenLoss(progressive=False)(prediction, labels, 0.9)
    alpha = opinion(_upsampled(prediction.logits)).alpha
    torch.testing.assert_close(report.terms["ce"], evidential_cross_entropy(alpha, labels).mean())
    eta_zero = UncertaintyDrivenLoss(eta=0.0)(prediction, labels, 0.9)
    torch.testing.assert_close(report.total, eta_zero.total)


def test_the_gradient_is_that_of_fixed_weights() -> None:
    prediction, labels = _prediction(edges=False), _labels()
    loss = UncertaintyDrivenLoss(schedule="linear", kl_ramp=1.0)
    (found,) = torch.autograd.grad(loss(prediction, labels, 0.5).total, prediction.logits)
    belief = opinion(_upsampled(prediction.logits))
    near = loss.edge_targets(labels).proximity
    fixed = progressive_weights(belief.uncertainty[:, 0], near, 0.5).clone()
    pixels = evidential_cross_entropy(belief.alpha, labels) + 0.5 * kl_to_uniform(belief.alpha, labels)
    total = (fixed * pixels).mean() + foreground_dice(belief.probability, labels)
    (expected,) = torch.autograd.grad(total, prediction.logits)
    torch.testing.assert_close(found, expected)


def test_the_segmentation_terms_do_not_touch_edges_nor_the_edge_terms_the_segmentation() -> None:
    prediction, labels = _prediction(), _labels()
    UncertaintyDrivenLoss(edge_weight=0.0, side_weight=0.0)(prediction, labels, 0.5).total.backward()
    assert prediction.logits.grad.any()
    assert not prediction.edges.grad.any()
    without, with_edges = (UncertaintyDrivenLoss()(p, labels, 0.5) for p in (_prediction(edges=False), _prediction()))
    for name in ("ce", "kl", "dice"):
        assert without.terms[name] == with_edges.terms[name]


def test_the_divergence_grows_to_full_weight_within_its_ramp() -> None:
    loss = UncertaintyDrivenLoss()
    weights = [loss(_prediction(), _labels(), t).weights["kl"].item() for t in (0.0, 0.125, 0.25, 1.0)]
    assert weights == pytest.approx([0, 0.5, 1, 1])


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_late_in_training_errors_at_uncertain_pixels_cost_more(schedule: str) -> None:
    labels = torch.zeros(1, _SIDE, _SIDE, dtype=torch.int64)
    logits = torch.zeros(1, 2, _SIDE, _SIDE)
    logits[:, 0, :16] = 9  # certain and right; the rest knows nothing
    loss = UncertaintyDrivenLoss(schedule=schedule)
    early, late = (loss(Prediction(logits), labels, t).terms["ce"].item() for t in (0.0, 1.0))
    assert late > 1.25 * early


@pytest.mark.parametrize("edge_target", EDGE_KINDS)
def test_right_edges_cost_less_than_none_and_none_less_than_wrong_ones(edge_target: str) -> None:
    labels = _labels()
    loss = UncertaintyDrivenLoss(edge_target=edge_target, edge_radius=12)
    truth = loss.edge_targets(labels).target
    on_grid = F.max_pool2d(truth[:, None], _SIDE // 16)[:, 0]
    costs = []
    for strength in (12.0, 0.0, -12.0):
        edge = strength * (on_grid - 0.5)
        prediction = Prediction(torch.zeros(2, 3, _COARSE, _COARSE), edges=torch.stack([-edge, edge], 1))
        terms = loss(prediction, labels, 0.5).terms
        costs.append((terms["edge_ce"] + terms["edge_dice"]).item())
    assert costs == sorted(costs)


def test_it_finds_the_mask_and_its_edges_from_undecided_logits() -> None:
    labels = _labels()
    prediction = Prediction(
        torch.zeros(2, 3, _SIDE, _SIDE, requires_grad=True), edges=torch.zeros(2, 2, _SIDE, _SIDE, requires_grad=True)
    )
    loss, optimiser = UncertaintyDrivenLoss(), torch.optim.Adam([prediction.logits, prediction.edges], lr=0.3)
    first = loss(prediction, labels, 0.0).total.item()
    for step in range(60):
        optimiser.zero_grad()
        report = loss(prediction, labels, step / 59)
        report.total.backward()
        optimiser.step()
    assert report.total.item() < first / 2
    assert (prediction.logits.argmax(1) == labels).float().mean() > 0.99
    assert (prediction.edges.argmax(1) == label_edges(labels)).float().mean() > 0.99


def _check_finite(prediction: Prediction, labels: Tensor, progress: float, **options: Any) -> None:
    report = UncertaintyDrivenLoss(**options)(prediction, labels, progress)
    leaves = [prediction.logits, prediction.edges, *prediction.deep]
    for name, value in report.scalars().items():
        assert torch.isfinite(value), name
        assert value >= -1e-4, name
    for gradient in torch.autograd.grad(report.total, leaves):
        assert torch.isfinite(gradient).all()
    assert report.total.dtype == torch.float32


@pytest.mark.parametrize("evidence", ["softplus", "exp", "relu", None])
@pytest.mark.parametrize("certainty", [60.0, -60.0, 0.0])
def test_masks_that_usually_break_losses_do_not_break_this_one(
    edge_mask: NDArray[np.bool_], evidence: str | None, certainty: float
) -> None:
    labels = 2 * torch.from_numpy(edge_mask).long()[None]  # class 1 is absent
    logits = (certainty * (2.0 * F.one_hot(labels, 4).movedim(-1, 1) - 1)).requires_grad_()
    edges = (certainty * torch.ones(1, 2, 3, 3)).requires_grad_()
    deep = (torch.full((1, 2, 2, 2), certainty).requires_grad_(),)
    calibration = 0.1 if evidence else 0.0
    for progress in (0.0, 1.0):
        prediction = Prediction(logits, edges=edges, deep=deep)
        _check_finite(prediction, labels, progress, evidence=evidence, calibration_weight=calibration)


@given(
    st.integers(0, 999),
    st.sampled_from([0.1, 5.0, 60.0]),
    st.floats(0, 1),
    st.sampled_from(sorted(SCHEDULES)),
    st.sampled_from(EDGE_KINDS),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(max_examples=50, deadline=None)
def test_any_labels_logits_and_settings_give_finite_terms_and_gradients(
    seed: int, scale: float, progress: float, schedule: str, edge_target: str, dtype: torch.dtype
) -> None:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (2, 13, 16), generator=random) // torch.randint(1, 6, (1,), generator=random)
    prediction = Prediction(
        (scale * torch.randn(2, 5, 4, 4, generator=random)).to(dtype).requires_grad_(),
        edges=(scale * torch.randn(2, 2, 4, 4, generator=random)).to(dtype).requires_grad_(),
        deep=((scale * torch.randn(2, 2, 2, 2, generator=random)).to(dtype).requires_grad_(),),
    )
    _check_finite(
        prediction, labels, progress, schedule=schedule, edge_target=edge_target, calibration_weight=0.1, eta=1.0
    )


def test_autocast_changes_nothing() -> None:
    prediction, labels, loss = _prediction(), _labels(), UncertaintyDrivenLoss(calibration_weight=0.1)
    plain = loss(prediction, labels, 0.5).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(prediction, labels, 0.5).total, plain)


@pytest.mark.parametrize(
    "options",
    [
        {"evidence": "sigmoid"},
        {"schedule": "step"},
        {"edge_target": "hed"},
        {"eta": 1.5},
        {"kl_ramp": -0.1},
        {"beta": math.nan},
        {"edge_weight": -1.0},
        {"side_weight": math.inf},
        {"edge_radius": 0.0},
        {"evidence": None, "calibration_weight": 0.1},
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any]) -> None:
    name = next(reversed(options)).removeprefix("edge_")
    with pytest.raises(ConfigError, match="edge target" if "edge_target" in options else name):
        UncertaintyDrivenLoss(**options)


def test_labels_and_progress_out_of_range_are_refused() -> None:
    loss, prediction = UncertaintyDrivenLoss(), _prediction()
    with pytest.raises(ValueError, match=r"labels hold 0..3, but the network has the classes 0..2"):
        loss(prediction, _labels(4), 0.5)
    with pytest.raises(ValueError, match=r"labels hold -1"):
        loss(prediction, _labels() - 1, 0.5)
    with pytest.raises(ValueError, match="do not fit logits"):
        loss(prediction, _labels(batch=1), 0.5)
    for progress in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="progress"):
            loss(prediction, _labels(), progress)
