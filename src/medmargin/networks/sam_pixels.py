"""Pixels before and masks after Segment Anything's own weights (images of 0..255, mean and standard deviation).

Kirillov et al. 2023, arXiv:2304.02643. MedSAM and LiteMedSAM want images in [0, 1] instead: see `transforms.Frame`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PIXEL_MEAN = (123.675, 116.28, 103.53)  # RGB, ImageNet
PIXEL_STD = (58.395, 57.12, 57.375)


def sam_input(image: Tensor, image_size: int) -> Tensor:
    """Normalise and pad an image whose longest side is already `image_size`.

    Args:
        image: [B, 3, H, W] RGB in 0..255.
        image_size: side of the network input in pixels.

    Returns:
        [B, 3, image_size, image_size]; the padding at the bottom and right is 0 after normalisation.
    """
    mean, std = (torch.tensor(values, device=image.device).reshape(1, 3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    height, width = image.shape[-2:]
    return F.pad((image - mean) / std, (0, image_size - width, 0, image_size - height))


def restore_logits(logits: Tensor, *, crop: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Cut the padding off mask logits and bring them to the size of the original picture.

    Args:
        logits: [N, K, S, S] on the grid of the network input.
        crop: (height, width) of the picture inside the network input.
        size: (height, width) of the original picture.

    Returns:
        [N, K, *size] logits, bilinear with half-pixel centres.
    """
    return F.interpolate(logits[..., : crop[0], : crop[1]], size, mode="bilinear", align_corners=False)
