"""Local temperature scaling: a temperature for every voxel, predicted from its logits and the image.

Ding et al. 2021, arXiv:2008.05105, eq. 6 and fig. 2; weights are named as in uncbiag/LTS.

Deviations: with `per_image` (the paper's image-based variant, IBTS) the temperature is averaged over each image. The
released code averages over the whole batch, so that an image's answer depends on its neighbours; `released=True` does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALLEST = 1e-8


class LocalTemperature(nn.Module):
    """Mix four temperature maps by three gates as a two-level tree, and the result with a map of the image.

    T = ReLU(t + 1) + 1e-8 with t = g t_logits + (1 - g) t_image. All weights start at zero, which gives T = 2.

    Args:
        num_classes: K, channels of the logits.
        image_channels: channels of the image.
        dims: 2 or 3.
        per_image: one temperature per image instead of one per voxel.
        released: see the module's deviations.
    """

    def __init__(
        self, num_classes: int, image_channels: int, *, dims: int = 2, per_image: bool = False, released: bool = False
    ) -> None:
        super().__init__()
        self.per_image, self.released = per_image, released
        for index in (1, 2, 3, 4):
            setattr(self, f"temperature_level_2_conv{index}", _zero_convolution(num_classes, dims))
        for index in (1, 2, 3):
            setattr(self, f"temperature_level_2_param{index}", _zero_convolution(num_classes, dims))
        self.temperature_level_2_conv_img = _zero_convolution(image_channels, dims)
        self.temperature_level_2_param_img = _zero_convolution(num_classes, dims)

    def temperature(self, logits: Tensor, image: Tensor) -> Tensor:
        """Predict the temperature.

        Args:
            logits: [B, K, *spatial] float32; every side is longer than 4 (the reflected border).
            image: [B, C, *spatial] on the same grid.

        Returns:
            [B, 1, *spatial] > 0, or [B, 1, 1, ..] with `per_image`.
        """
        maps = [getattr(self, f"temperature_level_2_conv{index}")(logits) + 1.0 for index in (1, 2, 3, 4)]
        gates = [torch.sigmoid(getattr(self, f"temperature_level_2_param{index}")(logits)) for index in (1, 2, 3)]
        of_logits = _mix(gates[2], _mix(gates[0], maps[0], maps[1]), _mix(gates[1], maps[2], maps[3]))
        of_image = self.temperature_level_2_conv_img(image) + 1.0
        mixed = _mix(torch.sigmoid(self.temperature_level_2_param_img(logits)), of_logits, of_image)
        if self.per_image:
            axes: Sequence[int] = range(0 if self.released else 1, mixed.ndim)
            mixed = mixed.mean(dim=list(axes), keepdim=True).expand(mixed.shape[0], *[1] * (mixed.ndim - 1))
        return F.relu(mixed + 1.0) + _SMALLEST

    def forward(self, logits: Tensor, image: Tensor) -> Tensor:
        """Divide the logits by the temperature: [B, K, *spatial], the same class stays the largest."""
        return logits / self.temperature(logits, image)


def _zero_convolution(channels: int, dims: int) -> nn.Module:
    convolution = nn.Conv2d if dims == 2 else nn.Conv3d
    layer = convolution(channels, 1, kernel_size=5, padding=4, padding_mode="reflect", dilation=2)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _mix(gate: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return gate * first + (1.0 - gate) * second
