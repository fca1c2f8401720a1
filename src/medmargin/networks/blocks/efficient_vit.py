"""Blocks of EfficientViT: fused and inverted residual convolutions, and multi-scale linear attention.

Cai et al. 2023, "EfficientViT: Multi-Scale Linear Attention for High-Resolution Dense Prediction", arXiv:2205.14756.
State-dict names are the official ones. GELU is its tanh approximation and normalisation uses eps 1e-6 throughout, as in
the official model zoo.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-6


class ConvLayer(nn.Module):
    """Convolution, then batch normalisation and GELU where asked.

    Args:
        inside, outside: channels. kernel: odd size; padding keeps the resolution at stride 1.
        normalised: followed by batch normalisation. The convolution has a bias exactly where it is not.
        bias: overrides that rule.
        activated: followed by GELU.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        normalised: bool = True,
        bias: bool | None = None,
        activated: bool = False,
    ) -> None:
        super().__init__()
        bias = not normalised if bias is None else bias
        self.conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(outside, eps=NORM_EPS) if normalised else None
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x if self.norm is None else self.norm(x)
        return F.gelu(x, approximate="tanh") if self.activated else x


class Residual(nn.Module):
    """Add the input to what `main` makes of it; without `shortcut`, return the latter alone."""

    def __init__(self, main: nn.Module, *, shortcut: bool = True) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x) if self.shortcut else self.main(x)


class ResBlock(nn.Module):
    """Two 3x3 convolutions. `few_norms` leaves out the first normalisation."""

    def __init__(self, inside: int, outside: int, *, stride: int = 1, few_norms: bool = False) -> None:
        super().__init__()
        self.conv1 = ConvLayer(inside, inside, 3, stride=stride, normalised=not few_norms, activated=True)
        self.conv2 = ConvLayer(inside, outside, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class FusedMBConv(nn.Module):
    """3x3 convolution that widens by `expand_ratio`, then a point-wise one that narrows."""

    def __init__(
        self, inside: int, outside: int, *, expand_ratio: float, stride: int = 1, few_norms: bool = False
    ) -> None:
        super().__init__()
        hidden = round(inside * expand_ratio)
        self.spatial_conv = ConvLayer(inside, hidden, 3, stride=stride, normalised=not few_norms, activated=True)
        self.point_conv = ConvLayer(hidden, outside)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.spatial_conv(x))


class MBConv(nn.Module):
    """Point-wise convolution that widens, depth-wise 3x3, point-wise that narrows."""

    def __init__(
        self, inside: int, outside: int, *, expand_ratio: float, stride: int = 1, few_norms: bool = False
    ) -> None:
        super().__init__()
        hidden = round(inside * expand_ratio)
        self.inverted_conv = ConvLayer(inside, hidden, normalised=not few_norms, activated=True)
        self.depth_conv = ConvLayer(
            hidden, hidden, 3, stride=stride, groups=hidden, normalised=not few_norms, activated=True
        )
        self.point_conv = ConvLayer(hidden, outside)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.depth_conv(self.inverted_conv(x)))


class LiteMLA(nn.Module):
    """Linear attention with a ReLU kernel over two scales of queries, keys and values.

    out = (sum_n v_n relu(k_n)^T) relu(q) / ((sum_n relu(k_n))^T relu(q) + 1e-15), linear in the number of positions.

    Deviation: the official code multiplies in the other order where there are at most `head_dim` positions; the result
    is the same up to rounding.

    Args:
        dim: channels.
        head_dim: width of a head.
        kernel: of the depth-wise convolution that makes the second scale.
    """

    def __init__(self, dim: int, *, head_dim: int, kernel: int) -> None:
        super().__init__()
        heads = dim // head_dim
        total = 3 * heads * head_dim
        self.head_dim = head_dim
        self.qkv = ConvLayer(dim, total, normalised=False, bias=False)
        depthwise = nn.Conv2d(total, total, kernel, padding=kernel // 2, groups=total, bias=False)
        self.aggreg = nn.ModuleList([
            nn.Sequential(depthwise, nn.Conv2d(total, total, 1, groups=3 * heads, bias=False))
        ])
        self.proj = ConvLayer(2 * heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, dim, H, W] to the same shape."""
        qkv = self.qkv(x)
        groups = torch.cat([qkv, self.aggreg[0](qkv)], dim=1).flatten(2).unflatten(1, (-1, 3 * self.head_dim))
        return self.proj(self._attend(groups).flatten(1, 2).unflatten(2, x.shape[-2:]))

    def _attend(self, groups: Tensor) -> Tensor:
        """Attend inside every group of [B, 2 * heads, 3 * head_dim, N]; returns [B, 2 * heads, head_dim, N]."""
        with torch.autocast(groups.device.type, enabled=False):  # the quotient of two sums needs all digits
            q, k, v = groups.float().split(self.head_dim, dim=2)
            v = F.pad(v, (0, 0, 0, 1), value=1.0)  # a row of ones, whose result is the denominator
            out = (v @ F.relu(k).transpose(2, 3)) @ F.relu(q)
            out = out[:, :, :-1] / (out[:, :, -1:] + 1e-15)
        return out.to(groups.dtype)


class EfficientViTBlock(nn.Module):
    """Linear attention, then an inverted residual block; both with a shortcut."""

    def __init__(self, dim: int, *, head_dim: int, expand_ratio: float, kernel: int) -> None:
        super().__init__()
        self.context_module = Residual(LiteMLA(dim, head_dim=head_dim, kernel=kernel))
        self.local_module = Residual(MBConv(dim, dim, expand_ratio=expand_ratio, few_norms=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.local_module(self.context_module(x))
