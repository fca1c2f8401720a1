"""Windows that slide over a volume, and what each of them has to say about the voxels it covers.

Isensee et al. 2021 (doi:10.1038/s41592-020-01008-z): neighbouring windows overlap by half, and a Gaussian of an eighth
of the window's side lets its centre, which has seen the most around it, count most.

Windows stand on the crossings of three axes, and the Gaussian is a product of three. So the weights of all windows add
up to a product too, and each window's share is known before the first one is run: a weighted mean needs no array of
weights beside it.

Deviation: the Gaussian is centred between the two middle voxels of an even side, not on the second of them, so that a
mirrored image gets the mirrored answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

_SIGMA = 1 / 8  # of the window's side


@dataclass(frozen=True, eq=False)
class WindowAxis:
    """Windows along one axis.

    Attributes:
        size: voxels of the image. window: voxels of a window.
        starts: first voxel of each window, negative where the image is smaller and lies in the window's middle.
        shares: [windows, window] float32, what each window counts at each of its voxels; those that cover one voxel add
            up to 1, and outside the image there is nothing to share.
    """

    size: int
    window: int
    starts: tuple[int, ...]
    shares: NDArray[np.float32]

    def touching(self, first: int, end: int) -> range:
        """Number the windows that cover any of the voxels `first` to `end` - 1."""
        found = [index for index, start in enumerate(self.starts) if start < end and start + self.window > first]
        return range(found[0], found[-1] + 1)


def window_axis(size: int, window: int, step: float) -> WindowAxis:
    """Spread windows evenly over an axis, `step` windows apart at most, the first and the last at its ends."""
    starts = window_starts(size, window, step)
    weights = gaussian_weights(window)
    covered = np.array(starts)[:, None] + np.arange(window)  # [windows, window]
    inside = (covered >= 0) & (covered < size)
    shares = np.where(inside, weights, 0)
    totals = np.bincount(covered[inside], shares[inside], minlength=size)
    shares[inside] /= totals[covered[inside]]
    return WindowAxis(size, window, starts, shares.astype(np.float32))


def window_axes(shape: Sequence[int], patch: Sequence[int], step: float) -> tuple[WindowAxis, WindowAxis, WindowAxis]:
    """Lay windows [d, h, w] over an image [D, H, W]."""
    depth, height, width = (window_axis(size, window, step) for size, window in zip(shape, patch, strict=True))
    return depth, height, width


def window_starts(size: int, window: int, step: float) -> tuple[int, ...]:
    """Give the first voxels of the windows of an axis."""
    if size <= window:
        return (-((window - size) // 2),)
    last = size - window
    intervals = ceil(last / max(window * step, 1))
    return tuple(round(last * index / intervals) for index in range(intervals + 1))


def gaussian_weights(window: int) -> NDArray[np.float64]:
    """Weigh the voxels of a window along one axis: [window], 1 in its middle."""
    distances = np.arange(window) - (window - 1) / 2
    return np.exp(-0.5 * (distances / (window * _SIGMA)) ** 2)
