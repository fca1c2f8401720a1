"""EfficientViT encoder: sizes of the card, linear attention, resizing, gradient checkpointing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medmargin.networks.blocks.efficient_vit import LiteMLA
from medmargin.networks.efficient_vit import EfficientViTEncoder

SMALL = {
    "widths": (4, 6, 8, 8, 8), "depths": (1, 1, 1, 1, 1), "head_dim": 4, "neck_width": 8, "neck_depth": 1,
    "out_channels": 16, "grid": 8,
}  # fmt: skip


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_the_default_has_the_published_number_of_weights_in_every_part() -> None:
    with torch.device("meta"):
        encoder = EfficientViTEncoder()
    assert _count(encoder) == 30_728_224
    assert [_count(part) for part in (encoder.backbone, encoder.neck, encoder.norm)] == [27_805_472, 2_922_240, 512]


def test_linear_attention_equals_the_quadratic_form(randomise: Callable[[nn.Module], nn.Module]) -> None:
    """softmax is replaced by relu(q) relu(k) over its sum: compute all pairs and compare."""
    attention = randomise(LiteMLA(8, head_dim=4, kernel=5)).eval()
    x = torch.randn(2, 8, 5, 6)
    qkv = attention.qkv(x)
    groups = torch.cat([qkv, attention.aggreg[0](qkv)], 1).reshape(2, -1, 12, 30)
    q, k, v = groups.split(4, dim=2)
    pairs = F.relu(k).transpose(2, 3) @ F.relu(q)  # [B, heads, keys, queries]
    attended = v @ (pairs / (pairs.sum(2, keepdim=True) + 1e-15))
    expected = attention.proj(attended.reshape(2, -1, 5, 6))
    torch.testing.assert_close(attention(x), expected, atol=1e-4, rtol=1e-4)


def test_linear_attention_divides_in_single_precision_under_autocast(
    randomise: Callable[[nn.Module], nn.Module],
) -> None:
    attention = randomise(LiteMLA(8, head_dim=4, kernel=5)).eval()
    x = torch.randn(1, 8, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention(x)
    error = (found.float() - attention(x)).abs().max() / attention(x).abs().max()
    assert error < 0.05


def test_the_embedding_has_its_grid_whatever_the_image() -> None:
    encoder = EfficientViTEncoder(**SMALL).eval()
    for side in (64, 96):
        assert encoder(torch.rand(1, 3, side, side)).shape == (1, 16, 8, 8)


def test_images_are_resized_to_the_side_the_encoder_works_at(randomise: Callable[[nn.Module], nn.Module]) -> None:
    encoder = randomise(EfficientViTEncoder(**SMALL, input_size=64)).eval()
    small = torch.rand(1, 3, 32, 32)
    doubled = F.interpolate(small, (64, 64), mode="bilinear", align_corners=False)
    assert [stage.shape[-1] for stage in encoder.stages(small)] == [32, 16, 8, 4, 2]
    torch.testing.assert_close(encoder(small), encoder(doubled))


def test_gradient_checkpointing_changes_no_number(randomise: Callable[[nn.Module], nn.Module]) -> None:
    plain = randomise(EfficientViTEncoder(**SMALL))
    checkpointed = EfficientViTEncoder(**SMALL, gradient_checkpointing=True)
    checkpointed.load_state_dict(plain.state_dict())
    image = torch.rand(2, 3, 64, 64)
    for encoder in (plain, checkpointed):
        encoder(image).pow(2).sum().backward()
    for (name, expected), found in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        assert torch.equal(found[1].grad, expected.grad), name
    for (name, expected), found in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(found, expected), name


def test_six_stages_with_small_attention_kernels() -> None:
    encoder = EfficientViTEncoder(
        widths=(4, 4, 4, 4, 4, 8), depths=(0, 1, 1, 1, 1, 1),
        block_kinds=("res", "fmb", "fmb", "fmb", "att@3", "att@3"),
        expand_ratios=(1, 4, 4, 4, 4, 6), few_norms=(False, False, False, False, True, True), head_dim=4,
        neck_stages=(5, 4, 3), neck_width=8, neck_depth=1, neck_expand_ratio=4, out_channels=8, grid=8,
    )  # fmt: skip
    assert encoder.backbone.stages[5].op_list[1].context_module.main.aggreg[0][0].kernel_size == (3, 3)
    assert encoder(torch.rand(2, 3, 128, 128)).shape == (2, 8, 8, 8)


def test_an_unknown_kind_of_block_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown block kind 'conv': choose res, fmb, mb, att"):
        EfficientViTEncoder(**SMALL, block_kinds=("res", "conv", "fmb", "mb", "att"))
