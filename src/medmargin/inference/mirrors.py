"""Mirrors of what a network sees: the picture inside its padded input, and boxes and points with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medmargin.uncertainty.prompt_perturbation import Flip

Size = tuple[int, int]  # (height, width) of the picture inside the network input, before padding


def mirror_map(values: NDArray, flip: Flip, size: Size) -> NDArray:
    """Mirror the picture part of maps [..., S, S]; the padding stays at the bottom and right. Its own inverse."""
    if flip == "none":
        return values
    height, width = size
    mirrored = values.copy()
    picture = values[..., :height, :width]
    mirrored[..., :height, :width] = picture[..., ::-1] if flip == "horizontal" else picture[..., ::-1, :]
    return mirrored


def mirror_box(box: NDArray[np.float32], flip: Flip, size: Size) -> NDArray[np.float32]:
    """Mirror a box [4] (x_min, y_min, x_max, y_max), inclusive, in network pixels."""
    if flip == "none":
        return box
    corners = mirror_points(box.reshape(2, 2), flip, size)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def mirror_points(points: NDArray[np.float32], flip: Flip, size: Size) -> NDArray[np.float32]:
    """Mirror points [P, 2] (x, y) in network pixels."""
    if flip == "none":
        return points
    axis, length = (0, size[1]) if flip == "horizontal" else (1, size[0])
    mirrored = points.copy()
    mirrored[:, axis] = length - 1 - points[:, axis]
    return mirrored
