"""NIfTI out: labels and maps on the grid of the image they belong to, with that image's own geometry fields."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from medmargin.imaging.volume import Volume
from medmargin.storage import atomic_path

_PACKING_LEVEL = 4
_GEOMETRY_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z",
)  # fmt: skip


def write(
    path: Path,
    values: NDArray[Any],
    like: Volume,
    *,
    description: str = "",
    intent: str = "none",
    slope: float | None = None,
) -> None:
    """Write [I, J, K] voxels, or [I, J, K, C], as .nii or .nii.gz.

    Args:
        values: any NIfTI dtype, written as they are; a picture is written with two axes.
        like: the image whose placement is taken over: the header fields bit by bit where it came from NIfTI, else
            qform = sform with codes 1.
        description: goes into the header's `descrip` (79 bytes).
        intent: NIfTI intent, "label" for label maps.
        slope: factor readers apply to the stored values, or None.
    """
    if like.dims == 2 and values.ndim == 3:
        values = values[..., 0]
    two = isinstance(like.header, nibabel.Nifti2Header) or max(values.shape) >= 2**15
    image = (nibabel.Nifti2Image if two else nibabel.Nifti1Image)(values, None)
    header = image.header
    _place(header, like)
    header.set_xyzt_units("mm" if like.grid.unit == "mm" else "unknown")
    header.set_intent(intent)
    header["descrip"] = description.encode("utf-8")[:79].decode("utf-8", "ignore").encode("utf-8")
    image.set_data_dtype(values.dtype)
    if slope is not None:
        header.set_slope_inter(slope, 0.0)
    with atomic_path(path) as temporary, open(temporary, "wb") as raw:
        if path.name.lower().endswith(".gz"):
            # no name and no time inside: equal voxels give equal bytes
            with gzip.GzipFile("", "wb", _PACKING_LEVEL, raw, mtime=0) as stream:
                image.to_stream(stream)
        else:
            image.to_stream(raw)


def _place(header: Any, like: Volume) -> None:
    """Copy the source's placement; patient names and other fields of its header stay behind."""
    affine = like.affine
    if isinstance(like.header, nibabel.Nifti1Header):
        for name in _GEOMETRY_FIELDS:
            header[name] = like.header[name]
        header["pixdim"][:4] = like.header["pixdim"][:4]
        if np.array_equal(header.get_best_affine(), affine):
            return
        code = int(like.header["sform_code"]) or int(like.header["qform_code"]) or 1
    else:
        code = 1
    sheared = like.grid.shear > 1e-3  # a qform cannot say so
    header.set_sform(affine, code=code)
    header.set_qform(affine, code=0 if sheared else code, strip_shears=True)
