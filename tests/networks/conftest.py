"""Networks small enough to run in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import nn

from medmargin.networks.mask_decoder import MaskDecoder
from medmargin.networks.medsam_lite import medsam_lite
from medmargin.networks.prompt_encoder import PromptEncoder
from medmargin.networks.promptable import Promptable
from medmargin.networks.sam_vit import SamViT

Network = TypeVar("Network", bound=nn.Module)


def randomised(network: Network, seed: int = 0) -> Network:
    """Give every weight a random value, also those that start at 0 or 1, so that a part left out is noticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2 + (weight.ndim == 1) * 0.1)
    return network


@pytest.fixture
def randomise() -> Callable[[nn.Module], nn.Module]:
    return randomised


@pytest.fixture
def tiny_medsam_lite() -> Promptable:
    """LiteMedSAM for 32-pixel images (grid 8, width 16), in training mode."""
    return randomised(
        medsam_lite(
            image_size=32, embed_dims=(4, 8, 8, 12), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 3),
            window_sizes=(7, 7, 14, 7), stride1_dims=(12,), dim=16, mask_channels=8, decoder_heads=2,
            decoder_mlp_dim=24, iou_hidden=16,
        )
    )  # fmt: skip


@pytest.fixture
def tiny_sam() -> Callable[[int], Promptable]:
    """Make SAM with 8-pixel patches and one windowed and one global block, for images of a given side."""

    def make(image_size: int) -> Promptable:
        encoder = SamViT(
            image_size=image_size, patch_size=8, embed_dim=12, depth=2, num_heads=2, window_size=3, global_blocks=(1,),
            out_channels=16,
        )  # fmt: skip
        prompts = PromptEncoder(dim=16, grid=encoder.grid, image_size=image_size, mask_channels=8)
        return randomised(Promptable(encoder, prompts, MaskDecoder(dim=16, heads=2, mlp_dim=24, iou_hidden=16)))

    return make
