"""Whole promptable networks at their published sizes, on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medmargin.networks.medsam_lite import medsam_lite
from medmargin.networks.sam import efficient_vit_sam, sam_vit


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_lite_medsam_has_the_published_weights_and_names() -> None:
    with torch.device("meta"):
        network = medsam_lite()
    assert _count(network) == 9_791_300
    assert _count(network.prompt_encoder) == 6_220
    assert _count(network.mask_decoder) == 4_058_340
    assert len(network.state_dict()) == 435
    assert sum(value.numel() for value in network.state_dict().values()) - _count(network) == 10_139
    assert {name.split(".")[0] for name in network.state_dict()} == {"image_encoder", "prompt_encoder", "mask_decoder"}
    assert (network.image_size, network.prompt_encoder.grid) == (256, 64)


@pytest.mark.parametrize(
    ("size", "encoder", "total"),
    [("b", 89_670_912, 93_735_472), ("l", 308_278_272, 312_342_832), ("h", 637_026_048, 641_090_608)],
)
def test_sam_has_the_published_weights(size: str, encoder: int, total: int) -> None:
    with torch.device("meta"):
        network = sam_vit(size=size)
    assert (_count(network.image_encoder), _count(network)) == (encoder, total)


def test_sam_vit_b_has_the_published_number_of_names() -> None:
    with torch.device("meta"):
        assert len(sam_vit().state_dict()) == 314


def test_sam_at_256_pixels_differs_in_its_position_tables_only() -> None:
    with torch.device("meta"):
        small, full = sam_vit(image_size=256).state_dict(), sam_vit().state_dict()
    other = {name for name in full if small[name].shape != full[name].shape}
    assert other == {
        "image_encoder.pos_embed",
        *(f"image_encoder.blocks.{block}.attn.rel_pos_{axis}" for block in (2, 5, 8, 11) for axis in "hw"),
    }


def test_efficient_vit_sam_has_the_published_weights() -> None:
    with torch.device("meta"):
        assert _count(efficient_vit_sam()) == 34_792_784


def test_teacher_and_student_embeddings_have_one_shape() -> None:
    """LiteMedSAM distils the embedding of SAM's ViT into TinyViT, U-MedSAM that of TinyViT into EfficientViT."""
    with torch.device("meta"):
        lite, sam, student = medsam_lite(), sam_vit(), efficient_vit_sam()
        lite_shape = lite.encode(torch.empty(1, 3, 256, 256)).features.shape
        sam_shape = sam.encode(torch.empty(1, 3, 1024, 1024)).features.shape
    neck = student.image_encoder.neck
    student_shape = (1, neck.output_ops[0].op_list[0].conv.out_channels, neck.grid, neck.grid)
    assert lite_shape == sam_shape == student_shape == (1, 256, 64, 64)


def test_the_decoder_epsilon_of_the_official_efficient_vit_weights_can_be_chosen() -> None:
    with torch.device("meta"):
        decoder = efficient_vit_sam(decoder_norm_eps=1e-6).mask_decoder
    assert {part.eps for part in decoder.transformer.modules() if isinstance(part, nn.LayerNorm)} == {1e-6}


def test_an_image_size_that_does_not_fit_the_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="image_size 250 is not a multiple of the encoder's stride 4"):
        medsam_lite(image_size=250)
