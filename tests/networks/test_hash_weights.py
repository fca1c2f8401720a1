"""The formula of the hash weights, against Python's own integers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from medmargin.networks.hash_weights import hash_state, hash_uniform
from medmargin.networks.prompt_encoder import PromptEncoder


def _one(k: int, n: int) -> float:
    x = (n * 6364136223846793005 + (k + 1) * 1442695040888963407) % 2**64
    x ^= x >> 33
    x = x * 0xFF51AFD7ED558CCD % 2**64
    x ^= x >> 33
    return (x >> 11) / 2**53


@pytest.mark.parametrize("k", [0, 1, 434, 2000, 10**9])
def test_uniform_values_equal_those_of_unbounded_integers(k: int) -> None:
    assert hash_uniform(k, 1000).tolist() == [_one(k, n) for n in range(1000)]


def test_every_kind_of_tensor_follows_its_rule() -> None:
    network = nn.Module()
    network.pe = PromptEncoder(dim=8, mask_channels=4).pe_layer
    network.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    state = hash_state(network)
    names = sorted(state)

    def centred(name: str) -> torch.Tensor:
        like = state[name]
        values = [2 * _one(names.index(name), n) - 1 for n in range(like.numel())]
        return torch.tensor(values, dtype=torch.float64).reshape(like.shape)

    matrix = "pe.positional_encoding_gaussian_matrix"
    rules = {
        "layers.0.weight": math.sqrt(3) * centred("layers.0.weight") / math.sqrt(27),
        "layers.0.bias": 0.1 * centred("layers.0.bias"),
        "layers.1.weight": 1 + 0.1 * centred("layers.1.weight"),
        "layers.1.running_mean": 0.1 * centred("layers.1.running_mean"),
        "layers.1.running_var": 1 + 0.5 * (centred("layers.1.running_var") + 1) / 2,
        "layers.1.num_batches_tracked": torch.tensor(0),
        matrix: math.sqrt(3) * centred(matrix),
    }
    for name, expected in rules.items():
        torch.testing.assert_close(state[name], expected.to(state[name].dtype), msg=name)
    assert state[matrix].dtype == torch.float32
    network.load_state_dict(state)
