"""Layer normalisation over the channels of a feature map, as Segment Anything uses it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    """Normalise each pixel of [B, C, H, W] over its C channels, with a learned scale and shift.

    Args:
        channels: C.
        eps: added to the variance; Segment Anything uses 1e-6.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # written out in the published order, so that the authors' numbers come back to the last digit
        centred = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        centred = centred - centred.mean(1, keepdim=True)
        normalised = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + self.eps)
        return (self.weight[:, None, None] * normalised + self.bias[:, None, None]).to(self.weight.dtype)
