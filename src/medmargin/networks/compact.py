"""A small promptable network that learns on a laptop's processor: strided convolutions, then a few attention layers.

No published counterpart. It keeps Segment Anything's prompt encoder and mask decoder and replaces the image encoder: a
convolutional stem to stride 8, plain attention there (64 cells at 64 pixels, where attention costs next to nothing),
and back to stride 4. Maps at strides 1 and 2 sharpen the mask while it is upscaled, as in SAM 2 (arXiv:2408.00714).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.networks.blocks.layer_norm_2d import LayerNorm2d
from medmargin.networks.mask_decoder import MaskDecoder
from medmargin.networks.prompt_encoder import PromptEncoder
from medmargin.networks.promptable import Embedding, Promptable

_GROUPS = 8


class _ConvBlock(nn.Module):
    """Two 3x3 convolutions with group normalisation; the first may halve the resolution."""

    def __init__(self, inside: int, outside: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(_GROUPS, outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(_GROUPS, outside)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.conv1(x)))
        return x + F.gelu(self.norm2(self.conv2(x)))


class _AttentionBlock(nn.Module):
    """Depthwise convolution, pre-norm self-attention over all cells, and feed-forward part."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.lin1, self.lin2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, dim, H, W] to the same shape."""
        shape = x.shape[-2:]
        tokens = (x + self.local(x)).flatten(2).transpose(1, 2)  # [B, H * W, dim]
        q, k, v = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.proj(attended)
        tokens = tokens + self.lin2(F.gelu(self.lin1(self.norm2(tokens))))
        return tokens.transpose(1, 2).unflatten(2, shape)


class CompactEncoder(nn.Module):
    """Encode [B, 3, S, S] to an `Embedding` with grid S / 4 and maps at strides 1 and 2.

    Args:
        dim: width of the embedding, a multiple of 64.
        attention_dim: width of the attention blocks. depth: their number. heads: attention heads.
        grid: side of the embedding (S / 4), for the learned position table.
    """

    def __init__(
        self, *, dim: int = 128, attention_dim: int = 192, depth: int = 4, heads: int = 6, grid: int = 16
    ) -> None:
        super().__init__()
        self.stem_full = _ConvBlock(3, dim // 8)
        self.stem_half = _ConvBlock(dim // 8, dim // 4, stride=2)
        self.stem_quarter = _ConvBlock(dim // 4, dim, stride=2)
        self.down = nn.Conv2d(dim, attention_dim, 3, stride=2, padding=1)
        self.position = nn.Parameter(torch.zeros(1, attention_dim, grid // 2, grid // 2))
        self.blocks = nn.ModuleList([_AttentionBlock(attention_dim, heads) for _ in range(depth)])
        self.up = nn.ConvTranspose2d(attention_dim, dim, 2, stride=2)
        self.fuse = _ConvBlock(dim, dim)
        self.neck = LayerNorm2d(dim)
        self.half_skip, self.full_skip = nn.Conv2d(dim // 4, dim // 4, 1), nn.Conv2d(dim // 8, dim // 8, 1)

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Channels of the maps at strides 1, 2, 4 and 8."""
        return (
            self.full_skip.in_channels, self.half_skip.in_channels, self.down.in_channels, self.down.out_channels
        )  # fmt: skip

    def forward(self, image: Tensor) -> Embedding:
        return self.tapped(image)[0]

    def tapped(self, image: Tensor) -> tuple[Embedding, tuple[Tensor, ...]]:
        """Encode images; also return the maps of the stem at strides 1, 2 and 4 and of the attention at stride 8."""
        full = self.stem_full(image)  # [B, dim / 8, S, S]
        half = self.stem_half(full)  # [B, dim / 4, S / 2, S / 2]
        quarter = self.stem_quarter(half)  # [B, dim, S / 4, S / 4]
        x = self.down(quarter) + self.position  # [B, attention_dim, S / 8, S / 8]
        for block in self.blocks:
            x = block(x)
        features = self.neck(self.fuse(quarter + self.up(x)))
        return Embedding(features, (self.half_skip(half), self.full_skip(full))), (full, half, quarter, x)


def resized_positions(network: Promptable, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring the position table in weights of a compact network to the network's grid, bilinearly."""
    name = "image_encoder.position"
    side = network.get_parameter(name).shape[-1]
    table = state[name]
    if table.shape[-1] != side:
        table = F.interpolate(table.float(), (side, side), mode="bilinear", align_corners=False)
    return {**state, name: table}


def compact_promptable(
    *,
    image_size: int = 64,
    dim: int = 128,
    attention_dim: int = 192,
    depth: int = 4,
    heads: int = 6,
    decoder_depth: int = 2,
    decoder_heads: int = 4,
    mlp_dim: int = 256,
) -> Promptable:
    """Build the laptop-scale promptable network (3.1 M weights with the defaults).

    Args:
        image_size: side of the network input in pixels, a multiple of 8.
        dim: width of embedding and tokens. attention_dim, depth, heads: of the encoder's attention blocks.
        decoder_depth, decoder_heads, mlp_dim: of the two-way transformer.
    """
    grid = image_size // 4
    return Promptable(
        CompactEncoder(dim=dim, attention_dim=attention_dim, depth=depth, heads=heads, grid=grid),
        PromptEncoder(dim=dim, grid=grid, image_size=image_size),
        MaskDecoder(dim=dim, num_masks=1, depth=decoder_depth, heads=decoder_heads, mlp_dim=mlp_dim, iou_hidden=dim),
        box_as_mask=True,
    )
