"""TIFF pages in, with the stored bit depth: tifffile knows the structure, OpenCV the packings tifffile lacks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from medmargin.errors import DataError
from medmargin.imaging.decoding import decoding
from medmargin.imaging.expansion import refuse_bomb
from medmargin.imaging.picture import paletted, swapped

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs every oddity that it then raises or survives
_TIFFFILE_PACKINGS = {1, 8, 32946}  # none, deflate
_LOSSY_PACKINGS = {6, 7, 33003, 33005, 34712, 34933, 50001}  # JPEG, JPEG 2000, WebP
_WHITE_IS_ZERO, _PALETTE, _SEPARATE_PLANES = 0, 3, 2


def read_page(path: Path, *, page: int | None, as_label: bool) -> tuple[NDArray[Any], list[str]]:
    """Read one page as [H, W] or [H, W, C], with warnings.

    Raises:
        DataError: damaged, several pages and none chosen, or a lossy packing in a label.
    """
    with decoding(path, "TIFF"), tifffile.TiffFile(path) as file:
        count = len(file.pages)
        if page is None and count > 1:
            raise DataError(
                f"{path}: holds {count} pages. Expected one: choose with --volume-index (volume_index=...)."
            )
        index = page or 0
        if not 0 <= index < count:
            raise DataError(f"{path}: has no page {index}. Expected an index from 0 to {count - 1}.")
        facts: Any = file.pages[index]
        packing, tone = int(facts.compression), int(facts.photometric)
        if as_label and packing in _LOSSY_PACKINGS:
            raise DataError(
                f"{path}: a lossy TIFF cannot be a label. Expected one without compression, or with deflate or LZW."
            )
        refuse_bomb(path, packed=path.stat().st_size, expanded=int(facts.nbytes))
        pixels = facts.asarray() if packing in _TIFFFILE_PACKINGS else None
        planes_first = int(facts.planarconfig or 1) == _SEPARATE_PLANES
    if tone == _PALETTE:
        with decoding(path, "TIFF"), Image.open(path) as image:
            image.seek(index)
            return paletted(image, path, as_label=as_label)
    if pixels is None:
        pixels = _unpacked_by_opencv(path, index)
    elif planes_first and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim not in (2, 3) or pixels.dtype.kind not in "uifb":
        raise DataError(
            f"{path}: a page of shape {pixels.shape} and type {pixels.dtype} is not supported. Expected grey or RGB."
        )
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    warnings = [f"{path}: stored with 0 as white; the numbers were read as they are"] if tone == _WHITE_IS_ZERO else []
    return pixels, warnings


def _unpacked_by_opencv(path: Path, index: int) -> NDArray[Any]:
    import cv2

    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # it prints what goes wrong instead of saying so to the caller
    with decoding(path, "TIFF"):
        read, pages = cv2.imreadmulti(str(path), start=index, count=1, flags=cv2.IMREAD_UNCHANGED)
    if not read or not pages:
        raise DataError(f"{path}: damaged TIFF, or a packing that is not supported. Save it without compression.")
    return swapped(np.asarray(pages[0]))
