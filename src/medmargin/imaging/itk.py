"""NRRD and MetaImage through SimpleITK (extra `itk`), in ITK's LPS world turned to RAS."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError
from medmargin.imaging.channels import channel_first
from medmargin.imaging.decoding import decoding, load_extra
from medmargin.imaging.itk_header import read_header
from medmargin.imaging.itk_payload import check_payload
from medmargin.imaging.volume import LPS_TO_RAS, Volume, checked_grid
from medmargin.storage import atomic_path


def read(path: Path, *, volume_index: int | None = None, channels: int | None = None) -> Volume:
    """Read a NRRD or MetaImage file; vector components are channels.

    Args:
        path: .nrrd, .mha, or .mhd with its data file beside it.
        volume_index, channels: as in `channel_first`, for 4-D files.

    Raises:
        DataError: truncated, damaged, packed in a way that is not read here, or larger than the file can hold.
        GeometryError: an impossible placement.
        MissingExtraError: SimpleITK is not installed.
    """
    sitk = _simpleitk()
    check_payload(path, read_header(path))
    with decoding(path, "image"):
        image = sitk.ReadImage(str(path))
        values = sitk.GetArrayFromImage(image)
        affine = _ras_affine(image)
    components = image.GetNumberOfComponentsPerPixel() > 1
    if components:
        values = np.moveaxis(values, -1, 0)  # C, (T,) K, J, I
        values = values.transpose(*range(values.ndim - 1, 0, -1), 0)  # I, J, K(, T), C
        channels = values.shape[-1] if channels is None else channels
    else:
        values = values.transpose()
    if image.GetDimension() == 2 and components:
        values = values[:, :, None]
    if values.dtype.kind not in "uif":
        raise DataError(f"{path}: voxels of type {values.dtype} are not supported. Expected whole or real numbers.")
    voxels = channel_first(path, values, volume_index=volume_index, channels=channels)
    grid = checked_grid(voxels.shape[1:], affine, source=path)
    return Volume(voxels, grid, min(image.GetDimension(), 3), path, "itk")


def write(path: Path, values: NDArray[Any], like: Volume, *, description: str) -> None:
    """Write [I, J, K] voxels as .nrrd or .mha, packed; a picture becomes a 2-D image where its affine allows.

    Raises:
        MissingExtraError: SimpleITK is not installed.
    """
    sitk = _simpleitk()
    affine = LPS_TO_RAS @ like.affine
    axes = 2 if like.dims == 2 and not affine[2, :2].any() and not affine[:2, 2].any() else 3
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose()[0] if axes == 2 else values.transpose()))
    spacing = np.asarray(like.spacing)
    image.SetSpacing(spacing[:axes].tolist())
    image.SetOrigin(affine[:axes, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing)[:axes, :axes].ravel().tolist())
    image.SetMetaData("description", description)
    with atomic_path(path) as temporary:
        sitk.WriteImage(image, str(temporary), True)


def _ras_affine(image: Any) -> NDArray[np.float64]:
    """Build the affine [4, 4] to RAS of a 2-D, 3-D or 4-D image; the axes beyond its own are plain."""
    axes = image.GetDimension()
    spatial = min(axes, 3)
    direction = np.reshape(image.GetDirection(), (axes, axes))[:spatial, :spatial]
    affine = np.eye(4)
    affine[:spatial, :spatial] = direction * np.asarray(image.GetSpacing())[:spatial]
    affine[:spatial, 3] = image.GetOrigin()[:spatial]
    return LPS_TO_RAS @ affine


@cache
def _simpleitk() -> Any:
    sitk = load_extra("SimpleITK", extra="itk", purpose="reading and writing NRRD and MetaImage")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk
