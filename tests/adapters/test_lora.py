"""Low-rank adaptation: the authors' numbers, both layouts of the fused rows, merging, and what a file may hold."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from medmargin.adapters.lora import LoraQKV, add_lora, load_lora, lora_state, merge_lora, unmerge_lora
from medmargin.errors import CheckpointError, ConfigError
from medmargin.networks.sam_vit import SamAttention
from medmargin.networks.tiny_vit import TinyViT


class _Attention(nn.Module):
    def __init__(self, width: int = 12, heads: int = 3, layout: str = "qkv") -> None:
        super().__init__()
        self.heads, self.qkv_layout = heads, layout
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.qkv(x)


def _trained(network: nn.Module) -> nn.Module:
    """Give every factor a value, as training would."""
    with torch.no_grad():
        for factor in lora_state(network).values():
            factor.normal_(std=0.3)
    return network


def _parts(fused: Tensor, heads: int, layout: str) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as the attentions of this package cut them: each [..., heads, C / heads]."""
    if layout == "per-head":
        return fused.unflatten(-1, (heads, 3, -1)).unbind(-2)
    return fused.unflatten(-1, (3, heads, -1)).unbind(-3)


def test_the_published_adaptation_of_sam_comes_back(golden: Path) -> None:
    """SAMed's own code: base attention, adapted fused projection, adapted attention."""
    reference = load_file(golden / "udeg-net.safetensors")
    tokens = reference["input.tokens"]
    attention = SamAttention(12, int(reference["input.attn_heads"]), tokens.shape[1])
    prefix = "input.attn."
    attention.load_state_dict({n.removeprefix(prefix): v for n, v in reference.items() if n.startswith(prefix)})
    add_lora(attention, rank=4)
    torch.testing.assert_close(attention(tokens), reference["output.lora.base"], atol=1e-5, rtol=0)
    load_lora(attention, {f"qkv.{name}": reference[f"input.lora.{name}"] for name in ("a_q", "b_q", "a_v", "b_v")})
    for merge in (False, True):
        if merge:
            merge_lora(attention)
        torch.testing.assert_close(attention.qkv(tokens), reference["output.lora.qkv"], atol=1e-5, rtol=0)
        torch.testing.assert_close(attention(tokens), reference["output.lora.out"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["qkv", "per-head"])
def test_queries_and_values_get_their_update_and_keys_none(layout: str) -> None:
    attention = _Attention(layout=layout)
    x = torch.randn(2, 5, 12)
    before = _parts(attention(x), 3, layout)
    add_lora(attention, rank=2, alpha=6)
    layer = _trained(attention).qkv
    q, k, v = (after - plain for after, plain in zip(_parts(attention(x), 3, layout), before, strict=True))
    for change, a, b in ((q, layer.a_q, layer.b_q), (v, layer.a_v, layer.b_v)):
        torch.testing.assert_close(change.flatten(-2), 3 * x @ (b @ a).T, atol=1e-5, rtol=1e-4)
    assert torch.equal(k, torch.zeros_like(k))


@settings(max_examples=25, deadline=None)
@given(
    heads=st.integers(1, 4), head=st.integers(1, 5), rank=st.integers(1, 6), layout=st.sampled_from(["qkv", "per-head"])
)
def test_merged_equals_unmerged_and_unmerging_is_exact(heads: int, head: int, rank: int, layout: str) -> None:
    attention = _Attention(heads * head, heads, layout)
    add_lora(attention, rank=rank)
    _trained(attention)
    x, weight = torch.randn(3, heads * head), attention.qkv.weight.detach().clone()
    expected = attention(x)
    merge_lora(attention)
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)
    merge_lora(attention)  # twice is once
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)
    unmerge_lora(attention)
    assert torch.equal(attention.qkv.weight, weight)
    assert torch.equal(attention(x), expected)


def test_untrained_factors_change_nothing() -> None:
    attention, x = _Attention(), torch.randn(4, 12)
    before = attention(x)
    assert add_lora(attention) == ["qkv"]
    assert torch.equal(attention(x), before)
    assert (attention.qkv.a_q.std() > 0) & (attention.qkv.b_q == 0).all()


def test_factors_add_names_and_keep_those_of_the_weights() -> None:
    attention = _Attention()
    weight, names = attention.qkv.weight, set(attention.state_dict())
    add_lora(attention)
    assert attention.qkv.weight is weight
    assert weight.requires_grad, "adding freezes nothing"
    assert set(attention.state_dict()) - names == {f"qkv.{factor}" for factor in ("a_q", "b_q", "a_v", "b_v")}
    assert set(lora_state(attention)) == set(attention.state_dict()) - names


def test_every_factor_learns_and_a_frozen_weight_does_not() -> None:
    attention = _Attention().requires_grad_(False)
    add_lora(attention)
    _trained(attention)
    attention(torch.randn(6, 12)).pow(2).sum().backward()
    assert attention.qkv.weight.grad is None
    for name, factor in attention.named_parameters():
        assert not factor.requires_grad or factor.grad.abs().sum() > 0, name


def test_a_state_never_holds_factors_twice() -> None:
    """Saved while merged, or loaded while merged: the network answers the same."""
    attention = _Attention()
    add_lora(attention)
    _trained(attention)
    x, plain = torch.randn(3, 12), copy.deepcopy(attention.state_dict())
    expected = attention(x)
    merge_lora(attention)
    saved = attention.state_dict()
    assert all(torch.equal(saved[name], plain[name]) for name in plain)
    assert set(saved) == set(plain)
    attention.load_state_dict(saved)
    torch.testing.assert_close(attention(x), expected)


def test_training_undoes_merging() -> None:
    attention = _Attention().eval()
    add_lora(attention)
    merge_lora(_trained(attention))
    attention.train()
    attention(torch.randn(3, 12)).sum().backward()
    assert attention.qkv.a_q.grad is not None


def test_factors_of_another_network_are_refused_whole() -> None:
    source, target = _Attention(), _Attention()
    add_lora(source, rank=2)
    add_lora(target, rank=4)
    before = {name: factor.clone() for name, factor in lora_state(target).items()}
    with pytest.raises(CheckpointError, match=r"4 factors .* qkv\.a_q: found \[2, 12\], expected \[4, 12\]"):
        load_lora(target, lora_state(_trained(source)))
    with pytest.raises(CheckpointError, match="found nothing"):
        load_lora(target, {})
    assert all(torch.equal(factor, before[name]) for name, factor in lora_state(target).items())


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(ConfigError, match="no linear layer called 'qkv'"):
        add_lora(nn.Sequential(nn.Linear(3, 9)))
    with pytest.raises(ConfigError, match="rank is 0"):
        LoraQKV(nn.Linear(4, 12), rank=0)
    with pytest.raises(ConfigError, match="4 to 8 values"):
        LoraQKV(nn.Linear(4, 8), rank=1)
    attention = _Attention()
    add_lora(attention)
    with pytest.raises(ConfigError, match="already has it"):
        add_lora(attention)


def test_tiny_vit_keeps_keys_and_only_its_attentions_are_adapted() -> None:
    """Its fused rows lie per head: the keys of every head must not move."""
    encoder = TinyViT(embed_dims=(4, 8, 8, 12), depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 3), neck_width=16)
    attention = encoder.layers[3].blocks[0].attn
    x = torch.randn(2, 49, 12)
    before = attention.qkv(x).unflatten(-1, (3, 3, -1))  # heads, (q, k, v)
    assert len(add_lora(encoder)) == 4
    _trained(encoder)
    change = (attention.qkv(x).unflatten(-1, (3, 3, -1)) - before).abs().amax(dim=(0, 1, 2, 4))
    assert change[1] == 0
    assert (change[[0, 2]] > 0.01).all()
