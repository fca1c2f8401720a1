"""NumPy arrays as volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmargin.errors import ConfigError, DataError
from medmargin.imaging.volume import Volume, checked_grid


def from_array(
    array: NDArray[Any],
    *,
    affine: ArrayLike | None = None,
    spacing: tuple[float, ...] | None = None,
    dims: int | None = None,
    source: Path | None = None,
) -> Volume:
    """Make a volume of a NumPy array.

    Args:
        array: dims 3: [I, J, K] or [C, I, J, K]; dims 2: rows of pixels [H, W] or [H, W, C].
        affine: [4, 4], voxel index -> RAS+ mm.
        spacing: voxel size along (i, j, k), or (x, y) of a picture, in mm; instead of `affine`.
        dims: 2 or 3; by default 2 where `array` has two axes. Without affine and spacing the unit is pixels.
        source: what error messages name.

    Raises:
        ConfigError: both affine and spacing, or a number of axes that does not fit `dims`.
        DataError: not a numeric array.
        GeometryError: an impossible affine or spacing.
    """
    array = np.asarray(array)
    dims = (2 if array.ndim == 2 else 3) if dims is None else dims
    if affine is not None and spacing is not None:
        raise ConfigError("give either affine or spacing, not both")
    if dims not in (2, 3) or array.ndim not in (dims, dims + 1):
        raise ConfigError(
            f"an array of shape {array.shape} is no image with dims={dims}. Expected [H, W] or [H, W, C] with dims=2, "
            "[I, J, K] or [C, I, J, K] with dims=3."
        )
    if array.dtype.kind not in "uifb":
        raise DataError(f"{source or 'array'}: holds {array.dtype}. Expected whole or real numbers.")
    voxels = rows_to_voxels(array) if dims == 2 else array[(None,) * (4 - array.ndim)]
    if spacing is not None:
        if len(spacing) != dims:
            raise ConfigError(f"spacing {spacing} has {len(spacing)} numbers. Expected {dims}.")
        affine = np.diag([*spacing, 1.0, 1.0][:4] if dims == 2 else [*spacing, 1.0])
    unit = "px" if affine is None else "mm"
    grid = checked_grid(voxels.shape[1:], np.eye(4) if affine is None else affine, unit=unit, source=source or "array")
    return Volume(voxels.astype(np.uint8) if voxels.dtype == bool else voxels, grid, dims, source)


def rows_to_voxels(pixels: NDArray[Any]) -> NDArray[Any]:
    """Turn rows of pixels, [H, W] or [H, W, C], into [C, x (column), y (row), 1]; a view."""
    colours = pixels if pixels.ndim == 3 else pixels[..., None]
    return colours.transpose(2, 1, 0)[..., None]
