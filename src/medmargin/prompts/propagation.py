"""The box of the next slice, from the mask of the one before (LiteMedSAM's way through a volume).

Baseline of the CVPR 2024 challenge "Segment Anything in Medical Images on Laptop"; Ma et al., arXiv:2412.16085.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from medmargin.transforms.frame import Frame


def mask_in_frame(mask: NDArray[np.uint8] | NDArray[np.bool_], frame: Frame) -> NDArray[np.uint8]:
    """Bring a binary mask to the network's grid as the published code does: by area averaging, rounded to 0 or 1.

    Args:
        mask: [H, W] in {0, 1} on the picture's grid.
        frame: window of the picture the network looks at.

    Returns:
        [frame.size, frame.size] uint8, zero outside the window.
    """
    height, width = frame.resized
    resized = cv2.resize(frame.window(mask.astype(np.uint8)), (width, height), interpolation=cv2.INTER_AREA)
    return np.pad(resized, ((0, frame.size - height), (0, frame.size - width)))


def next_box(
    mask: NDArray[np.uint8] | NDArray[np.bool_], frame: Frame, *, enlarge: int = 3
) -> NDArray[np.float32] | None:
    """Compute the box prompt of the next slice.

    Args:
        mask: [H, W] mask of the previous slice, in {0, 1}.
        frame: window the network looks at in the next slice.
        enlarge: free space on each side, in network pixels.

    Returns:
        [4] float32 (x_min, y_min, x_max, y_max) in network pixels, clipped to [0, frame.size] (the published code clips
        training boxes to size - 1, and these to size); None where the mask is empty inside the frame.
    """
    rows, columns = np.nonzero(mask_in_frame(mask, frame))
    if not rows.size:
        return None
    box = np.array([columns.min() - enlarge, rows.min() - enlarge, columns.max() + enlarge, rows.max() + enlarge])
    return box.clip(0, frame.size).astype(np.float32)
