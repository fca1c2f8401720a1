"""Distance maps of masks, made in the data loader: after every flip or crop, never inside the training step.

Distances are Euclidean, in pixels, from a pixel centre to the nearest pixel centre of the other class. A mask that is
empty or fills the image has no border to measure from: unless stated otherwise its map carries no distance (all 0, or
weight 1).

Sources: penalty map Caliva et al. 2019, arXiv:1908.03679; signed map Kervadec et al. 2019, arXiv:1812.07032;
unsigned map Karimi & Salcudean 2019, arXiv:1904.10030.
"""

from __future__ import annotations

import edt
import numpy as np
from numpy.typing import NDArray


def penalty_weights(mask: NDArray) -> NDArray[np.float32]:
    """Return 1 + D: 2 on both sides of the border, falling to 1 at the deepest pixel of either class.

    Args:
        mask: [*spatial], 2-D or 3-D, non-zero inside the structure.

    Equation: on each class D = (max d - d) / max(max d - d), d = distance to the other class; a class without depth
    (all its pixels touch the border) has D = 0.
    """
    inside, outside = _distances(mask)
    return np.float32(1) + _closeness(inside) + _closeness(outside)


def signed_distance(mask: NDArray) -> NDArray[np.float32]:
    """Return the signed distance: positive outside, negative inside, 0 on the structure's outermost pixels.

    Args:
        mask: [*spatial], 2-D or 3-D, non-zero inside the structure.
    """
    inside, outside = _distances(mask)
    signed = outside - inside
    signed[inside == 1] = 0
    return signed


def border_distance(mask: NDArray) -> NDArray[np.float32]:
    """Return the signed distance to the line between the classes: 0.5 on its outer side, -0.5 on its inner side.

    Without a border everything is as far away as the image is long: the diagonal, negative if the mask is full.

    Args:
        mask: [*spatial], 2-D or 3-D, non-zero inside the structure.
    """
    inside, outside = _distances(mask)
    if not inside.any():
        diagonal = np.linalg.norm(np.shape(mask))
        return np.where(mask, -diagonal, diagonal).astype(np.float32)
    return np.where(inside > 0, np.float32(0.5) - inside, outside - np.float32(0.5))


def unsigned_distance(mask: NDArray) -> NDArray[np.float32]:
    """Return the distance of every pixel to the other class.

    Args:
        mask: [*spatial], 2-D or 3-D, non-zero inside the structure.
    """
    inside, outside = _distances(mask)
    return inside + outside


def _distances(mask: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the distance to the other class for the pixels of the mask and of its complement, 0 elsewhere."""
    foreground = np.ascontiguousarray(mask, dtype=bool)
    if foreground.all() or not foreground.any():
        nothing = np.zeros(foreground.shape, np.float32)
        return nothing, nothing.copy()
    return edt.edt(foreground, parallel=1), edt.edt(~foreground, parallel=1)


def _closeness(distance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return D of one class: 1 next to the border, 0 at its deepest pixel and on the other class."""
    of_class = distance > 0
    closeness = np.where(of_class, distance.max() - distance, 0)
    peak = closeness.max()
    return closeness / peak if peak > 0 else closeness
