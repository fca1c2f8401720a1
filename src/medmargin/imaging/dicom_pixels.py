"""Stored DICOM pixels to values: unpacked, and put through the modality transform of their own slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError
from medmargin.imaging.decoding import decoding
from medmargin.imaging.expansion import refuse_bomb


def read_dataset(path: Path) -> Any:
    """Read a whole DICOM file.

    Raises:
        DataError: damaged.
    """
    import pydicom

    with decoding(path, "DICOM file"):
        dataset = pydicom.dcmread(path)
        int(dataset.Rows), str(dataset.get("Modality"))  # parsed late by pydicom: damage shows here
        return dataset


def pixel_values(path: Path, dataset: Any) -> NDArray[Any]:
    """Decode the pixels of a data set.

    Returns:
        [H, W], [F, H, W], or with a last axis of 3 for colour; modality values (HU for CT), int32 where the transform
        is whole, float32 where not, else the stored type.

    Raises:
        DataError: damaged, a bomb, or a transfer syntax without an installed codec.
    """
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    _check_size(path, dataset)
    _require_codec(path, dataset)
    with decoding(path, "DICOM pixels"):
        stored = dataset.pixel_array
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return apply_color_lut(stored, dataset)
        if int(dataset.get("SamplesPerPixel", 1)) > 1:
            return stored
        if "ModalityLUTSequence" not in dataset and "RescaleSlope" not in dataset:
            return stored
        values = apply_modality_lut(stored, dataset)
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        is_whole = values.dtype.kind in "ui" or (slope.is_integer() and intercept.is_integer())
        if is_whole and np.abs(values).max(initial=0) < 2**31:
            return values.astype(np.int32)
        return values.astype(np.float32)


def _check_size(path: Path, dataset: Any) -> None:
    with decoding(path, "DICOM header"):
        frames = int(dataset.get("NumberOfFrames") or 1)
        samples = frames * int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel", 1))
        size = samples * int(dataset.get("BitsAllocated", 16)) // 8
    refuse_bomb(path, packed=path.stat().st_size, expanded=size)


def _require_codec(path: Path, dataset: Any) -> None:
    from pydicom.pixels import get_decoder

    with decoding(path, "DICOM header"):
        syntax = dataset.file_meta.TransferSyntaxUID
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError as error:
            raise DataError(
                f"{path}: the transfer syntax '{syntax.name}' is private or unknown. Expected a standard one; export "
                "the series again."
            ) from error
    if not decoder.is_available:
        raise DataError(
            f"{path}: no codec for '{syntax.name}' is installed. Install the extra 'medmargin[dicom]', or for JPEG "
            "Lossless 'python-gdcm', or export the series uncompressed."
        )
