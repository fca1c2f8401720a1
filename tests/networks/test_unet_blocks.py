"""Blocks of U-Nets: the quick ways to compute them against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.networks.blocks.instance_norm import InstanceNorm
from medmargin.networks.blocks.unet_blocks import ResidualBlock, upsampling

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def _channels_last(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=LAYOUTS[x.ndim]).copy_(x)


def _norm(channels: int, generator: torch.Generator) -> InstanceNorm:
    norm = InstanceNorm(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels, generator=generator))
        norm.bias.copy_(torch.randn(channels, generator=generator))
    return norm


def _of_torch(x: Tensor, norm: InstanceNorm, slope: float) -> Tensor:
    return F.leaky_relu(F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=norm.eps), slope)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3), st.integers(1, 5), st.lists(st.integers(2, 7), min_size=2, max_size=3), st.integers(0, 99),
    st.sampled_from([1.0, 0.01]), st.sampled_from([0.0, 5.0]),
)  # fmt: skip
def test_the_norm_is_that_of_torch_in_either_layout(
    batch: int, channels: int, spatial: list[int], seed: int, slope: float, offset: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    norm = _norm(channels, generator)
    x = torch.randn(batch, channels, *spatial, generator=generator) + offset
    expected = _of_torch(x.double(), norm.double(), slope)
    norm.float()
    for given_ in (x, _channels_last(x)):
        found = norm(given_, slope=slope)
        assert found.stride() == given_.stride()
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spatial", [(3, 4), (3, 2, 4)])
@pytest.mark.parametrize("slope", [1.0, 0.3])
def test_the_gradient_of_the_norm_is_its_slope(spatial: tuple[int, ...], slope: float) -> None:
    generator = torch.Generator().manual_seed(0)
    norm = _norm(2, generator).double()
    x = _channels_last(torch.randn(2, 2, *spatial, generator=generator).double()).requires_grad_()

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,), {"slope": slope})

    assert torch.autograd.gradcheck(call, (x, norm.weight, norm.bias))


def test_the_norm_keeps_its_precision_far_from_zero() -> None:
    x = _channels_last(torch.randn(2, 16, 24, 24, 24, generator=torch.Generator().manual_seed(0)) + 100)
    norm = InstanceNorm(16)
    error = norm(x).double() - _of_torch(x.double(), norm.double(), 1.0)
    assert error.abs().max() < 2e-4  # half a unit in the last place of 100, over a deviation of 1


def test_half_precision_maps_stay_half_and_have_float_gradients_of_weights() -> None:
    x = _channels_last(torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))).bfloat16().requires_grad_()
    norm = InstanceNorm(4)
    found = norm(x, slope=0.01)
    found.float().square().sum().backward()
    assert (found.dtype, x.grad.dtype, norm.weight.grad.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    torch.testing.assert_close(found.float(), _of_torch(x.detach().float(), norm, 0.01), atol=0.02, rtol=0.01)


@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (1, 2, 2), (2, 2, 2), (3, 1, 2)])
def test_upsampling_in_one_product_is_the_transposed_convolution(stride: tuple[int, ...]) -> None:
    dims = len(stride)
    generator = torch.Generator().manual_seed(0)
    up = upsampling(dims, 5, 3, stride)
    x = _channels_last(torch.randn(2, 5, *(3, 4, 2)[:dims], generator=generator)).bfloat16().requires_grad_()
    own, apart = up.bfloat16(), (F.conv_transpose2d, F.conv_transpose3d)[dims - 2]
    found = own(x)
    assert found.is_contiguous(memory_format=LAYOUTS[x.ndim])
    wide = x.detach().float().requires_grad_()
    expected = apart(wide, own.weight.float(), own.bias.float(), stride)
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.01)
    weights = torch.randn(found.shape, generator=generator)
    (found.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad.float(), wide.grad, atol=0.05, rtol=0.02)


def test_the_skip_of_a_residual_block_is_empty_where_nothing_changes() -> None:
    assert len(ResidualBlock(3, 4, 4, (3, 3, 3)).skip) == 0
    assert [type(part) for part in ResidualBlock(3, 4, 4, (3, 3, 3), (1, 2, 2)).skip] == [nn.AvgPool3d]
    assert len(ResidualBlock(3, 4, 6, (3, 3, 3), (1, 1, 1)).skip) == 1
