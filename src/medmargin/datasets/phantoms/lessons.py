"""Which generated objects teach something, and in which colours they are shown."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.phantoms.noise import Picture, smooth_noise
from medmargin.datasets.phantoms.pictures import random_picture

_COLOUR_SHARE = 0.35
_SMALLEST_SIDE = 3  # pixels
_RING = 0.12  # width of the surroundings an object is compared with, as a fraction of its longest side
_CLEAR = 0.9  # contrast-to-noise ratio from which every object is shown
_FAINT_SHARE = 0.05  # share of the objects without any contrast that are shown all the same
_SPARSE = 0.25  # share of its box below which an object counts as sparse: rings, trees, scattered parts ...
_SPARSE_SHARE = 0.4  # ... of which only this share is shown


def lesson(
    rng: np.random.Generator, *, sizes: tuple[int, ...] = (96, 128, 160)
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw a picture and one object in it that is worth showing.

    Args:
        rng: source of every random choice. sizes: sides of the pictures in pixels.

    Returns:
        picture [size, size] or [size, size, 3] float32, and the object's mask [size, size].
    """
    while True:
        picture, labels = coloured_picture(rng, size=int(rng.choice(sizes)))
        for value in rng.permutation(np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1)[:4]:
            mask = labels == value
            if is_instructive(picture, mask, rng):
                return picture, mask


def coloured_picture(
    rng: np.random.Generator, *, size: int = 128, colour: float = _COLOUR_SHARE
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Generate a picture and show a share of them in colour.

    Args:
        rng: source of every random choice. size: side in pixels.
        colour: probability of a picture in three channels.

    Returns:
        picture [size, size] or [size, size, 3] float32, labels [size, size] uint8.
    """
    picture, labels = random_picture(rng, size=size)
    return (_tinted(picture, rng) if rng.random() < colour else picture), labels


def is_instructive(picture: NDArray, mask: NDArray[np.bool_], rng: np.random.Generator) -> bool:
    """Decide whether to show an object: always where its contrast is clear, rarely where it has none or is sparse.

    A generator that draws every contrast draws many objects that nobody can see; they teach a network to answer every
    box with an ellipse. Contrast is |mean inside - mean around| over the root mean variance of both.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    if min(height, width) < _SMALLEST_SIDE:
        return False
    if np.count_nonzero(mask) < _SPARSE * height * width and rng.random() > _SPARSE_SHARE:
        return False
    reach = max(int(_RING * max(height, width)), 2)
    inside = mask.astype(np.uint8)
    around = cv2.dilate(inside, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) - inside
    grey = picture if picture.ndim == 2 else picture.mean(axis=2)
    within, beside = grey[inside > 0], grey[around > 0]
    if not beside.size:
        return False
    noise = np.sqrt(0.5 * (within.var() + beside.var())) + 1e-6
    return bool(rng.random() < _FAINT_SHARE + abs(within.mean() - beside.mean()) / noise / _CLEAR)


def _tinted(picture: Picture, rng: np.random.Generator) -> NDArray[np.float32]:
    """Give each channel its own gamma, range and, sometimes, shading: stained tissue, mucosa, fundus."""
    low, high = float(picture.min()), float(picture.max())
    grey = (picture - low) / max(high - low, 1e-6)
    channels = []
    is_shaded = rng.random() < 0.4
    for _ in range(3):
        span = rng.uniform(0.3, 1.0)
        channel = span * grey ** float(np.exp(rng.normal(0, 0.35))) + rng.uniform(0, 0.5) * (1 - span)
        if is_shaded:
            channel = channel + 0.15 * smooth_noise(rng, len(picture), cells=3)
        channels.append(channel)
    return np.stack(channels, axis=2).astype(np.float32)
