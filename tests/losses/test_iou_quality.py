"""The quality term: what overlap is, and who learns from it."""

from __future__ import annotations

import pytest
import torch

from medmargin.losses.iou_quality import mask_iou, quality_mse


def _row(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("logits", "target", "expected"),
    [
        ((5, 5, -5, -5), (1, 0, 1, 0), 1 / 3),
        ((5, 5, -5, -5), (1, 1, 0, 0), 1.0),
        ((5, 5, -5, -5), (0, 0, 1, 1), 0.0),
        ((-5, -5, -5, -5), (0, 0, 0, 0), 1.0),
        ((-5, -5, -5, -5), (1, 0, 0, 0), 0.0),
        ((0, 0, 0, 5), (0, 0, 0, 1), 1.0),  # a probability of exactly one half is outside
    ],
)
def test_overlap_by_hand(logits: tuple[float, ...], target: tuple[float, ...], expected: float) -> None:
    assert mask_iou(_row(*logits), _row(*target)).item() == pytest.approx(expected)


def test_each_mask_has_its_own_overlap() -> None:
    logits, target = torch.ones(3, 2, 4, 4), torch.ones(3, 2, 4, 4)
    target[1, 0, :2] = 0
    expected = torch.tensor([[1, 1], [0.5, 1], [1, 1]])
    torch.testing.assert_close(mask_iou(logits, target), expected)


def test_only_the_estimate_learns() -> None:
    logits = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    quality = torch.tensor([[0.2], [0.9]], requires_grad=True)
    target = torch.ones(2, 1, 4, 4)
    loss = quality_mse(quality, logits, target)
    loss.backward()
    overlap = mask_iou(logits, target)
    assert loss.item() == pytest.approx(((quality - overlap) ** 2).mean().item())
    torch.testing.assert_close(quality.grad, (quality - overlap).detach())
    assert logits.grad is None


def test_half_precision_estimates_are_scored_in_float32() -> None:
    loss = quality_mse(torch.tensor([[0.5]]).bfloat16(), _row(5, 5), _row(1, 1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.25)
