"""Gradient checkpointing that leaves batch-norm statistics as they would be without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """Apply `module` to `x`, keep none of its activations, and compute them again in the backward pass.

    Costs one more forward pass of the module. The second pass does not touch running statistics, so losses, gradients
    and buffers equal those of a plain call. Without gradients it is a plain call.
    """
    if not torch.is_grad_enabled():
        return module(x)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _frozen_statistics(module)

    return checkpoint(module, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Normalise by the batch, but leave running means, variances and counters as they are.

    Momentum 0 instead of `track_running_stats = False`: the second pass must save the same tensors as the first.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter
