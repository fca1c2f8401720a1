"""Files of a phantom data set: NIfTI volumes, or PNG pictures, with the same bytes for the same voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medmargin.imaging.volume import Grid
from medmargin.storage import atomic_path

ENDINGS = {2: ".png", 3: ".nii.gz"}
_GREY_OF_TISSUE = {2: 160, 3: 1000}  # grey value of the brightest tissue; shading and noise go above it


def write_image(stem: Path, image: NDArray[np.float32], grid: Grid) -> None:
    """Write an image [I, J, K] (brightest tissue about 1) as int16 NIfTI, or as 8-bit PNG where it has one slice."""
    dims = _dims(grid)
    grey = np.round(image * _GREY_OF_TISSUE[dims])
    _write(stem, np.clip(grey, 0, 255).astype(np.uint8) if dims == 2 else grey.astype(np.int16), grid)


def write_label(stem: Path, labels: NDArray[np.uint8], grid: Grid) -> None:
    """Write a label map [I, J, K] uint8."""
    _write(stem, labels, grid)


def write_probability(stem: Path, probability: NDArray[np.float32], grid: Grid) -> None:
    """Write a probability map [I, J, K] as float32 NIfTI, or as 16-bit PNG (value / 65535)."""
    _write(stem, np.round(probability * 65535).astype(np.uint16) if _dims(grid) == 2 else probability, grid)


def _dims(grid: Grid) -> int:
    return 2 if grid.shape[2] == 1 else 3


def _write(stem: Path, voxels: NDArray[Any], grid: Grid) -> None:
    dims = _dims(grid)
    with atomic_path(stem.with_name(stem.name + ENDINGS[dims])) as temporary:
        if dims == 2:
            temporary.write_bytes(cv2.imencode(".png", voxels[:, :, 0].T)[1].tobytes())
            return
        image = nib.Nifti1Image(voxels, grid.affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, temporary)
