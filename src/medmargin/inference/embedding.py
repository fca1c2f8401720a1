"""The network's own description of an image, by which an unfamiliar one can be told: its encoder's mean features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medmargin.inference.network import predicting
from medmargin.inference.stack import SliceStack
from medmargin.networks.sam_pixels import sam_input
from medmargin.transforms.frame import Frame

_SLICES = 8  # spread evenly over the volume


def image_embedding(network: nn.Module, stack: SliceStack, threads: int | None) -> NDArray[np.float64] | None:
    """Average the image encoder's feature map over space and over every k-th slice, at most 8 of them.

    Slices are seen whole and without prompts, one at a time.

    Args:
        network: with an `image_encoder` of pictures [B, 3, S, S]; None is answered for one without.
        stack: the slices. threads: of the network; None leaves torch's setting.

    Returns:
        [D], or None.
    """
    encoder = getattr(network, "image_encoder", None)
    if encoder is None:
        return None
    slices, height, width = stack.shape
    size = int(network.image_size)  # type: ignore[arg-type]
    frame, step = Frame.whole(height, width, size), -(-slices // _SLICES)
    found = []
    with predicting([network], threads):
        device = next(encoder.parameters()).device
        for index in range(step // 2, slices, step):
            image = torch.from_numpy(frame.image(stack.picture(index)))[None].to(device)
            if getattr(network, "pixels", "unit") != "unit":
                image = sam_input(255 * image, size)
            encoded = encoder(image)
            features = encoded if isinstance(encoded, torch.Tensor) else encoded.features  # [1, D, G, G]
            found.append(features.float().mean(dim=(2, 3))[0].cpu().numpy().astype(np.float64))
    return np.mean(found, axis=0)
