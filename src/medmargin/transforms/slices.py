"""What a promptable network sees of an image: 2-D slices of bytes, in training and in prediction alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError
from medmargin.transforms.intensity import normalised, to_bytes


def picture_slices(voxels: NDArray, *, modality: str, dims: int, name: str = "image") -> NDArray[np.uint8]:
    """Cut a normalised image into pictures along axis k.

    Args:
        voxels: [C, I, J, K] with C = 1 (grey) or 3 (colour, or three channels shown as colours); HU for CT.
        modality: `Task.modality`.
        dims: 2 for pictures, whose bytes are kept as they are; anything else is normalised whole (`intensity`).
        name: of the case, for the error.

    Returns:
        [K, H = J, W = I] uint8 for grey images, [K, H, W, 3] for colour.

    Raises:
        DataError: another number of channels.
    """
    if voxels.shape[0] not in (1, 3):
        raise DataError(
            f"{name}: {voxels.shape[0]} channels, but a promptable network looks at 1 (grey) or 3 (colour). "
            "Make a data set of the channel to outline the structure on."
        )
    is_shown = dims == 2 and voxels.dtype == np.uint8
    shown = voxels if is_shown else to_bytes(normalised(voxels, modality=modality))
    pictures = shown.transpose(3, 2, 1, 0)  # [K, J, I, C]
    return np.ascontiguousarray(pictures[..., 0] if shown.shape[0] == 1 else pictures)


def label_slices(labels: NDArray) -> NDArray:
    """Cut a label map [I, J, K] into label pictures [K, H = J, W = I] of the same dtype."""
    return np.ascontiguousarray(labels.transpose(2, 1, 0))
