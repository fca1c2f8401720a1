"""Tapped encoders: the same embedding as untapped, and the four maps where the layout says they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medmargin.networks.compact import CompactEncoder
from medmargin.networks.efficient_vit import EfficientViTEncoder
from medmargin.networks.sam import sam_vit
from medmargin.networks.sam_vit import SamViT
from medmargin.networks.taps import tap_layout, tapped
from medmargin.networks.tiny_vit import TinyViT

TINY = {"embed_dims": (4, 8, 8, 12), "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 3), "neck_width": 16}


def _sam(**sizes) -> SamViT:
    return SamViT(
        **{"image_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 5, "num_heads": 2, "window_size": 3,
           "global_blocks": (0, 1, 2, 4), "out_channels": 16, **sizes}
    )  # fmt: skip


ENCODERS = {
    "sam": _sam,
    "sam-checkpointed": lambda: _sam(gradient_checkpointing=True),
    "sam-one-global-block": lambda: _sam(depth=2, global_blocks=(1,)),
    "tiny": lambda: TinyViT(**TINY, stride1_dims=(12,)),
    "tiny-checkpointed": lambda: TinyViT(**TINY, stride1_dims=(12,), gradient_checkpointing=True),
    "tiny-stride-8": lambda: TinyViT(**TINY, stride1_dims=()),
    "compact": lambda: CompactEncoder(dim=64, attention_dim=48, depth=1, heads=2, grid=8),
}


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_maps_have_the_sizes_of_the_layout_and_the_embedding_is_that_of_a_plain_call(name: str, randomise) -> None:
    encoder = randomise(ENCODERS[name]()).eval()
    image = torch.rand(2, 3, 32, 32)
    found, layout, plain = tapped(encoder, image), tap_layout(encoder), encoder(image)
    if name == "compact":
        assert all(torch.equal(one, other) for one, other in zip(found.skips, plain.skips, strict=True))
        plain = plain.features
    assert torch.equal(found.features, plain)
    side = found.features.shape[-1]
    expected = [(2, width, int(scale * side), int(scale * side)) for width, scale in zip(*layout, strict=True)]
    assert [tuple(tap.shape) for tap in found.maps] == expected


@pytest.mark.parametrize(("size", "blocks"), [("b", (2, 5, 8, 11)), ("l", (5, 11, 17, 23)), ("h", (7, 15, 23, 31))])
def test_sam_is_tapped_at_its_four_global_blocks(size: str, blocks: tuple[int, ...]) -> None:
    with torch.device("meta"):
        encoder = sam_vit(size=size, image_size=64).image_encoder
    seen: dict[int, torch.Tensor] = {}
    for index, block in enumerate(encoder.blocks):
        block.register_forward_hook(lambda _, __, output, index=index: seen.update({index: output}))
    found = tapped(encoder, torch.empty(1, 3, 64, 64, device="meta"))
    bases = [tap._base for tap in found.maps]  # a map is a view of what left its block
    assert [next(index for index, output in seen.items() if output is base) for base in bases] == list(blocks)


def test_other_depths_are_tapped_at_their_quarters(randomise) -> None:
    encoder = randomise(_sam(depth=8, global_blocks=(7,)))
    image = torch.rand(1, 3, 32, 32)
    tokens, left = encoder.patch_embed(image) + encoder.pos_embed, []
    for block in encoder.blocks:
        tokens = block(tokens)
        left.append(tokens.permute(0, 3, 1, 2))
    for tap, block in zip(tapped(encoder, image).maps, (1, 3, 5, 7), strict=True):
        torch.testing.assert_close(tap, left[block])


def test_tiny_vit_is_tapped_before_each_downsampling(randomise) -> None:
    encoder = randomise(TinyViT(**TINY, stride1_dims=(12,))).eval()
    image = torch.rand(1, 3, 32, 32)
    found, stages = tapped(encoder, image).maps, encoder.stages(image)
    for tap, layer, stage in zip(found, encoder.layers, stages, strict=True):
        assert torch.equal(stage, tap if layer.downsample is None else layer.downsample(tap))


def test_default_tiny_vit_meets_the_wanted_grids_exactly() -> None:
    with torch.device("meta"):
        assert tap_layout(TinyViT()) == ((64, 128, 160, 320), (4, 2, 1, 1))


def test_encoders_without_four_maps_are_refused() -> None:
    with pytest.raises(TypeError, match="Linear cannot be tapped"):
        tapped(nn.Linear(1, 1), torch.rand(1, 3, 8, 8))
    with torch.device("meta"), pytest.raises(TypeError, match="EfficientViTEncoder cannot be tapped"):
        tap_layout(EfficientViTEncoder())
    with pytest.raises(ValueError, match="3 stages cannot be tapped"):
        tap_layout(TinyViT(embed_dims=(4, 8, 8), depths=(1, 1, 1), num_heads=(1, 2, 2), neck_width=16))
