"""Any image or label file as a volume, chosen by content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError, GeometryError
from medmargin.imaging import challenge_npz, dicom, itk, nifti, picture
from medmargin.imaging.content import identify
from medmargin.imaging.volume import Volume

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_ROUNDED_FRACTION = 1e-4  # 1.0000001 is a whole number that went through a scaling, 0.5 is not


def read_image(
    path: Path | str, *, series: str | None = None, volume_index: int | None = None, to_gray: bool = False
) -> Volume:
    """Read an image of any supported format.

    Args:
        path: a file (NIfTI, NRRD, MetaImage, DICOM, PNG, TIFF, JPEG, challenge NPZ) or a folder with DICOM slices.
        series: which DICOM series of a folder: its UID, number, description or folder name.
        volume_index: which volume of a 4-D file, or page of a TIFF.
        to_gray: turn colour (C = 3) into luminance (ITU-R BT.601).

    Returns:
        voxels [C, I, J, K] in the file's own dtype; what had to be decided is in `warnings`.

    Raises:
        DataError: a file that cannot be used as it is; the message says what to do.
        GeometryError: an impossible placement.
        MissingExtraError: the format needs an extra that is not installed.
    """
    volume = _read(Path(path), series=series, volume_index=volume_index, channels=None)
    return _gray(volume) if to_gray else volume


def read_channels(
    paths: Sequence[Path | str],
    *,
    names: Sequence[str] | None = None,
    series: str | None = None,
    volume_index: int | None = None,
    to_gray: bool = False,
) -> Volume:
    """Read the channels of one case and stack them on one grid.

    Args:
        paths: one file per channel, or one file that holds all (RGB picture, 4-D NIfTI).
        names: channel names in order; their number must be found.
        series, volume_index, to_gray: as in `read_image`, for every file.

    Raises:
        DataError: a channel is missing (named), or the number of channels is another one than expected.
        GeometryError: channels on different grids.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise DataError("no channel files were given. Expected at least one.")
    if len(files) == 1:
        volume = _read(files[0], series=series, volume_index=volume_index, channels=len(names) if names else None)
        stacked = _gray(volume) if to_gray else volume
    else:
        labels = names if names and len(names) == len(files) else range(len(files))
        options = {"series": series, "volume_index": volume_index, "to_gray": to_gray}
        stacked = _stacked([_channel(file, str(label), **options) for file, label in zip(files, labels, strict=True)])
    if names is not None and stacked.channels != len(names):
        hint = " Use --to-gray (to_gray=True) for colour pictures of a grey structure." if stacked.channels == 3 else ""
        raise DataError(
            f"{files[0]}: found {stacked.channels} channels, expected {len(names)}: {', '.join(names)}.{hint}"
        )
    return stacked


def read_label(path: Path | str) -> Volume:
    """Read a label map: one channel of whole numbers.

    Returns:
        voxels [1, I, J, K] of an integer dtype; whole numbers stored as real ones are accepted.

    Raises:
        DataError: fractional values, colours, or a format that cannot hold labels (JPEG, DICOM images).
    """
    file = Path(path)
    kind = identify(file)
    if kind == "dicom":
        raise DataError(f"{file}: labels are not read from DICOM. Expected NIfTI, NRRD, MetaImage, PNG, TIFF or NPZ.")
    if kind == "picture":
        volume = picture.read(file, as_label=True)
    elif kind == "npz":
        volume = challenge_npz.read_labels(file)
    else:
        volume = _read(file, series=None, volume_index=None, channels=None)
    if volume.channels != 1:
        raise DataError(
            f"{file}: a label map with {volume.channels} channels (colours?). Expected one channel of whole numbers."
        )
    voxels, warnings = _whole(file, volume.voxels)
    return replace(volume, voxels=voxels, warnings=(*volume.warnings, *warnings))


def _read(path: Path, *, series: str | None, volume_index: int | None, channels: int | None) -> Volume:
    if path.is_dir():
        return dicom.read_series(path, series=series)
    kind = identify(path)
    if kind == "nifti":
        return nifti.read(path, volume_index=volume_index, channels=channels)
    if kind == "itk":
        return itk.read(path, volume_index=volume_index, channels=channels)
    if kind == "dicom":
        return dicom.read_file(path, frame=volume_index)
    if kind == "npz":
        return challenge_npz.read_image(path)
    return picture.read(path, page=volume_index)


def _channel(path: Path, name: str, **options: Any) -> Volume:
    if not path.exists():
        raise DataError(
            f"{path}: channel '{name}' is missing. Expected one file per channel; add it or exclude the case."
        )
    volume = read_image(path, **options)
    if volume.channels != 1:
        raise DataError(
            f"{path}: channel '{name}' holds {volume.channels} channels. Expected one; see --to-gray (to_gray=True)."
        )
    return volume


def _stacked(volumes: Sequence[Volume]) -> Volume:
    first = volumes[0]
    for volume in volumes[1:]:
        if difference := first.grid.difference(volume.grid):
            raise GeometryError(
                f"{volume.source}: its grid differs from that of {first.source}: {difference}. Expected all channels "
                "on one grid; resample with 'data fix' or exclude the case."
            )
    voxels = np.concatenate([volume.voxels for volume in volumes])
    warnings = tuple(warning for volume in volumes for warning in volume.warnings)
    return replace(first, voxels=voxels, warnings=warnings)


def _gray(volume: Volume) -> Volume:
    if volume.channels != 3:
        return volume
    gray = np.tensordot(np.asarray(_LUMA), volume.voxels, axes=1)
    whole = volume.voxels.dtype.kind in "ui"
    return volume.with_voxels((np.rint(gray) if whole else gray).astype(volume.voxels.dtype))


def _whole(path: Path, voxels: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """Bring whole numbers to an integer dtype."""
    if voxels.dtype.kind in "ui":
        return voxels, []
    with np.errstate(invalid="ignore"):
        rounded = np.rint(voxels)
        apart = np.abs(voxels - rounded)
    wrong = ~(apart <= _ROUNDED_FRACTION)  # NaN and infinity too
    if wrong.any():
        values = ", ".join(f"{float(value):g}" for value in np.unique(voxels[wrong])[:5])
        raise DataError(
            f"{path}: {np.count_nonzero(wrong)} voxels of the label map are no whole numbers ({values}). "
            "Expected integer labels; a resampled label map needs nearest-neighbour interpolation."
        )
    if np.abs(rounded).max(initial=0) >= 2**31:
        raise DataError(f"{path}: label values up to {np.abs(rounded).max():g}. Expected small whole numbers.")
    off = int(np.count_nonzero(apart))
    warnings = [f"{path}: {off} label values are a rounding error away from whole; rounded"] if off else []
    return rounded.astype(np.int32), warnings
