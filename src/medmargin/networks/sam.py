"""Segment Anything at its published sizes, and its small sibling with an EfficientViT encoder.

SAM: Kirillov et al. 2023, arXiv:2304.02643; MedSAM (arXiv:2304.12306) is the same network fed with images in [0, 1].
EfficientViT-SAM: Zhang, Cai, Han 2024, arXiv:2402.05008; student of U-MedSAM, arXiv:2408.08881.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from medmargin.networks.efficient_vit import EfficientViTEncoder
from medmargin.networks.mask_decoder import MaskDecoder
from medmargin.networks.prompt_encoder import PromptEncoder
from medmargin.networks.promptable import Promptable
from medmargin.networks.sam_vit import SamViT

SamSize = Literal["b", "l", "h", "tiny"]
_VIT_SIZES: dict[str, dict[str, Any]] = {
    "b": {"embed_dim": 768, "depth": 12, "num_heads": 12, "global_blocks": (2, 5, 8, 11)},
    "l": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "global_blocks": (5, 11, 17, 23)},
    "h": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "global_blocks": (7, 15, 23, 31)},
    # not published: the same network small enough to be trained from scratch on a processor, with patches of 8 px
    "tiny": {"embed_dim": 192, "depth": 8, "num_heads": 3, "global_blocks": (1, 3, 5, 7), "patch_size": 8},
}
_EFFICIENT_VIT_SIZES: dict[str, dict[str, Any]] = {
    "l0": {"depths": (1, 1, 1, 4, 4), "neck_depth": 4},
    "l1": {"depths": (1, 1, 1, 6, 6), "neck_depth": 8},
    "l2": {"depths": (1, 2, 2, 8, 8), "neck_depth": 12},
}


def sam_vit(*, size: SamSize = "b", image_size: int = 1024, gradient_checkpointing: bool = False) -> Promptable:
    """Build SAM (or MedSAM): 93,735,472 weights for 'b', 312,342,832 for 'l', 641,090,608 for 'h'.

    Args:
        size: of the vision transformer; 'tiny' is no published one, see `_VIT_SIZES`.
        image_size: side of the network input in pixels, a multiple of 16 ('tiny': 8). `load_official` resizes the
            position tables of the official 1024-pixel weights.
        gradient_checkpointing: trade time for memory in the image encoder.
    """
    encoder = SamViT(image_size=image_size, gradient_checkpointing=gradient_checkpointing, **_VIT_SIZES[size])
    return Promptable(encoder, PromptEncoder(grid=encoder.grid, image_size=image_size), MaskDecoder())


def efficient_vit_sam(
    *,
    size: Literal["l0", "l1", "l2"] = "l0",
    image_size: int = 256,
    encoder_size: int = 512,
    decoder_norm_eps: float = 1e-5,
    gradient_checkpointing: bool = False,
) -> Promptable:
    """Build EfficientViT-SAM (34,792,784 weights for 'l0'); its embedding has the shape of LiteMedSAM's.

    The defaults are those of a LiteMedSAM student: 256-pixel images, resized to 512 inside, and LiteMedSAM's prompt
    encoder and mask decoder. The official EfficientViT-SAM weights were trained with `image_size=1024` (the frame of
    the prompts) and `decoder_norm_eps=1e-6`.

    Args:
        size: of the image encoder.
        image_size: side of the network input in pixels.
        encoder_size: side the image encoder works at in pixels.
        decoder_norm_eps: epsilon of the two-way transformer's layer normalisations.
        gradient_checkpointing: trade time for memory in the image encoder.
    """
    encoder = EfficientViTEncoder(
        input_size=encoder_size, gradient_checkpointing=gradient_checkpointing, **_EFFICIENT_VIT_SIZES[size]
    )
    decoder = MaskDecoder()
    for part in decoder.transformer.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = decoder_norm_eps
    return Promptable(encoder, PromptEncoder(grid=64, image_size=image_size), decoder)
