"""The box around a mask, so that work on a structure looks at its surroundings only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def box_around(mask: NDArray[np.bool_], margins: Sequence[int] | None = None) -> tuple[slice, ...] | None:
    """Find the smallest box that holds a mask of any dimensions; None where the mask is empty.

    Args:
        margins: voxels per axis by which the box is wider on either side, where the image has them; None: none.
    """
    box = []
    for axis, margin in enumerate(margins or (0,) * mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        if not found.size:
            return None
        box.append(slice(max(0, int(found[0]) - margin), min(mask.shape[axis], int(found[-1]) + 1 + margin)))
    return tuple(box)
