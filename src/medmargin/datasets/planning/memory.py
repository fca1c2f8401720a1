"""Bytes that training and prediction with a planned network hold, and refusal before the start.

"mixed": nnU-Net's published reference, networks of 560 million activations per sample at batch 2 (3-D) and of 85
million at batch 12 (2-D) in 8 GB of a graphics card; without weights, gradients and momentum 7.3 bytes are left for an
activation. "float32": peak resident memory of training steps of plain U-Nets on a processor in torch, 11.6 to 15.8
bytes for an activation (the more, the smaller the network).
"""

from __future__ import annotations

from collections.abc import Sequence

from medmargin.datasets.planning.unet import UNetShape
from medmargin.errors import BudgetError

_ACTIVATION_BYTES = {"mixed": 7.3, "float32": 12.5}
_PREDICTED_BYTES = {"mixed": 2, "float32": 4}
_STATE_BYTES = 12  # per weight: itself, its gradient, its momentum
_PROCESS_BYTES = {"mixed": 0, "float32": 2**29}  # Python with torch; on a graphics card it lies in the other memory
PRECISIONS = tuple(_ACTIVATION_BYTES)


def training_bytes(network: UNetShape, patch: Sequence[int], batch_size: int, precision: str) -> int:
    """Estimate the bytes of a training step: feature maps and their gradients, weights, their gradients, momentum."""
    maps = batch_size * network.activations(patch) * _ACTIVATION_BYTES[precision]
    return int(maps + network.parameters() * _STATE_BYTES + _PROCESS_BYTES[precision])


def samples_that_fit(network: UNetShape, patch: Sequence[int], memory: int, precision: str) -> int:
    """Count the samples of a batch whose training fits into `memory` bytes; 0 where not even one does."""
    free = memory - training_bytes(network, patch, 0, precision)
    return max(int(free // (network.activations(patch) * _ACTIVATION_BYTES[precision])), 0)


def prediction_bytes(network: UNetShape, patch: Sequence[int], voxels: int, precision: str) -> int:
    """Estimate the bytes of predicting one case: one patch in the network, the image and the class scores of all of it.

    Args:
        patch: of the sliding window. voxels: of the image at the plan's spacing, padded to the patch.
    """
    maps = network.live_in_prediction(patch) * _PREDICTED_BYTES[precision]
    held = voxels * 4 * (network.channels + network.classes + 1)  # image, scores, and the weights of overlaps
    return int(maps + held + network.parameters() * 4 + _PROCESS_BYTES[precision])


def require_memory(needed: int, available: int, *, what: str, cure: str) -> None:
    """Refuse work that does not fit, before it starts.

    Raises:
        BudgetError: `needed` bytes are more than `available`; the message holds the estimate and the cure.
    """
    if needed > available:
        allowed = gigabytes(available)
        raise BudgetError(f"{what} needs about {gigabytes(needed)}, more than the {allowed} allowed. {cure}")


def gigabytes(amount: float) -> str:
    """Write bytes as GB (2**30)."""
    return f"{amount / 2**30:.2f} GB"
