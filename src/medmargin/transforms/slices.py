"""What a promptable network sees of an image: 2-D slices of bytes, in training and in prediction alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError
from medmargin.transforms.intensity import normalised, to_bytes


def shown(voxels: NDArray, *, modality: str, dims: int) -> NDArray[np.uint8]:
    """Turn a whole image into the bytes that are shown to a network.

    Args:
        voxels: [C, I, J, K]; HU for CT.
        modality: `Task.modality`.
        dims: 2 for pictures, whose bytes are kept as they are; anything else is normalised whole (`intensity`).

    Returns:
        [C, I, J, K] uint8.
    """
    is_shown_already = dims == 2 and voxels.dtype == np.uint8
    return voxels if is_shown_already else to_bytes(normalised(voxels, modality=modality))


def slice_axes(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the axes (x, y, through) of the slices of a grid: through k, or through the only axis of length 1."""
    single = [axis for axis, length in enumerate(shape) if length == 1]
    through = single[0] if len(single) == 1 else 2
    x, y = (axis for axis in range(3) if axis != through)
    return x, y, through


def picture_slices(voxels: NDArray[np.uint8], *, name: str = "image") -> NDArray[np.uint8]:
    """Cut an image into pictures.

    Args:
        voxels: [C, I, J, K] with C = 1 (grey) or 3 (colour, or three channels shown as colours).
        name: of the case, for the error.

    Returns:
        [slices, H, W] for grey images, [slices, H, W, 3] for colour; x runs along W, y along H.

    Raises:
        DataError: another number of channels.
    """
    if voxels.shape[0] not in (1, 3):
        raise DataError(
            f"{name}: {voxels.shape[0]} channels, but a promptable network looks at 1 (grey) or 3 (colour). "
            "Make a data set of the channel to outline the structure on."
        )
    pictures = np.stack([label_slices(channel) for channel in voxels], axis=-1)
    return pictures[..., 0] if voxels.shape[0] == 1 else pictures


def label_slices(labels: NDArray) -> NDArray:
    """Cut a label map [I, J, K] into label pictures [slices, H, W] of the same dtype."""
    i, j, k = labels.shape
    x, y, through = slice_axes((i, j, k))
    return np.ascontiguousarray(labels.transpose(through, y, x))
