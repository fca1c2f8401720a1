"""Whether an image holds anything to segment: voxels that are numbers, and more than one value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medmargin.errors import DataError
from medmargin.imaging.volume import Volume

LARGEST_REPAIRED_SHARE = 0.01


def finite_image(volume: Volume) -> Volume:
    """Replace the few voxels that are not finite by the smallest finite value, with a warning.

    Raises:
        DataError: 1 % of the voxels or more are NaN or infinite.
    """
    if volume.voxels.dtype.kind != "f":
        return volume
    finite = np.isfinite(volume.voxels)
    count = finite.size - int(np.count_nonzero(finite))
    if count == 0:
        return volume
    found = f"{volume.source or 'array'}: {count} of {finite.size} voxels are NaN or infinite"
    if count >= LARGEST_REPAIRED_SHARE * finite.size:
        raise DataError(f"{found}. Expected less than {LARGEST_REPAIRED_SHARE:.0%}; export the image again.")
    smallest = volume.voxels[finite].min()
    warning = f"{found}; replaced by the smallest value {float(smallest):g}"
    return replace(volume, voxels=np.where(finite, volume.voxels, smallest), warnings=(*volume.warnings, warning))


def require_signal(volume: Volume) -> None:
    """Refuse an image in which every channel is constant.

    Raises:
        DataError: there is nothing to see.
    """
    channels = volume.voxels.reshape(volume.channels, -1)
    if channels.size == 0 or (channels.min(axis=1) == channels.max(axis=1)).all():
        value = channels.flat[0] if channels.size else "none"
        raise DataError(f"{volume.source or 'array'}: no signal, every voxel has the value {value}. Expected an image.")
