"""The parts of nnU-Net 2's U-Nets, two- and three-dimensional, in the state-dict names of its releases.

Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; residual blocks of ResNet-D: He et al. 2019, arXiv:1812.01187.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.networks.blocks.instance_norm import InstanceNorm

SLOPE = 0.01
"""Of the leaky ReLU."""
Shape = tuple[int, ...]


def convolution(dims: int, inside: int, outside: int, kernel: Shape, stride: Shape, *, bias: bool = True) -> nn.Module:
    """Make a convolution that keeps the size where the stride is 1; kernels are odd."""
    make = nn.Conv2d if dims == 2 else nn.Conv3d
    return make(inside, outside, kernel, stride, tuple(side // 2 for side in kernel), bias=bias)  # type: ignore[arg-type]


class ConvBlock(nn.Module):
    """Convolution, instance normalisation, leaky ReLU.

    Args:
        dims: 2 or 3. inside, outside: channels. kernel, stride: per axis.
        slope: of the leaky ReLU; 1 leaves it out. bias: of the convolution.
    """

    def __init__(
        self, dims: int, inside: int, outside: int, kernel: Shape, stride: Shape | None = None, *,
        slope: float = SLOPE, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = convolution(dims, inside, outside, kernel, stride or (1,) * dims, bias=bias)
        self.norm = InstanceNorm(outside)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inside, *spatial] to [B, outside, *spatial / stride]."""
        normed: Tensor = self.norm(self.conv(x), slope=self.slope)
        return normed


class ConvStage(nn.Module):
    """Convolution blocks one after the other, the first one strided; dropout at the end where it is more than 0."""

    def __init__(
        self, dims: int, inside: int, outside: int, kernel: Shape, stride: Shape | None = None, *,
        blocks: int = 2, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        first = ConvBlock(dims, inside, outside, kernel, stride)
        rest = [ConvBlock(dims, outside, outside, kernel) for _ in range(blocks - 1)]
        self.convs = nn.Sequential(first, *rest, *_dropout(dims, dropout))

    def forward(self, x: Tensor) -> Tensor:
        convolved: Tensor = self.convs(x)
        return convolved


class ResidualBlock(nn.Module):
    """Two convolution blocks beside a skip, which is averaged where strided and projected where the width changes."""

    def __init__(self, dims: int, inside: int, outside: int, kernel: Shape, stride: Shape | None = None) -> None:
        super().__init__()
        self.conv1 = ConvBlock(dims, inside, outside, kernel, stride)
        self.conv2 = ConvBlock(dims, outside, outside, kernel, slope=1.0)
        skip: list[nn.Module] = []
        if stride is not None and prod(stride) > 1:
            pool: type[nn.Module] = nn.AvgPool2d if dims == 2 else nn.AvgPool3d
            skip.append(pool(stride, stride))
        if inside != outside:
            skip.append(ConvBlock(dims, inside, outside, (1,) * dims, slope=1.0, bias=False))
        self.skip = nn.Sequential(*skip)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inside, *spatial] to [B, outside, *spatial / stride]."""
        return F.leaky_relu(self.conv2(self.conv1(x)) + self.skip(x), SLOPE, inplace=True)


class ResidualStage(nn.Module):
    """Residual blocks one after the other, the first one strided; dropout at the end where it is more than 0."""

    def __init__(
        self, dims: int, inside: int, outside: int, kernel: Shape, stride: Shape, *, blocks: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        first = ResidualBlock(dims, inside, outside, kernel, stride)
        rest = [ResidualBlock(dims, outside, outside, kernel) for _ in range(blocks - 1)]
        self.blocks = nn.Sequential(first, *rest, *_dropout(dims, dropout))

    def forward(self, x: Tensor) -> Tensor:
        refined: Tensor = self.blocks(x)
        return refined


def upsampling(dims: int, inside: int, outside: int, stride: Shape) -> nn.Module:
    """Make a transposed convolution whose kernel is its stride: every finer pixel is written once."""
    return (_Upsampling2d if dims == 2 else _Upsampling3d)(inside, outside, stride, stride)  # type: ignore[arg-type]


class _Upsampling2d(nn.ConvTranspose2d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _upsampled(x, self.weight, self.bias) if _is_quicker(x) else super().forward(x, output_size)


class _Upsampling3d(nn.ConvTranspose3d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _upsampled(x, self.weight, self.bias) if _is_quicker(x) else super().forward(x, output_size)


def _is_quicker(x: Tensor) -> bool:
    """Tell whether a matrix product beats the transposed convolution: in half precision, by about three times."""
    return x.device.type == "cpu" and x.dtype == torch.bfloat16 and x.stride(1) == 1


def _upsampled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Transposed convolution with kernel = stride, as a product per coarse pixel whose results are laid side by side.

    Equation: y[o, s i + r] = sum_c x[c, i] w[c, o, r] + b[o], for every offset r below the stride s.

    Args:
        x: [B, C, *spatial], channels last. weight: [C, O, *stride]. bias: [O].
    """
    inside, outside, *stride = weight.shape
    dims = len(stride)
    taps = weight.movedim((0, 1), (-1, -2)).reshape(-1, inside)  # [prod(stride) * O, C]
    shift = None if bias is None else bias.repeat(prod(stride))
    product = F.linear(x.movedim(1, -1), taps, shift).unflatten(-1, (*stride, outside))  # [B, *spatial, *stride, O]
    beside = [axis for pair in ((1 + axis, 1 + dims + axis) for axis in range(dims)) for axis in pair]
    fine = (side * step for side, step in zip(x.shape[2:], stride, strict=True))
    return product.permute(0, *beside, 2 * dims + 1).reshape(len(x), *fine, outside).movedim(-1, 1)


def _dropout(dims: int, probability: float) -> list[nn.Module]:
    """Leave whole channels out: neighbouring values of a map are too alike to be dropped one by one."""
    return [(nn.Dropout2d if dims == 2 else nn.Dropout3d)(probability)] if probability else []
