"""A small network with batch normalisation, and a batch for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def make_network() -> Callable[[], nn.Module]:
    """Build the same network each time (no bias before batch norm: its gradient would be rounding noise)."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 1, 1)
        ).train()

    return make


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    """Five batches: x [4, 1, 8, 8] and y of the same shape."""
    generator = torch.Generator().manual_seed(1)
    shape = (4, 1, 8, 8)
    return [
        (torch.randn(shape, generator=generator), (torch.rand(shape, generator=generator) > 0.5).float())
        for _ in range(5)
    ]
