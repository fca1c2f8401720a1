"""Edge prompt generator of UDEG-Net: predict where the object's edge is and say it to the mask decoder as a prompt.

The idea is that of Zhao et al. 2025, "Uncertainty-Driven Edge Prompt Generation Network for Medical Image
Segmentation", IEEE TMI 44(10):3950-3961, doi:10.1109/TMI.2025.3535478. The paper states no layout and no code is
published: the layers, their sizes and the form of the prompts are a design of this toolkit.

Symbols: G side of the image embedding, Q = 4G side of the edge map and of the mask, S side of the image, C_e channels.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.errors import ConfigError
from medmargin.networks.blocks.layer_norm_2d import LayerNorm2d
from medmargin.networks.evidence import Opinion, opinion
from medmargin.networks.prompt_encoder import FourierPositions, mask_branch
from medmargin.networks.taps import TapLayout, Tapped

_GROUPS = 8
_STEM_WIDTH = 32
_STEM_STRIDES = {1: (1, 1), 2: (2, 1), 4: (2, 2)}
_CELL = 4  # side of a cell of the embedding on the grid Q
_LATERAL_SCALES = (4.0, 2.0, 1.0, 1.0)  # side each of T1 to T4 is brought to, over G
_GAMMA = 0.1


class EdgePrompts(NamedTuple):
    """A predicted edge and the prompts made of it.

    Attributes:
        tokens: [B, N, dim] sparse prompts.
        dense: [B, dim, G, G], to be added to a dense prompt.
        edges: [B, 2, Q, Q] logits (non-edge, edge).
        deep: logits (non-edge, edge) of the three coarser levels: [B, 2, G, G] twice, then [B, 2, 2G, 2G].
    """

    tokens: Tensor
    dense: Tensor
    edges: Tensor
    deep: tuple[Tensor, Tensor, Tensor]


class EdgePromptGenerator(nn.Module):
    """Find the edge from coarse to fine in four encoder maps and the image, and turn it into prompts.

    Nothing is detached: the loss of the segmentation reaches every part.

    Args:
        layout: sizes of the four encoder maps.
        dim: width of the image embedding and of the prompts.
        pixels_per_edge: S / Q, how many image pixels a pixel of the edge map stands for: 1, 2 or 4.
        channels: C_e, a multiple of 8. tokens: number N of sparse prompts.
        mask_channels: inner channels of the dense prompt, those of the prompt encoder's mask branch.
        dropout: probability of leaving a channel of the finest fused map out.

    Raises:
        ConfigError: channels or pixels per edge that are not possible.
    """

    def __init__(
        self,
        layout: TapLayout,
        *,
        dim: int = 256,
        pixels_per_edge: int = 4,
        channels: int = 64,
        tokens: int = 8,
        mask_channels: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if channels < 1 or channels % _GROUPS:
            raise ConfigError(f"edge_channels is {channels}: expected a multiple of {_GROUPS}")
        if tokens < 1:
            raise ConfigError(f"edge_tokens is {tokens}: expected 1 or more, or edge_prompts off")
        if pixels_per_edge not in _STEM_STRIDES:
            raise ConfigError(f"the image is {pixels_per_edge} times as large as the masks: expected 1, 2 or 4 times")
        first, second = _STEM_STRIDES[pixels_per_edge]
        self.stem = nn.Sequential(
            *_convolution(2, _STEM_WIDTH, stride=first), *_convolution(_STEM_WIDTH, channels, stride=second)
        )
        self.laterals = nn.ModuleList([
            _lateral(width, channels, wanted / scale)
            for width, scale, wanted in zip(layout.widths, layout.scales, _LATERAL_SCALES, strict=True)
        ])
        self.embedding_lateral = nn.Conv2d(dim, channels, 1)
        self.fuse = nn.ModuleList([nn.Sequential(*_convolution(channels, channels)) for _ in _LATERAL_SCALES])
        self.side = nn.ModuleList([nn.Conv2d(channels, 2, 1) for _ in _LATERAL_SCALES])
        self.dropout = nn.Dropout2d(dropout) if dropout else None
        self.dense = _DensePrompt(dim, mask_channels)
        self.sparse = _SparsePrompts(channels, dim, tokens)

    def forward(self, image: Tensor, encoded: Tapped, positions: FourierPositions) -> EdgePrompts:
        """Predict edges and prompts of B images.

        Args:
            image: [B, 3, S, S] in [0, 1].
            encoded: of the same images.
            positions: SAM's positional code, for the locations of the tokens.
        """
        l1, l2, l3, l4 = (lateral(tap) for lateral, tap in zip(self.laterals, encoded.maps, strict=True))
        fuse1, fuse2, fuse3, fuse4 = self.fuse
        side1, side2, side3, side4 = self.side
        u4 = fuse4(l4 + self.embedding_lateral(encoded.features))  # [B, C_e, G, G]
        e4 = side4(u4)
        u3 = fuse3(u4 * _gate(e4) + l3)
        e3 = side3(u3)
        u2 = fuse2(_doubled(u3 * _gate(e3)) + l2)  # [B, C_e, 2G, 2G]
        e2 = side2(u2)
        u1 = fuse1(_doubled(u2 * _gate(e2)) + l1 + self.stem(image_gradient(image)))  # [B, C_e, Q, Q]
        if self.dropout is not None:
            u1 = self.dropout(u1)
        edges = side1(u1)
        found = opinion(edges)
        return EdgePrompts(self.sparse(u1, found, positions), self.dense(edges, found), edges, (e4, e3, e2))


def image_gradient(image: Tensor) -> Tensor:
    """Return the grey value and the strength of its change, [B, 2, S, S] float32, of images [B, 3, S, S].

    The change is sqrt(gx^2 + gy^2 + 1e-6) with Sobel differences / 8 (grey levels per pixel) and repeated borders.
    """
    grey = image.float().mean(1, keepdim=True)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 2:] - padded[..., :-2]  # [B, 1, S + 2, S]
    down = padded[..., 2:, :] - padded[..., :-2, :]  # [B, 1, S, S + 2]
    gx = (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 8
    gy = (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 8
    return torch.cat([grey, torch.sqrt(gx**2 + gy**2 + 1e-6)], dim=1)


class _DensePrompt(nn.Module):
    """Edge logit and confident edge probability [B, 2, Q, Q] to gamma * map [B, dim, G, G], as SAM encodes a mask."""

    def __init__(self, dim: int, mask_channels: int) -> None:
        super().__init__()
        self.downscaling = mask_branch(2, mask_channels, dim)
        self.gamma = nn.Parameter(torch.full((dim,), _GAMMA))

    def forward(self, edges: Tensor, found: Opinion) -> Tensor:
        confident = found.probability[:, 1:] * (1 - found.uncertainty)
        coded = self.downscaling(torch.cat([_margin(edges), confident], dim=1))
        return self.gamma[:, None, None] * coded

    @torch.no_grad()
    def start_from(self, mask_downscaling: nn.Sequential) -> None:
        """Copy the convolutions of SAM's mask branch; the input it does not have starts at 0."""
        for own, theirs in zip(self.downscaling, mask_downscaling, strict=True):
            if isinstance(own, nn.Conv2d):
                weight = theirs.get_parameter("weight")
                own.weight.zero_()[:, : weight.shape[1]].copy_(weight)
                own.get_parameter("bias").copy_(theirs.get_parameter("bias"))


class _SparsePrompts(nn.Module):
    """N tokens, each the place a learned query finds on the edge and what the fused map holds there."""

    def __init__(self, channels: int, dim: int, tokens: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(tokens, dim) * 0.02)
        self.key, self.value = nn.Linear(channels, dim), nn.Linear(channels, dim)
        self.out = nn.Linear(dim, dim)
        self.kind = nn.Parameter(torch.zeros(dim))  # says "edge", as SAM's point embeddings say "inside" or "corner"

    def forward(self, fused: Tensor, found: Opinion, positions: FourierPositions) -> Tensor:
        with torch.autocast(fused.device.type, enabled=False):  # bf16 would move a location by pixels
            features = F.avg_pool2d(fused.float(), _CELL).flatten(2).transpose(1, 2)  # [B, G * G, C_e]
            nearby = F.max_pool2d(found.probability[:, 1:].float(), _CELL)  # [B, 1, G, G]
            scores = self.queries @ self.key(features).transpose(1, 2) / math.sqrt(self.queries.shape[1])
            attention = (scores + torch.log(nearby + 1e-3).flatten(2)).softmax(-1)  # [B, N, G * G]
            location = attention @ _cell_centres(nearby.shape[-1], attention)
            return positions(location) + self.out(attention @ self.value(features)) + self.kind


def _cell_centres(side: int, like: Tensor) -> Tensor:
    """Centres (x, y) in [0, 1] of the cells of a grid, row by row: [side * side, 2]."""
    centres = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)


def _convolution(inside: int, outside: int, *, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, 3, stride=stride, padding=1), nn.GroupNorm(_GROUPS, outside), nn.GELU()]


def _lateral(width: int, channels: int, factor: float) -> nn.Sequential:
    """Bring a map of `width` to `channels` and to `factor` times its side.

    The same side: one 1x1 convolution. A coarser one: a convolution whose steps do not overlap. A finer one: transposed
    convolutions that double the side, over twice the channels where there are several. All are normalised but the last
    of several.
    """
    if factor <= 1:
        step = round(1 / factor)
        return nn.Sequential(nn.Conv2d(width, channels, step, stride=step), LayerNorm2d(channels), nn.GELU())
    doublings = round(math.log2(factor))
    widths = [width, *[2 * channels] * (doublings - 1), channels]
    layers: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        layers += [nn.ConvTranspose2d(inside, outside, 2, stride=2), LayerNorm2d(outside), nn.GELU()]
    return nn.Sequential(*(layers if doublings == 1 else layers[:-2]))


def _margin(edges: Tensor) -> Tensor:
    """Logit of edge against non-edge: [B, 1, ...] of [B, 2, ...]."""
    return edges[:, 1:] - edges[:, :1]


def _gate(edges: Tensor) -> Tensor:
    return 1 + torch.sigmoid(_margin(edges))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
