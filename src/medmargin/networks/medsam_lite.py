"""LiteMedSAM: MedSAM with a TinyViT image encoder, for 256 x 256 images on a laptop.

Baseline of the CVPR 2024 challenge "Segment Anything in Medical Images on Laptop"; Ma et al., arXiv:2412.16085.
"""

from __future__ import annotations

from collections.abc import Sequence

from medmargin.networks.mask_decoder import MaskDecoder
from medmargin.networks.prompt_encoder import PromptEncoder
from medmargin.networks.promptable import Promptable
from medmargin.networks.tiny_vit import TinyViT


def medsam_lite(
    *,
    image_size: int = 256,
    embed_dims: Sequence[int] = (64, 128, 160, 320),
    depths: Sequence[int] = (2, 2, 6, 2),
    num_heads: Sequence[int] = (2, 4, 5, 10),
    window_sizes: Sequence[int] = (7, 7, 14, 7),
    mbconv_expand_ratio: float = 4.0,
    mlp_ratio: float = 4.0,
    local_conv_size: int = 3,
    stride1_dims: Sequence[int] = (320, 448, 576),
    dim: int = 256,
    mask_channels: int = 16,
    decoder_depth: int = 2,
    decoder_heads: int = 8,
    decoder_mlp_dim: int = 2048,
    iou_hidden: int = 256,
    gradient_checkpointing: bool = False,
) -> Promptable:
    """Build LiteMedSAM; the defaults are the official ones (9,791,300 weights, 435 state-dict keys).

    Args:
        image_size: side of the network input in pixels.
        embed_dims, depths, num_heads, window_sizes, mbconv_expand_ratio, mlp_ratio, local_conv_size, stride1_dims:
            of the image encoder, see `TinyViT`.
        dim: width of the embedding and of the prompt tokens.
        mask_channels: channels inside the mask-prompt branch.
        decoder_depth, decoder_heads, decoder_mlp_dim: sizes of the two-way transformer.
        iou_hidden: hidden width of the IoU head.
        gradient_checkpointing: trade time for memory in the image encoder.
    """
    encoder = TinyViT(
        embed_dims=embed_dims,
        depths=depths,
        num_heads=num_heads,
        window_sizes=window_sizes,
        mbconv_expand_ratio=mbconv_expand_ratio,
        mlp_ratio=mlp_ratio,
        local_conv_size=local_conv_size,
        stride1_dims=stride1_dims,
        neck_width=dim,
        gradient_checkpointing=gradient_checkpointing,
    )
    if image_size % encoder.stride:
        raise ValueError(f"image_size {image_size} is not a multiple of the encoder's stride {encoder.stride}")
    return Promptable(
        encoder,
        PromptEncoder(
            dim=dim, grid=image_size // encoder.stride, image_size=image_size, mask_channels=mask_channels
        ),
        MaskDecoder(
            dim=dim, depth=decoder_depth, heads=decoder_heads, mlp_dim=decoder_mlp_dim, iou_hidden=iou_hidden
        ),
    )
