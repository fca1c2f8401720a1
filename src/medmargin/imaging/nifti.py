"""NIfTI-1 and NIfTI-2 single files in, packed or not; every claim of the header is checked before memory is spent.

The affine is the sform where its code says so, else the qform, else the voxel sizes alone (as nibabel and the NIfTI-1
standard order them); spacing is always taken from the affine, never from the header's zooms.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from medmargin.errors import DataError, GeometryError
from medmargin.imaging.channels import channel_first
from medmargin.imaging.content import GZIP_MARK, first_bytes, is_nifti
from medmargin.imaging.decoding import decoding
from medmargin.imaging.expansion import DEFLATE_RATIO, MIB, refuse_bomb
from medmargin.imaging.volume import Volume, checked_grid

_HEADER_BYTES = 540  # of NIfTI-2, the longer one
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}


def read(path: Path, *, volume_index: int | None = None, channels: int | None = None) -> Volume:
    """Read a NIfTI image.

    Args:
        path: a .nii or .nii.gz file; whether it is packed is told by its content.
        volume_index: which 3-D volume of a file that holds several.
        channels: number of channels, where the axes beyond the third are channels and not time.

    Returns:
        voxels [C, I, J, K] in the file's own dtype (float32 where the header scales them), grid in mm.

    Raises:
        DataError: truncated, damaged, padded with junk, or larger than the file can hold.
        GeometryError: an impossible or contradictory placement.
    """
    packed = first_bytes(path, 2) == GZIP_MARK
    warnings = _naming_warning(path, packed)
    with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
        header, values = _parse(path, stream, packed=packed)
    if channels is None and header.get_data_dtype().names is not None:
        channels = values.shape[-1]  # colours
    values = channel_first(path, values, volume_index=volume_index, channels=channels)
    affine, more = _affine(path, header)
    warnings += more
    grid = checked_grid(values.shape[1:], affine, source=path)
    zooms = np.abs(header.get_zooms()[:3]) * _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    if not np.allclose(zooms, grid.spacing[: len(zooms)], rtol=1e-2):
        warnings.append(f"{path}: the header's voxel size {zooms} contradicts the affine; used {grid.spacing} mm")
    dims = 2 if len(header.get_data_shape()) == 2 else 3
    return Volume(values, grid, dims, path, "nifti", header, tuple(warnings))


def _naming_warning(path: Path, packed: bool) -> list[str]:
    if path.name.lower().endswith(".gz") == packed:
        return []
    return [f"{path}: is {'' if packed else 'not '}gzip-packed, unlike its name says; read by its content"]


def _parse(path: Path, stream: BinaryIO | gzip.GzipFile, *, packed: bool) -> tuple[Any, NDArray[Any]]:
    """Read header and voxels [I, J, K, ...]; nothing is allocated that the file cannot hold."""
    buffer = bytearray(_read(path, stream, _HEADER_BYTES))
    header = _header(path, bytes(buffer))
    with decoding(path, "NIfTI header"):
        shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), int(header.get_data_offset())
        slope, intercept = header.get_slope_inter()
    _check_layout(path, shape, dtype, offset)
    size = path.stat().st_size
    total = offset + prod(shape) * dtype.itemsize
    most = size * DEFLATE_RATIO if packed else size
    if total > most:
        raise DataError(
            f"{path}: the header claims {shape} voxels of {dtype} ({total / MIB:.1f} MiB), more than the file of "
            f"{size} bytes can hold. It is truncated or its header is damaged; copy or export it again."
        )
    refuse_bomb(path, packed=size, expanded=total)
    while len(buffer) < total and (block := _read(path, stream, min(total - len(buffer), 4 * MIB))):
        buffer += block
    surplus = len(buffer) > total or _read(path, stream, 1)  # reaching the end also verifies the gzip checksum
    if len(buffer) < total or surplus:
        raise DataError(
            f"{path}: {'data follow' if surplus else 'the file ends before'} the {prod(shape)} voxels its header "
            "announces. It is truncated or damaged; copy or export it again."
        )
    values = np.frombuffer(buffer, dtype, prod(shape), offset).reshape(shape, order="F")
    return header, _scaled(values, slope, intercept)


def _read(path: Path, stream: BinaryIO | gzip.GzipFile, count: int) -> bytes:
    try:
        return stream.read(count)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: truncated or damaged gzip data ({error}). Copy or export the file again.") from error


def _header(path: Path, head: bytes) -> Any:
    if not is_nifti(head):
        raise DataError(f"{path}: the content is no NIfTI image. Expected a NIfTI-1 or NIfTI-2 header.")
    two = head[4:6] == b"n+" or head[4:6] == b"ni"
    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        raise DataError(f"{path}: is one half of a .hdr/.img pair. Expected a single file; convert it to .nii.gz.")
    kind = nibabel.Nifti2Header if two else nibabel.Nifti1Header
    with decoding(path, "NIfTI header"):
        return kind(head[: kind.template_dtype.itemsize], check=False)


def _check_layout(path: Path, shape: Sequence[int], dtype: np.dtype, offset: int) -> None:
    if not 2 <= len(shape) <= 7 or min(shape) < 1:
        raise DataError(
            f"{path}: the header announces the shape {tuple(shape)}. Expected 2 to 7 axes of at least one voxel."
        )
    if dtype.kind not in "iuf" and dtype.names is None:
        raise DataError(f"{path}: voxels of type {dtype} are not supported. Expected whole or real numbers, or RGB.")
    if offset < 0:
        raise DataError(
            f"{path}: the voxels would start at byte {offset}. The header is damaged; export the image again."
        )


def _scaled(values: NDArray[Any], slope: float | None, intercept: float | None) -> NDArray[Any]:
    """Apply the header's scaling and bring the bytes to the order of this machine; RGB becomes a last axis."""
    if values.dtype.names is not None:
        return np.stack([values[name] for name in values.dtype.names], axis=-1)
    if slope is not None and (slope, intercept) != (1.0, 0.0):
        with np.errstate(over="ignore", invalid="ignore"):
            return apply_read_scaling(values, slope, intercept).astype(np.float32)
    if values.dtype.itemsize > 8:
        return values.astype(np.float64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _affine(path: Path, header: Any) -> tuple[NDArray[np.float64], list[str]]:
    """Choose the affine [4, 4] in mm, with what had to be decided for the user."""
    warnings: list[str] = []
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code <= 0:
        _check_voxel_size(path, header)
    if sform_code > 0:
        affine = header.get_sform()
        if qform_code > 0:
            warnings += _compare_forms(path, header, affine)
    elif qform_code > 0:
        with decoding(path, "qform in the header"):
            affine = header.get_qform()
    else:
        affine = header.get_base_affine()
        warnings.append(f"{path}: sform and qform are both unset; spacing is that of the header, orientation unknown")
    if len(header.get_data_shape()) == 2 and not affine[:3, 2].any():
        affine[2, 2] = 1.0
    with decoding(path, "spatial unit in the header"):
        unit = header.get_xyzt_units()[0]
    if unit in _MM_PER_UNIT:
        affine[:3] *= _MM_PER_UNIT[unit]
        warnings.append(f"{path}: the header's unit is {unit}; converted to mm")
    return affine, warnings


def _check_voxel_size(path: Path, header: Any) -> None:
    sizes = header["pixdim"][1 : 1 + min(len(header.get_data_shape()), 3)]
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise GeometryError(
            f"{path}: the header gives the spacing {sizes.tolist()}, and no sform instead. Expected positive numbers; "
            "export the image again."
        )


def _compare_forms(path: Path, header: Any, sform: NDArray[np.float64]) -> list[str]:
    """Measure in voxels how far sform and qform, both claimed valid, put the corners apart."""
    try:
        qform = header.get_qform()
        inverse = np.linalg.inv(sform)
    except (HeaderDataError, ValueError, np.linalg.LinAlgError):  # a singular sform is refused with the grid
        return [f"{path}: the qform is not readable; used the sform"]
    shape = [*header.get_data_shape()[:3], 1][:3]
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], [1], indexing="ij")).reshape(4, -1)
    apart = float(np.abs(inverse @ qform @ corners - corners).max())
    if not apart <= 1.0:
        raise GeometryError(
            f"{path}: sform and qform, both marked valid, place the image {apart:.1f} voxels apart. Expected one "
            "placement; export the image again or set one of the two codes to 0."
        )
    return [f"{path}: sform and qform differ by {apart:.2g} voxels; used the sform"] if apart > 1e-3 else []
