"""Batch normalisation that uses the batch but remembers nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def frozen_batch_norm_statistics(module: nn.Module, *, count_batches: bool = False) -> Iterator[None]:
    """Keep running means and variances as they are, while layers in training mode still normalise by the batch.

    Args:
        module: any network; layers in evaluation mode keep normalising by their statistics.
        count_batches: the released sharpness-aware code sets the momentum to 0, so that `num_batches_tracked` goes on
            counting; True repeats that. The default keeps the counter too, which layers without momentum
            (cumulative averages) need.
    """
    attribute, frozen = ("momentum", 0.0) if count_batches else ("track_running_stats", False)
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    before = [getattr(layer, attribute) for layer in layers]
    for layer in layers:
        setattr(layer, attribute, frozen)
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            setattr(layer, attribute, value)
