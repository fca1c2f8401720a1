"""A small promptable network that learns on a laptop's processor: strided convolutions, then a few attention layers.

No published counterpart. It keeps Segment Anything's prompt encoder and mask decoder and replaces the image encoder: a
convolutional stem to stride 4 (its maps at strides 1 and 2 sharpen the mask, as in SAM 2), then plain attention blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.networks.blocks.layer_norm_2d import LayerNorm2d
from medmargin.networks.mask_decoder import MaskDecoder
from medmargin.networks.prompt_encoder import PromptEncoder
from medmargin.networks.promptable import Embedding, Promptable


class _ConvBlock(nn.Module):
    """Two 3x3 convolutions with normalisation; the first may halve the resolution."""

    def __init__(self, inside: int, outside: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, outside)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.conv1(x)))
        return x + F.gelu(self.norm2(self.conv2(x)))


class _AttentionBlock(nn.Module):
    """Pre-norm self-attention and feed-forward part over all grid cells."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.lin1, self.lin2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, dim, G, G] to [B, dim, G, G]."""
        side = x.shape[-1]
        x = x + self.local(x)
        tokens = x.flatten(2).transpose(1, 2)  # [B, G * G, dim]
        q, k, v = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.proj(attended)
        tokens = tokens + self.lin2(F.gelu(self.lin1(self.norm2(tokens))))
        return tokens.transpose(1, 2).unflatten(2, (side, side))


class CompactEncoder(nn.Module):
    """Encode [B, 3, S, S] to an `Embedding` with grid S / 4 and maps at strides 1 and 2.

    Args:
        dim: width of the embedding, a multiple of 64.
        depth: attention blocks. heads: attention heads.
        grid: side of the embedding, for the learned position table.
    """

    def __init__(self, *, dim: int = 128, depth: int = 4, heads: int = 4, grid: int = 16) -> None:
        super().__init__()
        self.stem = nn.ModuleList([
            _ConvBlock(3, dim // 8),
            _ConvBlock(dim // 8, dim // 4, stride=2),
            _ConvBlock(dim // 4, dim, stride=2),
        ])
        self.position = nn.Parameter(torch.zeros(1, dim, grid, grid))
        self.blocks = nn.ModuleList([_AttentionBlock(dim, heads) for _ in range(depth)])
        self.neck = LayerNorm2d(dim)

    def forward(self, image: Tensor) -> Embedding:
        full = self.stem[0](image)  # [B, dim / 8, S, S]
        half = self.stem[1](full)  # [B, dim / 4, S / 2, S / 2]
        x = self.stem[2](half) + self.position
        for block in self.blocks:
            x = block(x)
        return Embedding(self.neck(x), (half, full))


def compact_promptable(
    *, image_size: int = 64, dim: int = 128, depth: int = 4, heads: int = 4, decoder_depth: int = 2, mlp_dim: int = 256
) -> Promptable:
    """Build the laptop-scale promptable network (about 1.5 M weights with the defaults).

    Args:
        image_size: side of the network input in pixels, a multiple of 4.
        dim: width of embedding and tokens. depth, heads: of the image encoder.
        decoder_depth, mlp_dim: of the two-way transformer.
    """
    grid = image_size // 4
    return Promptable(
        CompactEncoder(dim=dim, depth=depth, heads=heads, grid=grid),
        PromptEncoder(dim=dim, grid=grid, image_size=image_size),
        MaskDecoder(dim=dim, num_masks=1, depth=decoder_depth, heads=heads, mlp_dim=mlp_dim, iou_hidden=dim),
        box_as_mask=True,
    )
