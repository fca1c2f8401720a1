"""Whole-image intensity normalisation, as the MedSAM-on-laptop challenge prepares its images.

CT: window level 40, width 400 HU. Everything else: clip to the 0.5 and 99.5 percentiles of the non-zero voxels.
Source: CVPR24 "Segment Anything in Medical Images on Laptop" baseline, `pre_CT_MR.py` (Ma et al., arXiv:2412.16085).

Deviations: the CT window maps -160..240 HU to 0..1 for every patient; the original stretches each image's own extremes
after clipping, so that the same tissue changes its value when an image holds no air or no bone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CT_LEVEL, CT_WIDTH = 40.0, 400.0
"""Window of the challenge's CT images in HU (soft tissue)."""


def windowed(voxels: NDArray, *, level: float = CT_LEVEL, width: float = CT_WIDTH) -> NDArray[np.float32]:
    """Map level - width/2 .. level + width/2 to 0..1 and clip.

    Args:
        voxels: any shape, HU.
        level, width: of the window in HU; width > 0.
    """
    low = level - width / 2
    return np.clip((voxels.astype(np.float32) - np.float32(low)) / np.float32(width), 0, 1)


def percentile_stretched(voxels: NDArray, *, low: float = 0.5, high: float = 99.5) -> NDArray[np.float32]:
    """Map the `low` .. `high` percentiles of the non-zero voxels to 0..1 and clip; voxels of exactly 0 stay 0.

    Args:
        voxels: any shape, any unit.
        low, high: percentiles in 0..100.

    Returns:
        float32 in [0, 1]; 0 everywhere where the non-zero voxels are constant or missing.
    """
    signal = voxels[voxels != 0]
    if signal.size == 0:
        return np.zeros(voxels.shape, np.float32)
    bottom, top = (float(value) for value in np.percentile(signal, (low, high)))
    if top <= bottom:
        return np.zeros(voxels.shape, np.float32)
    stretched = np.clip((voxels.astype(np.float64) - bottom) / (top - bottom), 0, 1)
    return np.where(voxels != 0, stretched, 0).astype(np.float32)


def normalised(voxels: NDArray, *, modality: str) -> NDArray[np.float32]:
    """Normalise a whole image to [0, 1]: the CT window for "CT", percentiles per channel for anything else.

    Args:
        voxels: [C, *spatial], HU for CT.
        modality: `Task.modality`.
    """
    if modality.upper() == "CT":
        return windowed(voxels)
    return np.stack([percentile_stretched(channel) for channel in voxels])


def unit_range(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map the smallest value to 0 and the largest to 1, as LiteMedSAM does with each network input.

    Args:
        values: any shape. What differs by rounding only, a millionth of the values, is constant and becomes 0.
    """
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return np.zeros(values.shape, np.float32)
    return ((values - np.float32(low)) / np.float32(high - low)).astype(np.float32, copy=False)


def to_bytes(unit: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Store values in [0, 1] as 0..255, as the challenge's files do (truncating, like its `uint8` cast)."""
    return (unit * np.float32(255)).astype(np.uint8)
