"""TinyViT: sizes of the card, its traps, gradient checkpointing."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from medmargin.networks.tiny_vit import TinyViT

SMALL = {"embed_dims": (4, 8, 8, 12), "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 3), "neck_width": 16}


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_the_default_has_the_published_number_of_weights_in_every_part() -> None:
    with torch.device("meta"):
        encoder = TinyViT()
    assert _count(encoder) == 5_726_740
    assert _count(encoder.patch_embed) == 2_336
    assert [_count(layer) for layer in encoder.layers] == [98_944, 448_232, 2_030_520, 2_473_940]
    assert _count(encoder.neck) == 672_768


def test_the_default_turns_256_pixels_into_a_grid_of_64() -> None:
    with torch.device("meta"):
        encoder = TinyViT()
        stages = encoder.stages(torch.empty(2, 3, 256, 256))
        assert encoder.stride == 4
    assert [stage.shape[1:] for stage in stages] == [(128, 128, 128), (160, 64, 64), (320, 64, 64), (320, 64, 64)]


@pytest.mark.parametrize(("stride1_dims", "grid"), [((), 4), ((12,), 8), ((8, 12), 32)])
def test_stages_that_keep_the_grid_are_an_argument(stride1_dims: tuple[int, ...], grid: int) -> None:
    encoder = TinyViT(**SMALL, stride1_dims=stride1_dims).eval()
    assert encoder(torch.rand(1, 3, 32, 32)).shape == (1, 16, grid, grid)
    assert encoder.stride == 32 // grid


def test_weights_loaded_after_eval_count(randomise: Callable[[nn.Module], nn.Module]) -> None:
    image = torch.rand(1, 3, 32, 32)
    trained = randomise(TinyViT(**SMALL)).eval()
    fresh = TinyViT(**SMALL).eval()
    fresh(image)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(image), trained(image))


def test_the_bias_of_an_attention_depends_on_the_distances_only() -> None:
    """index = |dy| * window + |dx|, so that (0, 0) -> (1, 2) uses entry 1 * 3 + 2."""
    index = TinyViT(**SMALL, window_sizes=(3, 3, 3, 3)).layers[1].blocks[0].attn.attention_bias_idxs
    assert index.shape == (9, 9)
    assert index[0, 5] == index[5, 0] == index[3, 8] == 5
    assert (index.diagonal() == 0).all()


def test_the_bias_index_is_no_weight() -> None:
    assert not any("attention_bias_idxs" in name for name in TinyViT(**SMALL).state_dict())


def test_padding_takes_part_as_the_bias_of_the_normalisation(randomise: Callable[[nn.Module], nn.Module]) -> None:
    """A 4 x 4 grid in a window of 7: its 33 padding cells must matter through `attn.norm.bias`."""
    block = randomise(TinyViT(**SMALL)).layers[1].blocks[0].eval()
    x = torch.randn(1, 8, 4, 4)
    before = block(x)
    padded = torch.zeros(1, 7, 7, 8)
    padded[:, :4, :4] = x.permute(0, 2, 3, 1)
    attended = block.attn(padded.flatten(1, 2)).unflatten(1, (7, 7))[:, :4, :4]
    local = block.local_conv((x.permute(0, 2, 3, 1) + attended).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(before, (local + block.mlp(local)).permute(0, 3, 1, 2))


def test_gradient_checkpointing_changes_no_number(randomise: Callable[[nn.Module], nn.Module]) -> None:
    plain = randomise(TinyViT(**SMALL))
    checkpointed = TinyViT(**SMALL, gradient_checkpointing=True)
    checkpointed.load_state_dict(plain.state_dict())
    image = torch.rand(2, 3, 32, 32)
    outputs = []
    for encoder in (plain, checkpointed):
        outputs.append(encoder(image))
        outputs[-1].pow(2).sum().backward()
    assert torch.equal(*outputs)
    for (name, expected), found in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(found.grad, expected.grad), name
    for (name, expected), found in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(found, expected), name


def test_gradient_checkpointing_keeps_less_than_half_of_the_activations() -> None:
    def kept(*, gradient_checkpointing: bool) -> int:
        sizes = []
        encoder = TinyViT(**SMALL, gradient_checkpointing=gradient_checkpointing)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
            encoder(torch.rand(2, 3, 64, 64))
        return sum(sizes)

    assert kept(gradient_checkpointing=True) < kept(gradient_checkpointing=False) / 2


def test_an_image_is_encoded_the_same_alone_and_in_a_batch(randomise: Callable[[nn.Module], nn.Module]) -> None:
    encoder = randomise(TinyViT(**SMALL)).eval()
    images = torch.rand(3, 3, 36, 36)
    torch.testing.assert_close(encoder(images)[1:2], encoder(images[1:2]))


def test_a_copy_is_independent(randomise: Callable[[nn.Module], nn.Module]) -> None:
    encoder = randomise(TinyViT(**SMALL)).eval()
    twin = copy.deepcopy(encoder)
    nn.init.zeros_(twin.neck[3].weight)
    assert encoder(torch.rand(1, 3, 32, 32)).std() > 0
