"""Grey PNG out, for label maps and maps of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from medmargin.errors import DataError
from medmargin.imaging.picture import SLOPE_KEY
from medmargin.storage import atomic_path


def write(path: Path, values: NDArray[Any], *, description: str = "", slope: float | None = None) -> None:
    """Write [x, y, 1] as a grey PNG of 8 or 16 bits.

    Args:
        values: uint8 or uint16.
        description: goes into the PNG's text.
        slope: factor `read_image` applies to the stored numbers; also in the text.

    Raises:
        DataError: values that need more than 16 bits.
    """
    if values.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path}: values up to {values.max()} do not fit into a PNG. Expected at most 65535; use .nii.gz."
        )
    text = PngImagePlugin.PngInfo()
    if description:
        text.add_itxt("Description", description)
    if slope is not None:
        text.add_text(SLOPE_KEY, repr(float(slope)))
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(values[..., 0].T)).save(temporary, format="PNG", pnginfo=text)
