"""Gradient checkpointing changes memory and time, nothing else."""

from __future__ import annotations

import copy

import torch
from torch import nn

from medmargin.networks.blocks.checkpointing import recomputed


def _block() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.BatchNorm2d(4, momentum=None))


def _step(block: nn.Module, *, checkpointing: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        out = recomputed(block, image) if checkpointing else block(image)
        out.pow(2).sum().backward()
    return [weight.grad for weight in block.parameters() if weight.grad is not None], list(block.buffers())


def test_gradients_and_statistics_equal_those_of_a_plain_call() -> None:
    plain, checkpointed = _block(), _block()
    for found, expected in zip(_step(checkpointed, checkpointing=True), _step(plain, checkpointing=False), strict=True):
        assert found
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_evaluation_mode_uses_the_running_statistics() -> None:
    block = _block().eval()
    other = copy.deepcopy(block)
    for found, expected in zip(_step(block, checkpointing=True), _step(other, checkpointing=False), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_batch_norm_is_left_as_it_was_found() -> None:
    block = _block()
    before = [(part.momentum, part.num_batches_tracked) for part in block if isinstance(part, nn.BatchNorm2d)]
    _step(block, checkpointing=True)
    after = [(part.momentum, part.num_batches_tracked) for part in block if isinstance(part, nn.BatchNorm2d)]
    assert all(a[0] == b[0] and a[1] is b[1] for a, b in zip(after, before, strict=True))
    assert int(block[1].num_batches_tracked) == 3


def test_nothing_is_recomputed_without_gradients() -> None:
    calls = []
    block = nn.Conv2d(3, 3, 1)
    block.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        assert not recomputed(block, torch.randn(1, 3, 4, 4)).requires_grad
    assert len(calls) == 1


def test_a_pass_that_tracks_nothing_can_be_recomputed() -> None:
    """Sharpness-aware minimisation turns tracking off in its second pass."""
    block = _block()
    for part in block:
        if isinstance(part, nn.BatchNorm2d):
            part.track_running_stats = False
    before = [buffer.clone() for buffer in block.buffers()]
    gradients, after = _step(block, checkpointing=True)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
