"""Values of one grid at the voxel centres of another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.imaging.volume import Grid


def resample(values: NDArray[Any], *, source: Grid, target: Grid, order: int, fill: float = 0) -> NDArray[Any]:
    """Sample a volume at the voxel centres of another grid.

    Args:
        values: [I, J, K] on the grid `source`.
        order: 0 nearest neighbour (labels), 1 linear (images, probabilities).
        fill: value of target voxels outside `source`.

    Returns:
        [I', J', K'] on the grid `target`, in the dtype of `values` (rounded where that is whole numbers).
    """
    from scipy import ndimage  # slow to import, and only sheared or mismatched grids need it

    # Rounded, so that aligned axes are exact and the rim does not fall outside by floating-point noise.
    matrix = np.round(np.linalg.solve(source.affine, target.affine), 9)
    is_rounded = order > 0 and values.dtype.kind != "f"
    sampled = ndimage.affine_transform(
        values.astype(np.float32) if is_rounded else values,
        matrix[:3, :3],
        matrix[:3, 3],
        target.shape,
        order=order,
        mode="constant",
        cval=float(fill),
        prefilter=False,
    )
    return np.rint(sampled).astype(values.dtype) if is_rounded else sampled
