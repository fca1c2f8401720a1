"""Random fields the phantoms are made of: coarse Gaussian grids brought to full size by cubic interpolation."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, size: int, *, cells: float, stretch: float = 1.0) -> Picture:
    """Draw a smooth field of about zero mean and unit variance.

    Args:
        size: side of the square field in pixels.
        cells: independent cells along a side (large = fine structure); at least 2 are used.
        stretch: ratio of the cells' width to their height (> 1: horizontal streaks).

    Returns:
        [size, size] float32.
    """
    rows = int(np.clip(round(cells * stretch**0.5), 2, size))
    columns = int(np.clip(round(cells / stretch**0.5), 2, size))
    coarse = rng.standard_normal((rows, columns), np.float32)
    if (rows, columns) == (size, size):
        return coarse
    # Interpolating independent values lowers their variance by about a third along each axis.
    return resample(coarse, size, size, interpolation=cv2.INTER_CUBIC) * np.float32(1.4)


def resample(picture: Picture, columns: int, rows: int, *, interpolation: int) -> Picture:
    """Bring a picture to `rows` x `columns` pixels with one of OpenCV's interpolations."""
    return cv2.resize(picture, (columns, rows), interpolation=interpolation).astype(np.float32, copy=False)


def fractal_noise(rng: np.random.Generator, size: int, *, cells: float, octaves: int, roughness: float) -> Picture:
    """Add `octaves` smooth fields, each twice as fine and `roughness` times as strong as the one before.

    Returns:
        [size, size] float32, about zero mean and unit variance.
    """
    weights = roughness ** np.arange(octaves)
    field = np.zeros((size, size), np.float32)
    for octave, weight in enumerate(weights / np.linalg.norm(weights)):
        field += np.float32(weight) * smooth_noise(rng, size, cells=cells * 2**octave)
    return field


def stripes(rng: np.random.Generator, size: int, *, period: float, waviness: float) -> Picture:
    """Draw wavy parallel stripes in a random direction.

    Args:
        period: distance of two crests in pixels.
        waviness: displacement of the crests in periods (one standard deviation).

    Returns:
        [size, size] float32 in [-1, 1].
    """
    angle = rng.uniform(0, np.pi)
    x = np.arange(size, dtype=np.float32)
    phase = (np.cos(angle) * x[None, :] + np.sin(angle) * x[:, None]) / period
    if waviness > 0:
        phase = phase + waviness * smooth_noise(rng, size, cells=3)
    return np.sin(2 * np.pi * phase + rng.uniform(0, 2 * np.pi)).astype(np.float32)


def blur(picture: Picture, width: float, *, height: float | None = None) -> Picture:
    """Smooth with a Gaussian of standard deviation `width` pixels (along the columns `height`, where it differs)."""
    smooth = cv2.GaussianBlur(picture, (0, 0), sigmaX=width, sigmaY=width if height is None else height)
    return smooth.astype(np.float32, copy=False)


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw log-uniformly between two positive numbers: every scale is equally likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
