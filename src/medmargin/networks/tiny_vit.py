"""TinyViT image encoder of LiteMedSAM: convolutions at full resolution, then window attention.

TinyViT: Wu et al. 2022, arXiv:2207.10666. The form used here is that of "Segment Anything in Medical Images on Laptop"
(Ma et al. 2024, arXiv:2412.16085): a stem without stride, and a last stage that keeps the grid. State-dict names are
the official ones.

Deviations: the bias of an attention is gathered from its table at every call (the official code caches it in `eval()`
and goes stale when weights are loaded afterwards); the grid follows from the image size instead of being the number 64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.networks.blocks.checkpointing import recomputed
from medmargin.networks.blocks.layer_norm_2d import LayerNorm2d
from medmargin.networks.blocks.windows import from_windows, to_windows


class TinyViT(nn.Module):
    """Encode [B, 3, S, S] in [0, 1] to [B, neck_width, G, G]; the defaults give G = S / 4 and 5,726,740 weights.

    Args:
        embed_dims: width of each stage.
        depths: blocks of each stage. The first stage is convolutional.
        num_heads: attention heads of each stage; the first is not used.
        window_sizes: side of the attention windows of each stage in cells; the first is not used.
        mbconv_expand_ratio: inner widening of the convolutional blocks.
        mlp_ratio: inner widening of the feed-forward parts.
        local_conv_size: kernel of the depth-wise convolution of an attention block.
        stride1_dims: a stage keeps the grid on entering one of these widths; on entering another, the grid halves.
        neck_width: width of the embedding.
        gradient_checkpointing: recompute each block and downsampling in the backward pass (batch-norm at full
            resolution is what fills the memory: 10 GB at 256 px and batch 4).
    """

    def __init__(
        self,
        *,
        embed_dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (2, 4, 5, 10),
        window_sizes: Sequence[int] = (7, 7, 14, 7),
        mbconv_expand_ratio: float = 4.0,
        mlp_ratio: float = 4.0,
        local_conv_size: int = 3,
        stride1_dims: Sequence[int] = (320, 448, 576),
        neck_width: int = 256,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        strides = [1 if dim in stride1_dims else 2 for dim in embed_dims[1:]]
        self.stride = 2 ** strides.count(2)
        self.widths = tuple(embed_dims)
        self.strides = tuple(math.prod(strides[:stage]) for stage in range(len(embed_dims)))  # inside each stage
        self.patch_embed = _Stem(embed_dims[0])
        self.layers = nn.ModuleList()
        for index, (dim, depth) in enumerate(zip(embed_dims, depths, strict=True)):
            blocks: list[nn.Module] = [
                _MBConv(dim, mbconv_expand_ratio)
                if index == 0
                else _AttentionBlock(dim, num_heads[index], window_sizes[index], mlp_ratio, local_conv_size)
                for _ in range(depth)
            ]
            downsample = (
                _PatchMerging(dim, embed_dims[index + 1], strides[index]) if index + 1 < len(embed_dims) else None
            )
            self.layers.append(_Stage(blocks, downsample, gradient_checkpointing=gradient_checkpointing))
        self.neck = nn.Sequential(
            nn.Conv2d(embed_dims[-1], neck_width, 1, bias=False),
            LayerNorm2d(neck_width),
            nn.Conv2d(neck_width, neck_width, 3, padding=1, bias=False),
            LayerNorm2d(neck_width),
        )

    def stages(self, image: Tensor) -> list[Tensor]:
        """Return the map [B, C, H, W] that leaves each stage, after its downsampling."""
        maps = [self.patch_embed(image)]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        return maps[1:]

    def tapped(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encode images; also return the map [B, widths[i], S / strides[i], ...] of each stage before downsampling."""
        x, maps = self.patch_embed(image), []
        for layer in cast("Iterable[_Stage]", self.layers):
            maps.append(layer.refined(x))
            x = layer.downsampled(maps[-1])
        return self.neck(x), tuple(maps)

    def forward(self, image: Tensor) -> Tensor:
        return self.neck(self.stages(image)[-1])


class _Stage(nn.Module):
    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None, *, gradient_checkpointing: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, x: Tensor) -> Tensor:
        return self.downsampled(self.refined(x))

    def refined(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self._apply_part(block, x)
        return x

    def downsampled(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self._apply_part(self.downsample, x)

    def _apply_part(self, part: nn.Module, x: Tensor) -> Tensor:
        return recomputed(part, x) if self.gradient_checkpointing else part(x)


class _ConvNorm(nn.Module):
    """Convolution without bias, then batch normalisation; padding keeps the size at stride 1."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.c(x))


class _Stem(nn.Module):
    """Two point-wise convolutions at full resolution (MobileSAM's stride 4 was removed)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(_ConvNorm(3, dim // 2), nn.GELU(), _ConvNorm(dim // 2, dim))

    def forward(self, image: Tensor) -> Tensor:
        return self.seq(image)


class _MBConv(nn.Module):
    """Inverted residual block: widen, depth-wise 3x3, narrow (starts as the identity)."""

    def __init__(self, dim: int, expand_ratio: float) -> None:
        super().__init__()
        hidden = int(dim * expand_ratio)
        self.conv1 = _ConvNorm(dim, hidden)
        self.conv2 = _ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = _ConvNorm(hidden, dim)
        nn.init.zeros_(self.conv3.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class _PatchMerging(nn.Module):
    """Change the width and, at stride 2, halve the grid."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(inside, outside)
        self.conv2 = _ConvNorm(outside, outside, 3, stride=stride, groups=outside)
        self.conv3 = _ConvNorm(outside, outside)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class _AttentionBlock(nn.Module):
    """Window attention, a depth-wise convolution across windows, and a feed-forward part."""

    def __init__(self, dim: int, heads: int, window: int, mlp_ratio: float, local_conv_size: int) -> None:
        super().__init__()
        self.window = window
        self.attn = _WindowAttention(dim, heads, window)
        self.local_conv = _ConvNorm(dim, dim, local_conv_size, groups=dim)
        self.mlp = _FeedForward(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C, H, W]."""
        grid = x.permute(0, 2, 3, 1)
        # padded before the attention's own normalisation, so padding takes part as the normalisation's bias
        attended = self.attn(to_windows(grid, self.window).flatten(1, 2)).unflatten(1, (self.window, self.window))
        x = self.local_conv((grid + from_windows(attended, *grid.shape[1:3])).permute(0, 3, 1, 2))
        grid = x.permute(0, 2, 3, 1)
        return (grid + self.mlp(grid)).permute(0, 3, 1, 2)


class _WindowAttention(nn.Module):
    """Self-attention inside a window, with a learned bias per head and distance (|dy|, |dx|).

    The bias of the two positions is `attention_biases[head, |dy| * window + |dx|]`; q, k and v of one head lie next to
    each other in the fused projection.
    """

    attention_bias_idxs: Tensor
    qkv_layout = "per-head"  # order of the rows of `qkv`, for adapters

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.register_buffer("attention_bias_idxs", _distance_index(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, window * window, C] to the same shape."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (self.heads, 3, -1))
        q, k, v = qkv.permute(3, 0, 2, 1, 4)  # [B, heads, N, C / heads]
        # written out in the published order, so that the authors' numbers come back to the last digit
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 + self.attention_biases[:, self.attention_bias_idxs]
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def _distance_index(window: int) -> Tensor:
    """Index |dy| * window + |dx| of every pair of cells: [window * window, window * window] int64."""
    rows, columns = (axis.flatten() for axis in torch.meshgrid(*[torch.arange(window)] * 2, indexing="ij"))
    return (rows[:, None] - rows).abs() * window + (columns[:, None] - columns).abs()


class _FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))
