"""PNG, TIFF and JPEG pictures in: one slice, [C, x (column), y (row), 1], sized in pixels."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medmargin.errors import DataError
from medmargin.imaging.arrays import rows_to_voxels
from medmargin.imaging.content import first_bytes
from medmargin.imaging.decoding import decoding
from medmargin.imaging.expansion import refuse_bomb
from medmargin.imaging.volume import Volume, checked_grid

SLOPE_KEY = "medmargin:slope"  # PNG text: value = pixel * slope
_JPEG_MARK = b"\xff\xd8\xff"
_PNG_MARK = b"\x89PNG"
_PNG_BIT_DEPTH, _PNG_COLOUR_TYPE = 24, 25  # offsets in the file
_DEEP_COLOUR = (2, 4, 6)  # PNG colour types that Pillow reduces from 16 to 8 bits
_EXIF_ORIENTATION = 0x0112


def read(path: Path, *, page: int | None = None, as_label: bool = False) -> Volume:
    """Read a picture; its content, not its name, tells the format.

    Args:
        path: PNG, TIFF or JPEG file.
        page: which page of a TIFF that holds several.
        as_label: read the stored numbers (palette indices, unstretched small bit depths) and refuse JPEG.

    Returns:
        [C, x, y, 1] with C = 1 or 3 in the file's own dtype; alpha is dropped with a warning.

    Raises:
        DataError: damaged, a decompression bomb, several pages, or a JPEG as label.
    """
    head = first_bytes(path, 26)
    if head.startswith(_JPEG_MARK) and as_label:
        raise DataError(
            f"{path}: a JPEG cannot be a label, its lossy compression changes the values. Expected PNG or TIFF."
        )
    if head.startswith((_PNG_MARK, _JPEG_MARK)):
        pixels, warnings = _read_with_pillow(path, head, as_label=as_label)
    else:
        from medmargin.imaging.tiff import read_page

        pixels, warnings = read_page(path, page=page, as_label=as_label)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels = pixels[..., :-1]
        warnings.append(f"{path}: the alpha channel was dropped")
    voxels = rows_to_voxels(pixels)
    grid = checked_grid(voxels.shape[1:], np.eye(4), unit="px", source=path)
    return Volume(voxels, grid, 2, path, "picture", None, tuple(warnings))


def paletted(image: Image.Image, path: Path, *, as_label: bool) -> tuple[NDArray[Any], list[str]]:
    """Read a palette picture: its indices where it is a label [H, W], its colours otherwise [H, W, 3]."""
    if as_label:
        return np.asarray(image), [f"{path}: palette picture; the indices were read, not the colours"]
    return np.asarray(image.convert("RGB")), [f"{path}: palette picture; the colours were read, not the indices"]


def _read_with_pillow(path: Path, head: bytes, *, as_label: bool) -> tuple[NDArray[Any], list[str]]:
    with decoding(path, "picture"), Image.open(path) as image:
        deep = head.startswith(_PNG_MARK) and head[_PNG_BIT_DEPTH] == 16
        refuse_bomb(path, packed=path.stat().st_size, expanded=prod(image.size) * len(image.getbands()) * (1 + deep))
        if image.mode == "P":
            return paletted(image, path, as_label=as_label)
        if deep and head[_PNG_COLOUR_TYPE] in _DEEP_COLOUR:
            return _deep_colour(path), []
        pixels = np.asarray(image.convert("RGB") if image.mode in ("CMYK", "YCbCr") else image)
        slope = image.info.get(SLOPE_KEY)
        rotated = image.getexif().get(_EXIF_ORIENTATION, 1) != 1
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if as_label and head.startswith(_PNG_MARK) and head[_PNG_BIT_DEPTH] in (2, 4):
        pixels = pixels // (255 // (2 ** head[_PNG_BIT_DEPTH] - 1))  # Pillow stretches small bit depths to 0..255
    if slope is not None:
        with decoding(path, "slope of the map"):
            pixels = pixels * np.float32(slope)
    return pixels, [f"{path}: the orientation in its EXIF data was ignored; rows are as stored"] if rotated else []


def _deep_colour(path: Path) -> NDArray[Any]:
    """Read a 16-bit colour PNG: [H, W, C] uint16 in the order R, G, B (, A)."""
    import cv2

    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"{path}: damaged picture. Copy or export it again.")
    return swapped(pixels)


def swapped(pixels: NDArray[Any]) -> NDArray[Any]:
    """Turn OpenCV's channel order B, G, R (, A) into R, G, B (, A); grey pictures stay."""
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
