"""Normalisation over channels, against torch's own over the last axis."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from medmargin.networks.blocks.layer_norm_2d import LayerNorm2d


def test_equals_layer_norm_over_the_channel_axis() -> None:
    norm = LayerNorm2d(6)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(6))
        norm.bias.copy_(torch.randn(6))
    x = torch.randn(2, 6, 4, 5)
    expected = F.layer_norm(x.permute(0, 2, 3, 1), (6,), norm.weight, norm.bias, 1e-6).permute(0, 3, 1, 2)
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_normalised_in_single_precision(dtype: torch.dtype) -> None:
    x = (1000 + torch.randn(1, 8, 3, 3)).to(dtype)  # squares of such values overflow or vanish in half precision
    found = LayerNorm2d(8)(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, LayerNorm2d(8)(x.float()))


def test_a_network_cast_to_half_precision_stays_there() -> None:
    assert LayerNorm2d(4).to(torch.bfloat16)(torch.randn(1, 4, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16
