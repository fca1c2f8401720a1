"""Evidential losses against Dirichlet distributions computed elsewhere, and on masks and evidence that break losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import digamma
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence
from torch.nn import functional as F

from medmargin.losses.evidential import (
    evidential_cross_entropy,
    foreground_dice,
    kl_factor,
    kl_to_uniform,
    uncertainty_calibration,
)
from medmargin.losses.evidential_published import (
    balanced_tversky,
    concentration_dice,
    devis_loss,
    evidential_squared_error,
    log_dice,
    tbrats_loss,
)
from medmargin.networks.evidence import opinion


def _case(classes: int = 4, spatial: tuple[int, ...] = (5, 6), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return concentrations [2, K, *spatial] and labels [2, *spatial]."""
    random = torch.Generator().manual_seed(seed)
    alpha = 1 + 6 * torch.rand(2, classes, *spatial, generator=random)
    return alpha, torch.randint(0, classes, (2, *spatial), generator=random)


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    return F.one_hot(labels, classes).movedim(-1, 1).float()


def test_cross_entropy_is_the_mean_surprise_of_dirichlet_samples() -> None:
    concentrations = [1.5, 4.0, 2.5]
    samples = np.random.default_rng(0).dirichlet(concentrations, size=400_000)
    alpha = torch.tensor(concentrations).view(1, 3, 1)
    for label in range(3):
        found = evidential_cross_entropy(alpha, torch.tensor([[label]])).item()
        assert found == pytest.approx(-np.log(samples[:, label]).mean(), abs=0.01)


@pytest.mark.parametrize("spatial", [(7,), (5, 6), (2, 3, 4)])
def test_divergence_is_that_of_the_misleading_dirichlet_summed_over_classes(spatial: tuple[int, ...]) -> None:
    alpha, labels = _case(spatial=spatial)
    truth = _one_hot(labels, 4)
    misleading = (truth + (1 - truth) * alpha).movedim(1, -1).double()
    expected = kl_divergence(Dirichlet(misleading), Dirichlet(torch.ones_like(misleading)))
    torch.testing.assert_close(kl_to_uniform(alpha, labels).double(), expected, rtol=1e-5, atol=1e-5)


def test_divergence_of_two_classes_has_a_closed_form() -> None:
    wrong = torch.linspace(1, 60, 50)
    alpha = torch.stack([torch.full_like(wrong, 9.0), wrong])[None]
    expected = wrong.log() - 1 + 1 / wrong  # lnG(a + 1) - lnG(a) = ln a, psi(a + 1) - psi(a) = 1 / a
    found = kl_to_uniform(alpha, torch.zeros(1, 50, dtype=torch.int64))
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=2e-5)


@given(st.integers(2, 6), st.floats(0, 1e3))
@settings(max_examples=40, deadline=None)
def test_divergence_is_zero_where_only_the_true_class_has_evidence(classes: int, evidence: float) -> None:
    labels = torch.arange(classes).view(1, -1)
    alpha = 1 + evidence * _one_hot(labels, classes)
    assert kl_to_uniform(alpha, labels).abs().max() < 1e-6
    assert kl_to_uniform(torch.ones_like(alpha), labels).abs().max() < 1e-6


def test_one_hot_fractions_and_labels_give_the_same_values() -> None:
    alpha, labels = _case()
    truth = _one_hot(labels, 4)
    for loss in (evidential_cross_entropy, kl_to_uniform, foreground_dice):
        torch.testing.assert_close(loss(alpha, truth), loss(alpha, labels))


def test_cross_entropy_is_linear_in_soft_targets() -> None:
    alpha = 1 + 5 * torch.rand(1, 2, 8)
    edge, other = (torch.full((1, 8), label) for label in (1, 0))
    soft = torch.full((1, 2, 8), 0.3)
    soft[:, 0] = 0.7
    expected = 0.3 * evidential_cross_entropy(alpha, edge) + 0.7 * evidential_cross_entropy(alpha, other)
    torch.testing.assert_close(evidential_cross_entropy(alpha, soft), expected)


def test_divergence_factor_rises_to_one_and_stays() -> None:
    assert [kl_factor(t, 0.25) for t in (0, 0.125, 0.25, 1)] == [0, 0.5, 1, 1]
    assert kl_factor(0, 0) == 1


def test_dice_averages_images_and_foreground_classes() -> None:
    alpha, labels = _case()
    p, y = (alpha / alpha.sum(1, keepdim=True)).numpy(), _one_hot(labels, 4).numpy()
    each = [
        1 - (2 * (p[b, k] * y[b, k]).sum() + 1e-5) / (p[b, k].sum() + y[b, k].sum() + 1e-5)
        for b in range(2)
        for k in range(1, 4)
    ]
    assert foreground_dice(torch.from_numpy(p), labels).item() == pytest.approx(np.mean(each), rel=1e-5)


def test_dice_costs_nothing_where_an_absent_class_is_not_found() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    assert foreground_dice(_one_hot(labels, 3), labels) == 0


def test_calibration_blames_errors_early_and_doubts_late() -> None:
    evidence = torch.tensor([[9.0, 0.0], [9.0, 0.0]])[..., None]  # two certain pixels for class 0
    right, wrong = uncertainty_calibration(evidence, torch.tensor([[0], [1]]), 0.25)[:, 0].tolist()
    p, u = 10 / 11, 2 / 11
    assert right == pytest.approx(0.25 * -p * np.log(1 - u), rel=1e-5)
    assert wrong == pytest.approx(0.75 * -(1 - p) * np.log(u), rel=1e-5)


def test_calibration_keeps_its_gradient_where_evidence_is_lost_in_one_plus_evidence() -> None:
    logits = torch.full((1, 2, 1), -20.0, requires_grad=True)
    evidence = F.softplus(logits)  # 2e-9 is below the resolution of float32 at 1
    uncertainty_calibration(evidence, torch.zeros(1, 1, dtype=torch.int64), 1.0, eps=1e-30).sum().backward()
    # d/dz of -p ln(1 - u) with 1 - u = sum e / S: -p e'/sum e = -0.5 * 0.5
    torch.testing.assert_close(logits.grad[0, :, 0], torch.full((2,), -0.25), rtol=1e-3, atol=0)


@given(
    st.sampled_from(["softplus", "exp", "relu"]),
    st.lists(st.floats(-60, 60), min_size=4, max_size=4),
    st.integers(0, 3),
    st.floats(0.1, 5),
)
@settings(max_examples=60, deadline=None)
def test_more_evidence_means_less_uncertainty(kind: str, values: list[float], label: int, more: float) -> None:
    logits = torch.tensor(values).view(1, 4, 1)
    raised = logits.clone()
    raised[0, label] += more
    before, after = opinion(logits, kind), opinion(raised, kind)
    assert after.uncertainty <= before.uncertainty * (1 + 1e-6)
    if kind == "softplus" and values[label] > 0:
        assert after.uncertainty < before.uncertainty
    assert (after.belief.sum(1) + after.uncertainty[:, 0]).item() == pytest.approx(1, abs=1e-6)


def _losses(evidence: Tensor, labels: Tensor) -> dict[str, Tensor]:
    alpha = evidence + 1
    return {
        "cross-entropy": evidential_cross_entropy(alpha, labels),
        "divergence": kl_to_uniform(alpha, labels),
        "dice": foreground_dice(alpha / alpha.sum(1, keepdim=True), labels),
        "calibration": uncertainty_calibration(evidence, labels, 0.5),
        "squared error": evidential_squared_error(alpha, labels),
        "tbrats": tbrats_loss(alpha, labels, step=7, kl_steps=50),
        "devis": devis_loss(evidence, labels, step=7, kl_steps=50, steps=100),
        "devis, disentangled": devis_loss(evidence, labels, step=7, kl_steps=50, steps=100, disentangled=True),
        "log dice": log_dice(evidence, labels),
    }


@pytest.mark.parametrize("kind", ["softplus", "exp", "relu"])
@pytest.mark.parametrize("certainty", [60.0, -60.0, 0.0, -17.0])
def test_losses_and_gradients_are_finite_on_masks_that_usually_break(
    edge_mask: NDArray[np.bool_], kind: str, certainty: float
) -> None:
    labels = 2 * torch.from_numpy(edge_mask).long()[None]  # class 1 is absent
    logits = (certainty * (2 * _one_hot(labels, 4) - 1)).requires_grad_()
    for name, loss in _losses(opinion(logits, kind).evidence, labels).items():
        (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
        assert torch.isfinite(loss).all(), name
        assert torch.isfinite(gradient).all(), name
        assert (loss > -1e-4).all() or name in ("log dice", "tbrats"), name  # these two have no lower bound at 0


def test_low_precision_is_raised_before_digamma() -> None:
    alpha, labels = _case()
    low = alpha.bfloat16()
    for loss in (evidential_cross_entropy, kl_to_uniform):
        assert loss(low, labels).dtype == torch.float32
        torch.testing.assert_close(loss(low, labels), loss(low.float(), labels))


# The released forms; their numbers are those of the reference file (tests/verification/test_udeg_net.py)


def test_expected_squared_error_is_that_of_dirichlet_samples() -> None:
    concentrations = np.array([1.5, 4.0, 2.5])
    samples = np.random.default_rng(0).dirichlet(concentrations, size=400_000)
    expected = ((samples - np.array([0, 1, 0])) ** 2).sum(1).mean()
    found = evidential_squared_error(torch.from_numpy(concentrations).view(1, 3, 1), torch.tensor([[1]]))
    assert found.item() == pytest.approx(expected, abs=5e-3)


def test_tbrats_adds_cross_entropy_ramped_divergence_and_concentration_dice() -> None:
    alpha, labels = _case()
    a, y = alpha.double().numpy(), _one_hot(labels, 4).double().numpy()
    cross_entropy = (y * (digamma(a.sum(1, keepdims=True)) - digamma(a))).sum(1).mean()
    dice = sum(1 - 2 * (a[:, k] * y[:, k]).sum() / (a[:, k].sum() + y[:, k].sum() + 1e-5) for k in range(1, 4))
    for step, factor in ((0, 0.0), (25, 0.5), (80, 1.0)):
        expected = cross_entropy + factor * kl_to_uniform(alpha, labels).mean().item() + dice
        assert tbrats_loss(alpha, labels, step=step, kl_steps=50).item() == pytest.approx(expected, rel=1e-5)


def test_concentration_dice_counts_the_three_tumour_classes_only() -> None:
    alpha, labels = _case(classes=6)
    without_the_rest = concentration_dice(alpha[:, :4], labels.where(labels < 4, 0))
    torch.testing.assert_close(concentration_dice(alpha, labels), without_the_rest)


def test_tversky_of_devis_weighs_the_commoner_kind_of_error_more_within_limits() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[0, 0] = 1
    evidence = 2 * _one_hot(labels, 2) + torch.rand(1, 2, 4, 4)
    p = evidence.softmax(1)[0].flatten(1).numpy()
    y = _one_hot(labels, 2)[0].flatten(1).numpy()
    expected = []
    for k in range(2):
        hits, alarms, misses = (p[k] * y[k]).sum(), (p[k] * (1 - y[k])).sum(), ((1 - p[k]) * y[k]).sum()
        share = min(max(alarms / (alarms + misses + 1e-5), 0.2), 0.8)
        expected.append(1 - hits / (hits + share * alarms + (1 - share) * misses + 1e-5))
    assert balanced_tversky(evidence, labels).item() == pytest.approx(np.mean(expected), rel=1e-5)
