"""The band of voxels around structures, where nearly all errors are: far background would drown them."""

from __future__ import annotations

from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

BAND_VOXELS = 3


def band(*label_maps: NDArray[Any], width: float = BAND_VOXELS) -> NDArray[np.bool_]:
    """Mark the voxels within `width` voxels of a voxel with another label, in any of the label maps.

    Both sides of every border belong to it. The edge of the image is no border, and a map with one label has none.

    Args:
        label_maps: integer maps [I, J, K] of one shape, for example truth and prediction.
        width: in voxels, whatever their size in mm.
    """
    marked = np.zeros(label_maps[0].shape, bool)
    for labels in label_maps:
        flat = np.atleast_1d(np.ascontiguousarray(labels.squeeze()))
        numbered = flat.astype(np.uint16) + 1  # from 1, so that background has borders
        distances = edt.edt(numbered, black_border=False, parallel=1)  # 1 for a voxel beside another label
        marked |= (distances <= width).reshape(marked.shape)
    return marked
