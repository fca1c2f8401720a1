"""Frozen batch-norm statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medmargin.optim.running_statistics import frozen_batch_norm_statistics

X = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def _buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.named_buffers()}


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_batch_normalises_but_leaves_no_trace(momentum: float | None) -> None:
    layer = nn.BatchNorm2d(3, momentum=momentum)
    layer(X)
    before = _buffers(layer)
    with frozen_batch_norm_statistics(layer):
        output = layer(5 * X + 2)
    assert all(torch.equal(value, before[name]) for name, value in layer.named_buffers())
    torch.testing.assert_close(output.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    layer(X)
    assert layer.num_batches_tracked == before["num_batches_tracked"] + 1
    assert momentum is None or not torch.equal(layer.running_mean, before["running_mean"])


def test_the_released_behaviour_keeps_counting() -> None:
    layer = nn.BatchNorm2d(3)
    before = _buffers(layer)
    with frozen_batch_norm_statistics(layer, count_batches=True):
        layer(X)
    assert layer.num_batches_tracked == 1
    assert torch.equal(layer.running_mean, before["running_mean"])
    assert layer.momentum == 0.1


def test_layers_in_evaluation_mode_keep_using_their_statistics() -> None:
    layer = nn.BatchNorm2d(3).eval()
    layer.running_mean.fill_(7)
    expected = layer(X)
    with frozen_batch_norm_statistics(layer):
        assert torch.equal(layer(X), expected)


def test_everything_is_as_before_after_an_error() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)))
    with pytest.raises(KeyError), frozen_batch_norm_statistics(network):
        raise KeyError
    assert network[0].track_running_stats
    assert not network[1][0].track_running_stats
