"""Four maps from inside an image encoder, from early to late, along with its embedding.

The choice of the blocks follows the U-shaped use of plain vision transformers, e.g. UNETR (Hatamizadeh et al. 2021,
arXiv:2103.10504): evenly spaced depths, here those of Segment Anything's global attention. Encoders that are a pyramid
give the map of each resolution.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from medmargin.networks.compact import CompactEncoder
from medmargin.networks.sam_vit import SamViT
from medmargin.networks.tiny_vit import TinyViT

TAPS = 4


class Tapped(NamedTuple):
    """What an encoder knows about B images, and how it came to know it.

    Attributes:
        features: [B, dim, G, G], the image embedding.
        maps: T1 to T4, early to late, of the widths and sides a `TapLayout` states.
        skips: () or maps [B, dim / 4, 2G, 2G] and [B, dim / 8, 4G, 4G] that sharpen the mask.
    """

    features: Tensor
    maps: tuple[Tensor, ...]
    skips: tuple[Tensor, ...] = ()


class TapLayout(NamedTuple):
    """Sizes of T1 to T4.

    Attributes:
        widths: channels of each map.
        scales: side of each map over the side G of the embedding, a power of 2.
    """

    widths: tuple[int, ...]
    scales: tuple[float, ...]


def tapped(encoder: nn.Module, image: Tensor) -> Tapped:
    """Encode images [B, 3, S, S] in [0, 1] and return the four maps as well.

    SAM's transformer gives what leaves its four global blocks (or the blocks at 1/4, 2/4, 3/4 and 4/4 of the depth),
    TinyViT what leaves each stage before its downsampling, the compact encoder its maps at strides 1, 2, 4 and 8.
    """
    if isinstance(encoder, SamViT):
        features, maps = encoder.tapped(image, _tapped_blocks(encoder))
        return Tapped(features, maps)
    if isinstance(encoder, TinyViT):
        features, maps = encoder.tapped(image)
        return Tapped(features, maps)
    if isinstance(encoder, CompactEncoder):
        embedding, maps = encoder.tapped(image)
        return Tapped(embedding.features, maps, embedding.skips)
    raise TypeError(_unknown(encoder))


def tap_layout(encoder: nn.Module) -> TapLayout:
    """Return the sizes of what `tapped` returns for this encoder."""
    if isinstance(encoder, SamViT):
        return TapLayout((encoder.pos_embed.shape[-1],) * TAPS, (1.0,) * TAPS)
    if isinstance(encoder, TinyViT):
        if len(encoder.layers) != TAPS:
            raise ValueError(f"a TinyViT of {len(encoder.layers)} stages cannot be tapped: {TAPS} are expected")
        return TapLayout(encoder.widths, tuple(encoder.stride / stride for stride in encoder.strides))
    if isinstance(encoder, CompactEncoder):
        return TapLayout(encoder.widths, (4.0, 2.0, 1.0, 0.5))
    raise TypeError(_unknown(encoder))


def _tapped_blocks(encoder: SamViT) -> tuple[int, ...]:
    if len(encoder.global_blocks) == TAPS:
        return encoder.global_blocks
    depth = len(encoder.blocks)
    return tuple(-(-depth * quarter // TAPS) - 1 for quarter in range(1, TAPS + 1))  # rounded up


def _unknown(encoder: nn.Module) -> str:
    return f"an encoder of type {type(encoder).__name__} cannot be tapped: SamViT, TinyViT or CompactEncoder can"
