"""The dense loss against MONAI, PyTorch and formulas written out, and where voxels, samples or batches do not count."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss
from scipy import special
from torch import Tensor
from torch.nn import functional as F

from medmargin.errors import ConfigError
from medmargin.losses.deep_supervision import at_resolution, deep_weights
from medmargin.losses.dense import DenseLoss
from medmargin.losses.evidential import evidential_cross_entropy, foreground_dice, kl_to_uniform
from medmargin.losses.evidential_labels import digamma, evidential_terms
from medmargin.networks.evidence import opinion

REGIONS = ((1, 2, 3), (1, 3), (3,))
KINDS: dict[str, dict[str, Any]] = {"softmax": {}, "evidential": {}, "regions": {"regions": REGIONS}}
SHAPE = (4, 6, 5)


class Answer(NamedTuple):
    logits: Tensor
    deep: tuple[Tensor, ...] = ()


def _loss(kind: str, **others: Any) -> DenseLoss:
    return DenseLoss(kind, **(KINDS[kind] | others))  # type: ignore[arg-type]


def _case(
    outputs: int = 3, shape: tuple[int, ...] = SHAPE, batch: int = 2, seed: int = 0, scale: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Return logits [B, outputs, *shape] with a gradient and labels [B, *shape] of all classes."""
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(batch, outputs, *shape, generator=random)
    return logits.requires_grad_(), torch.randint(0, outputs, (batch, *shape), generator=random)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("shape", [(6, 5), SHAPE])
def test_softmax_is_cross_entropy_and_the_dice_of_monai(shape: tuple[int, ...], batch_dice: bool) -> None:
    logits, labels = _case(4, shape)
    found = _loss("softmax", batch_dice=batch_dice, ce_weight=0.5, dice_weight=2.0)(Answer(logits), labels, progress=0)
    dice = DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1e-5, smooth_dr=1e-5, batch=batch_dice
    )
    assert found.terms["ce"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert found.terms["dice"] == pytest.approx(dice(logits, labels[:, None]).item(), rel=1e-5)
    assert found.total.item() == pytest.approx((0.5 * found.terms["ce"] + 2 * found.terms["dice"]).item(), rel=1e-6)


def test_regions_are_sigmoids_that_overlap() -> None:
    logits, _ = _case()
    labels = torch.randint(0, 4, (2, *SHAPE), generator=torch.Generator().manual_seed(1))
    truth = torch.stack([labels > 0, (labels == 1) | (labels == 3), labels == 3], 1).float()
    found = _loss("regions")(Answer(logits), labels, progress=0)
    assert found.terms["ce"] == pytest.approx(F.binary_cross_entropy_with_logits(logits, truth).item(), rel=1e-5)
    dice = DiceLoss(sigmoid=True, smooth_nr=1e-5, smooth_dr=1e-5)
    assert found.terms["dice"] == pytest.approx(dice(logits, truth).item(), rel=1e-5)


@pytest.mark.parametrize("evidence", ["softplus", "exp"])
def test_evidence_is_scored_by_the_evidential_terms(evidence: str) -> None:
    logits, labels = _case()
    found = _loss("evidential", evidence=evidence, kl_weight=0.4, kl_ramp=0.5)(Answer(logits), labels, progress=0.2)
    belief = opinion(logits, evidence)
    assert found.terms["ce"] == pytest.approx(evidential_cross_entropy(belief.alpha, labels).mean().item(), rel=1e-5)
    assert found.terms["kl"] == pytest.approx(kl_to_uniform(belief.alpha, labels).mean().item(), rel=1e-5)
    assert found.terms["dice"] == pytest.approx(foreground_dice(belief.probability, labels).item(), rel=1e-5)
    assert found.weights["kl"].item() == pytest.approx(0.4 * 0.4)
    assert _loss("evidential")(Answer(logits), labels, progress=1.0).weights["kl"].item() == 1
    without = _loss("evidential", evidence=evidence, kl_weight=0)(Answer(logits), labels, progress=0.2)
    assert without.terms.keys() == {"ce", "dice"}
    assert without.total.item() == pytest.approx((found.terms["ce"] + found.terms["dice"]).item(), rel=1e-5)


def test_smoothing_and_ignoring_are_those_of_torch() -> None:
    logits, labels = _case()
    labels[:, 1] = -1
    found = _loss("softmax", label_smoothing=0.2)(Answer(logits), labels, progress=0).terms["ce"]
    expected = F.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=0.2)
    assert found == pytest.approx(expected.item(), rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 3), st.integers(0, 50), st.booleans())
def test_a_voxel_without_label_is_as_good_as_not_there(kind: str, kept: int, seed: int, batch_dice: bool) -> None:
    logits, labels = _case(seed=seed)
    cut = labels.clone()
    cut[:, kept + 1 :] = -1
    loss = _loss(kind, batch_dice=batch_dice)
    found = loss(Answer(logits), cut, progress=0.5)
    smaller = loss(Answer(logits[:, :, : kept + 1]), labels[:, : kept + 1], progress=0.5)
    torch.testing.assert_close(found.total, smaller.total)
    found.total.backward()
    assert not logits.grad[:, :, kept + 1 :].any()
    assert logits.grad[:, :, : kept + 1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_any_label_costs_nothing_and_moves_nothing(kind: str) -> None:
    logits, labels = _case()
    deep = torch.randn(2, 3, 2, 3, 5, requires_grad=True)
    found = _loss(kind)(Answer(logits, (deep,)), torch.full_like(labels, -1), progress=0.5)
    found.total.backward()
    assert found.total.item() == 0
    for gradient in (logits.grad, deep.grad):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("kind", KINDS)
def test_one_sample_without_labels_leaves_the_other_finite(kind: str) -> None:
    logits, labels = _case()
    labels[0] = -1
    found = _loss(kind)(Answer(logits), labels, progress=0.5)
    found.total.backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[0].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_dice", [False, True])
def test_the_gradient_is_the_slope(kind: str, batch_dice: bool) -> None:
    logits, labels = _case(shape=(3, 2), scale=1.0)
    labels[0, 0] = -1
    loss = _loss(kind, batch_dice=batch_dice)
    fine, coarse = logits.detach().double().requires_grad_(), torch.randn(2, 3, 2, 1).double().requires_grad_()
    coarsest = torch.zeros(2, 3, 1, 1).double().requires_grad_()

    def total(*outputs: Tensor) -> Tensor:
        return loss(Answer(outputs[0], (outputs[2], outputs[1])), labels, progress=0.5).total

    assert torch.autograd.gradcheck(total, (fine, coarse, coarsest))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sure_and_right_answer_costs_about_nothing(kind: str) -> None:
    _, labels = _case()
    members = [[0], [1], [2]] if kind != "regions" else REGIONS
    sure = torch.stack([torch.isin(labels, torch.tensor(values)) for values in members], 1)
    logits = torch.where(sure, 1e4, -1e4)
    found = _loss(kind)(Answer(logits), labels, progress=1.0)
    assert 0 <= found.total.item() < 1e-3
    assert _loss(kind)(Answer(-logits), labels, progress=1.0).total.item() > 1


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["softmax", "evidential"]), st.permutations(range(1, 4)), st.integers(0, 20))
def test_names_of_structures_and_places_of_voxels_do_not_matter(kind: str, order: list[int], seed: int) -> None:
    logits, labels = _case(4, seed=seed)
    loss = _loss(kind)
    expected = loss(Answer(logits), labels, progress=0.5).total
    places = torch.tensor([0, *order])
    renamed = loss(Answer(logits[:, places]), places.argsort()[labels], progress=0.5).total
    torch.testing.assert_close(renamed, expected)
    turned = loss(Answer(logits.transpose(2, 4).flip(3)), labels.transpose(1, 3).flip(2), progress=0.5).total
    torch.testing.assert_close(turned, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_resolution_but_the_coarsest_counts_half_of_the_finer_one(kind: str) -> None:
    logits, labels = _case(shape=(4, 8, 8))
    middle, coarsest = torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 2, 2, 2, requires_grad=True)
    loss = _loss(kind)
    found = loss(Answer(logits, (coarsest, middle)), labels, progress=0.5)
    found.total.backward()
    fine = loss(Answer(logits), labels, progress=0.5).total
    halved = loss(Answer(middle), labels[:, :, 1::2, 1::2], progress=0.5).total
    torch.testing.assert_close(found.total, 2 / 3 * fine + 1 / 3 * halved)
    assert torch.equal(coarsest.grad, torch.zeros_like(coarsest))


def test_weights_of_resolutions_are_the_published_ones() -> None:
    assert deep_weights(1) == [1.0]
    assert deep_weights(2) == [1.0, 0.0]
    assert deep_weights(4) == pytest.approx([4 / 7, 2 / 7, 1 / 7, 0])
    assert sum(deep_weights(6)) == pytest.approx(1)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 13), min_size=2, max_size=3), st.data())
def test_labels_are_made_smaller_as_torch_does(spatial: list[int], data: st.DataObject) -> None:
    size = [data.draw(st.integers(1, side)) for side in spatial]
    labels = torch.arange(torch.tensor(spatial).prod()).view(1, *spatial)
    expected = F.interpolate(labels[:, None].double(), size, mode="nearest-exact")[:, 0].long()
    assert torch.equal(at_resolution(labels, size), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_computed_in_float32_under_autocast_and_in_any_layout(kind: str) -> None:
    logits, labels = _case()
    rounded = logits.detach().bfloat16()
    expected = _loss(kind)(Answer(rounded.float()), labels, progress=0.5).total
    rounded = rounded.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = _loss(kind)(Answer(rounded), labels, progress=0.5).total
    found.backward()
    assert (found.dtype, rounded.grad.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(found, expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 6), st.integers(0, 100), st.sampled_from([0.1, 5.0, 1000.0]))
def test_both_evidential_terms_are_those_computed_one_by_one(classes: int, seed: int, scale: float) -> None:
    random = torch.Generator().manual_seed(seed)
    alpha = (1 + scale * torch.rand(2, classes, 3, 4, generator=random)).requires_grad_()
    labels = torch.randint(0, classes, (2, 3, 4), generator=random)
    exact = alpha.detach().double().requires_grad_()
    expected = evidential_cross_entropy(exact, labels), kl_to_uniform(exact, labels)
    for found, wanted in zip(evidential_terms(alpha, labels), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=2e-5 * scale + 1e-5)  # lgamma cancels
    weights = torch.randn(2, 2, 3, 4, generator=random)
    sum((term * weight).sum() for term, weight in zip(evidential_terms(alpha, labels), weights, strict=True)).backward()
    sum((term * weight).sum() for term, weight in zip(expected, weights.double(), strict=True)).backward()
    torch.testing.assert_close(alpha.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_the_evidential_terms_is_their_slope() -> None:
    alpha = (1 + 4 * torch.rand(2, 3, 5, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, 3, (2, 5))
    assert torch.autograd.gradcheck(lambda alpha: evidential_terms(alpha, labels), alpha)


@settings(deadline=None)
@given(st.floats(1, 2.0**40, width=32))
def test_digamma_is_that_of_scipy(x: float) -> None:
    assert digamma(torch.tensor([x])).item() == pytest.approx(special.digamma(x), rel=3e-7, abs=5e-7)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"kind": "sigmoid"}, "kind is 'sigmoid'"),
        ({"kind": "evidential", "evidence": "belief"}, "evidence is 'belief'"),
        ({"kind": "regions"}, "give label values"),
        ({"kind": "regions", "regions": ((1,), ())}, "give label values"),
        ({"kind": "softmax", "regions": ((1,),)}, "give label values"),
        ({"kind": "evidential", "label_smoothing": 0.1}, "softmax"),
        ({"smooth": -1.0}, "smooth is -1.0"),
        ({"ce_weight": float("inf")}, "ce_weight is inf"),
        ({"kl_ramp": 2.0}, "kl_ramp is 2.0"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        DenseLoss(**arguments)


def test_labels_that_do_not_fit_are_refused() -> None:
    logits, labels = _case()
    with pytest.raises(ValueError, match="do not fit logits"):
        _loss("softmax")(Answer(logits), labels[:, 1:], progress=0)
    for wrong in (3, -2):
        with pytest.raises(ValueError, match=f"labels hold.*{wrong}"):
            _loss("softmax")(Answer(logits), labels.index_fill(1, torch.tensor([0]), wrong), progress=0)
    with pytest.raises(ValueError, match="2 outputs, the loss 3 regions"):
        _loss("regions")(Answer(logits[:, :2]), labels, progress=0)
