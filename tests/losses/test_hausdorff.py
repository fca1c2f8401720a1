"""The erosion loss against a direct implementation with scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve, generate_binary_structure
from torch import Tensor

from medmargin.losses.hausdorff import hausdorff_erosion


def _by_scipy(probabilities: Tensor, target: Tensor, *, erosions: int, alpha: float) -> float:
    error = ((probabilities - target) ** 2).numpy().astype(np.float64)
    star = generate_binary_structure(error.ndim - 2, 1)
    total = np.zeros_like(error)
    for sample in range(len(error)):
        current = error[sample, 0]
        for k in range(1, erosions + 1):
            current = np.clip(convolve(current, star / star.sum(), mode="constant") - 0.5, 0, None)
            if np.ptp(current) > 0:
                current = (current - current.min()) / np.ptp(current)
            total[sample, 0] += current * k**alpha
    return float(total.mean())


def _batch(shape: tuple[int, ...], sharpness: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    smooth = torch.nn.AvgPool2d(5, 1, 2) if len(shape) == 4 else torch.nn.AvgPool3d(5, 1, 2)
    logits = sharpness * smooth(torch.randn(shape, generator=generator))
    return logits, (smooth(torch.randn(shape, generator=generator)) > 0).float()


@pytest.mark.parametrize("shape", [(2, 1, 20, 23), (2, 1, 9, 10, 11)])
@pytest.mark.parametrize(("erosions", "alpha"), [(1, 2.0), (4, 1.0), (10, 2.0)])
def test_soft_erosion_equals_scipy(shape: tuple[int, ...], erosions: int, alpha: float) -> None:
    logits, target = _batch(shape, sharpness=60)
    expected = _by_scipy(logits.sigmoid(), target, erosions=erosions, alpha=alpha)
    assert expected > 0
    assert hausdorff_erosion(logits, target, erosions=erosions, alpha=alpha).item() == pytest.approx(expected, rel=1e-4)


def test_a_thick_error_counts_more_than_the_same_number_of_scattered_pixels() -> None:
    target = torch.zeros(1, 1, 24, 24)
    thick, scattered = target - 40, target - 40
    thick[..., 8:14, 8:14] = 40
    scattered[..., ::4, ::4] = 40  # 36 lonely pixels
    assert hausdorff_erosion(scattered, target) == 0
    assert hausdorff_erosion(thick, target) > 1


def test_the_gradient_pulls_a_wrong_region_back() -> None:
    target = torch.zeros(1, 1, 24, 24)
    logits = torch.full_like(target, -4)
    logits[..., 8:14, 8:14] = 2
    logits.requires_grad_()
    hausdorff_erosion(logits, target, erosions=2).backward()
    assert (logits.grad[..., 8:14, 8:14] >= 0).all()
    assert logits.grad.sum() > 0


def test_it_stays_in_float32_under_autocast() -> None:
    logits, target = _batch((2, 1, 20, 23), sharpness=60)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = hausdorff_erosion(logits, target)
    assert mixed.dtype == torch.float32
    assert mixed.item() == hausdorff_erosion(logits, target).item()
