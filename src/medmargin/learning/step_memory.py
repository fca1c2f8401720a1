"""Bytes that a training step of a network will hold, before it is run.

What convolutions write is counted on PyTorch's meta device, where nothing is computed; measured on a processor, peak
resident memory of training steps of U-Nets was 8.0 to 10.4 bytes per number in bfloat16 and 13.1 in 32-bit floats. On a
graphics card nnU-Net's published figure is taken (`datasets.planning.memory`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from medmargin.learning.engine import Precision

_BYTES: dict[Precision, float] = {"32-true": 13.0, "bf16-mixed": 10.0, "16-mixed": 10.0}
_CARD_BYTES: dict[Precision, float] = {"32-true": 12.5, "bf16-mixed": 7.3, "16-mixed": 7.3}
_STATE_BYTES = 16  # per weight: itself, its gradient, two moments
_PROCESS_BYTES = 2**29  # Python with torch; on a graphics card it lies in the other memory
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def step_bytes(
    network: nn.Module, patch: Sequence[int], batch_size: int, precision: Precision, *, on_card: bool
) -> int:
    """Estimate the bytes of a training step of a network that takes [B, C, *patch].

    Args:
        network: in training mode, with its attribute `channels`. on_card: train on a graphics card.
    """
    maps = activations(network, patch) * batch_size * (_CARD_BYTES if on_card else _BYTES)[precision]
    weights = sum(weight.numel() for weight in network.parameters())
    return int(maps + weights * _STATE_BYTES + (0 if on_card else _PROCESS_BYTES))


def activations(network: nn.Module, patch: Sequence[int]) -> int:
    """Count the numbers that the convolutions of a network write for one image [C, *patch]."""
    written = 0

    def count(module: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> None:
        nonlocal written
        written += found.numel()

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, _CONVOLUTIONS)]
    nowhere = {name: value.to("meta") for name, value in (*network.named_parameters(), *network.named_buffers())}
    try:
        functional_call(network, nowhere, (torch.empty((1, network.channels, *patch), device="meta"),))  # type: ignore[arg-type]
    finally:
        for hook in hooks:
            hook.remove()
    return written
