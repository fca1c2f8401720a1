"""SAM's vision transformer: sizes of the card, relative positions, windows, gradient checkpointing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from medmargin.networks.sam_vit import SamAttention, SamViT

SMALL = {"image_size": 40, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "out_channels": 8}


def test_relative_positions_follow_their_definition(randomise: Callable[[nn.Module], nn.Module]) -> None:
    """Compare with the sum written as loops: q k / sqrt(d) + q Rh[h - h' + K - 1] + q Rw[w - w' + K - 1]."""
    side, heads, width = 3, 2, 4
    attention = randomise(SamAttention(heads * width, heads, side))
    tokens = torch.randn(1, side, side, heads * width)
    q, k, v = attention.qkv(tokens).reshape(side * side, 3, heads, width).unbind(1)
    expected = torch.empty(side * side, heads, width)
    for head in range(heads):
        scores = q[:, head] @ k[:, head].T / width**0.5
        for here in range(side * side):
            for there in range(side * side):
                row = here // side - there // side + side - 1
                column = here % side - there % side + side - 1
                scores[here, there] += q[here, head] @ (attention.rel_pos_h[row] + attention.rel_pos_w[column])
        expected[:, head] = scores.softmax(-1) @ v[:, head]
    expected = attention.proj(expected.flatten(1)).reshape(1, side, side, -1)
    torch.testing.assert_close(attention(tokens), expected, atol=1e-5, rtol=1e-4)


def test_windowed_blocks_see_their_window_only(randomise: Callable[[nn.Module], nn.Module]) -> None:
    encoder = randomise(SamViT(**SMALL, window_size=3, global_blocks=(1,)))
    windowed, everywhere = encoder.blocks
    tokens = torch.randn(1, 5, 5, 12)
    changed = tokens.clone()
    changed[0, 0, 0, 0] += 1  # one channel: layer normalisation would remove a change of all of them
    assert torch.equal(windowed(tokens)[0, 3:], windowed(changed)[0, 3:])
    assert not torch.equal(everywhere(tokens)[0, 3:], everywhere(changed)[0, 3:])


def test_padding_is_zero_after_the_normalisation(randomise: Callable[[nn.Module], nn.Module]) -> None:
    block = randomise(SamViT(**SMALL, window_size=7, global_blocks=())).blocks[0]
    tokens = torch.randn(1, 5, 5, 12)
    padded = torch.zeros(1, 7, 7, 12)
    padded[:, :5, :5] = block.norm1(tokens)
    middle = tokens + block.attn(padded)[:, :5, :5]
    torch.testing.assert_close(block(tokens), middle + block.mlp(block.norm2(middle)))


def test_gradient_checkpointing_changes_no_number(randomise: Callable[[nn.Module], nn.Module]) -> None:
    plain = randomise(SamViT(**SMALL, window_size=3, global_blocks=(1,)))
    checkpointed = SamViT(**SMALL, window_size=3, global_blocks=(1,), gradient_checkpointing=True)
    checkpointed.load_state_dict(plain.state_dict())
    image = torch.rand(1, 3, 40, 40)
    for encoder in (plain, checkpointed):
        encoder(image).pow(2).sum().backward()
    for (name, expected), found in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert found.grad is not None, name
        assert torch.equal(found.grad, expected.grad), name


def test_a_block_can_be_wrapped() -> None:
    encoder = SamViT(**SMALL, window_size=3, global_blocks=(1,))
    encoder.blocks[0] = nn.Identity()
    assert encoder(torch.rand(1, 3, 40, 40)).shape == (1, 8, 5, 5)


def test_an_image_size_that_cuts_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple of the patch size 8"):
        SamViT(**{**SMALL, "image_size": 44})
