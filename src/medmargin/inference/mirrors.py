"""Mirrors of what a network sees: the picture inside its padded input, and boxes and points with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medmargin.uncertainty.estimators import Mirror

Size = tuple[int, int]  # (height, width) of the picture inside the network input, before padding

_IN_X, _IN_Y = ("horizontal", "both"), ("vertical", "both")


def mirror_map(values: NDArray, flip: Mirror, size: Size) -> NDArray:
    """Mirror the picture part of maps [..., S, S]; the padding stays at the bottom and right. Its own inverse."""
    if flip == "none":
        return values
    height, width = size
    mirrored = values.copy()
    columns, rows = slice(None, None, -1 if flip in _IN_X else 1), slice(None, None, -1 if flip in _IN_Y else 1)
    mirrored[..., :height, :width] = values[..., :height, :width][..., rows, columns]
    return mirrored


def mirror_box(box: NDArray[np.float32], flip: Mirror, size: Size) -> NDArray[np.float32]:
    """Mirror a box [4] (x_min, y_min, x_max, y_max), inclusive, in network pixels."""
    if flip == "none":
        return box
    corners = mirror_points(box.reshape(2, 2), flip, size)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def mirror_points(points: NDArray[np.float32], flip: Mirror, size: Size) -> NDArray[np.float32]:
    """Mirror points [P, 2] (x, y) in network pixels."""
    if flip == "none":
        return points
    height, width = size
    mirrored = points.copy()
    if flip in _IN_X:
        mirrored[:, 0] = width - 1 - points[:, 0]
    if flip in _IN_Y:
        mirrored[:, 1] = height - 1 - points[:, 1]
    return mirrored
