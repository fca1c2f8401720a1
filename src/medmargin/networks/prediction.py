"""`Prediction`: what every network of the house returns for a batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Prediction:
    """Network outputs by name, never a bare tuple.

    Attributes:
        logits: [B, K, *spatial] before sigmoid or softmax.
        quality: [B, K] predicted IoU of each mask, where the network estimates it.
        evidence: [B, K, *spatial] >= 0, where the network is evidential.
        edges: [B, 2, *spatial] edge logits.
        deep: further logits at lower resolution (deep supervision), finest last.
        samples: [S, B, K, *spatial] logits of several draws.
        embedding: [B, C, *grid] image embedding.
    """

    logits: Tensor
    quality: Tensor | None = None
    evidence: Tensor | None = None
    edges: Tensor | None = None
    deep: tuple[Tensor, ...] = ()
    samples: Tensor | None = None
    embedding: Tensor | None = None
