"""Which of several volumes in one file is meant, or whether they are channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError


def channel_first(path: Path, values: NDArray[Any], *, volume_index: int | None, channels: int | None) -> NDArray[Any]:
    """Bring [I, J(, K, ...)] to [C, I, J, K].

    Args:
        path: what error messages name.
        values: axes beyond the third are time or channels; those of length 1 are dropped.
        volume_index: which volume, counted over all further axes, the fourth running fastest.
        channels: number of channels, where the further axes are known to be channels.

    Raises:
        DataError: several volumes and no word which one is meant, or an index that does not exist.
    """
    spatial, extra = (*values.shape, 1)[:3], values.shape[3:]
    values = values.reshape(*spatial, -1, order="F")
    count = values.shape[3]
    if volume_index is not None and not 0 <= volume_index < count:
        raise DataError(f"{path}: has no volume {volume_index}. Expected an index from 0 to {count - 1}.")
    if volume_index is not None:
        values = values[..., volume_index : volume_index + 1]
    elif count not in (1, channels):
        raise DataError(
            f"{path}: holds {count} volumes (shape {spatial} + {extra}). Expected one: choose with --volume-index "
            "(volume_index=...), or name the channels if these are channels."
        )
    return np.moveaxis(values, -1, 0)
