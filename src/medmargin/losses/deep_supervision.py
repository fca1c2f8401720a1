"""Deep supervision: how much each resolution of a decoder counts, and the labels it is held against.

Lee et al. 2015, arXiv:1409.5185, with the weights of nnU-Net 2 (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class DeepPrediction(Protocol):
    """What a loss reads of a network's `Prediction`: logits, and the same at lower resolutions, finest last, or ()."""

    logits: Tensor
    deep: tuple[Tensor, ...]


def deep_weights(outputs: int) -> list[float]:
    """Return the weight of each output, finest first: halved at each step down, the coarsest 0, the sum 1."""
    if outputs == 1:
        return [1.0]
    weights = [0.5**step for step in range(outputs - 1)]
    return [weight / sum(weights) for weight in weights] + [0.0]


def at_resolution(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Return labels [B, *spatial] at a lower resolution, [B, *size]: of each cell the voxel at its middle.

    Equation: index floor((i + 1/2) n / m) for cell i of m over n voxels; of two middle voxels the second.
    """
    for axis, cells in enumerate(size, start=1):
        voxels = labels.shape[axis]
        if cells != voxels:
            middles = (2 * torch.arange(cells, device=labels.device) + 1) * voxels // (2 * cells)
            labels = labels.index_select(axis, middles)
    return labels
