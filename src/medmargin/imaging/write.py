"""Label maps and real-valued maps to files on the grid of the image they belong to; the suffix chooses the format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import ConfigError, DataError, GeometryError
from medmargin.imaging import challenge_npz, itk, nifti_output, picture_output
from medmargin.imaging.content import format_of_name
from medmargin.imaging.tables import write_tables
from medmargin.imaging.volume import Volume

COMPACT_STEP = 1 / 250
_WRITTEN = (".nii.gz", ".nii", ".nrrd", ".mha", ".npz", ".png")


def write_labels(path: Path | str, labels: NDArray[Any], like: Volume, *, names: Mapping[int, str]) -> list[Path]:
    """Write a label map.

    Args:
        path: .nii.gz, .nii, .nrrd, .mha, .npz, or .png for pictures.
        labels: [I, J, K] whole numbers >= 0 on the grid of `like`; stored in the smallest unsigned type.
        like: the image they belong to.
        names: label value -> structure name; volumes get tables for ITK-SNAP and Slicer beside them.

    Returns:
        the files written, the label map first.

    Raises:
        GeometryError: `labels` has another shape than the grid.
        DataError: fractional or negative values.
        ConfigError: an unknown suffix, or a picture format for a volume.
        BudgetError: the disk is full or the folder is read-only.
    """
    target, kind = _target(path, labels, like)
    if labels.dtype.kind not in "uib" or labels.min(initial=0) < 0:
        raise DataError(f"{target}: labels of type {labels.dtype} from {labels.min():g}. Expected whole numbers >= 0.")
    values = labels.astype(np.min_scalar_type(int(labels.max(initial=1))))
    if kind == "nifti":
        nifti_output.write(target, values, like, intent="label", description="label map")
    elif kind == "itk":
        itk.write(target, values, like, description="label map")
    elif kind == "picture":
        picture_output.write(target, values)
        return [target]
    else:
        challenge_npz.write_segmentation(target, values, like)
        return [target]
    return [target, *write_tables(target, names)]


def write_map(
    path: Path | str, values: NDArray[Any], like: Volume, *, description: str, compact: bool = False
) -> list[Path]:
    """Write a probability or uncertainty map.

    Args:
        path: .nii.gz, .nii, .nrrd, .mha, .npz, or .png for pictures.
        values: [I, J, K] real numbers on the grid of `like`.
        like: the image they belong to.
        description: name and unit, as in "total uncertainty (nats)"; goes into the file's header.
        compact: store whole steps of 1/250 with the step in the header (needs values >= 0), not 32-bit real numbers;
            NRRD and MetaImage have no such field and always hold 32-bit real numbers.

    Returns:
        the files written.

    Raises:
        as `write_labels`; DataError also where values are not finite, or negative and `compact`.
    """
    target, kind = _target(path, values, like)
    if not np.isfinite(values).all():
        raise DataError(f"{target}: the map holds values that are not finite. Expected real numbers.")
    slope = None
    stored: NDArray[Any] = values.astype(np.float32)
    if kind == "picture" or (compact and kind != "itk"):
        stored, slope = _steps(target, values, compact=compact)
    if kind == "nifti":
        nifti_output.write(target, stored, like, description=description, slope=slope)
    elif kind == "itk":
        itk.write(target, stored, like, description=description)
    elif kind == "picture":
        picture_output.write(target, stored, description=description, slope=slope)
    else:
        challenge_npz.write_map(target, stored, like, slope=slope)
    return [target]


def _target(path: Path | str, values: NDArray[Any], like: Volume) -> tuple[Path, str]:
    """Check that `values` can go to `path`, and tell the format its name asks for."""
    target = Path(path)
    kind = format_of_name(target)
    if kind is None or not target.name.lower().endswith(_WRITTEN):
        raise ConfigError(f"{target}: cannot write '{target.suffix}' here. Expected {', '.join(_WRITTEN)}.")
    if kind == "picture" and like.dims != 2:
        raise ConfigError(f"{target}: a volume does not fit into a PNG. Expected .nii.gz, .nrrd, .mha or .npz.")
    if values.shape != like.grid.shape:
        raise GeometryError(
            f"{target}: the array has the shape {values.shape}, its image {like.grid.shape}. Expected the same grid."
        )
    return target, kind


def _steps(target: Path, values: NDArray[Any], *, compact: bool) -> tuple[NDArray[Any], float]:
    """Express values >= 0 in whole steps: 1/250 where compact, else the finest that fits into 16 bits."""
    highest = float(values.max(initial=0))
    if values.min(initial=0) < 0:
        raise DataError(
            f"{target}: the map holds negative values, which this format cannot store. Use .nii.gz with compact off."
        )
    step = COMPACT_STEP if compact else max(highest, 1.0) / 65535
    if highest / step > 65535:
        raise DataError(
            f"{target}: values up to {highest:g} are too large for compact steps of 1/250. Write with compact off."
        )
    steps = np.rint(values / step)
    return steps.astype(np.uint8 if steps.max(initial=0) <= 255 else np.uint16), step
