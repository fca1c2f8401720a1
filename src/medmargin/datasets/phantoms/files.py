"""Files of a phantom data set: NIfTI volumes, or PNG pictures; equal voxels give equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.imaging import nifti_output, picture_output
from medmargin.imaging.volume import Grid, Volume
from medmargin.imaging.write import write_map

ENDINGS = {2: ".png", 3: ".nii.gz"}
_GREY_OF_TISSUE = {2: 160, 3: 1000}  # grey value of the brightest tissue; shading and noise go above it


def write_image(stem: Path, image: NDArray[np.float32], grid: Grid) -> None:
    """Write an image [I, J, K] (brightest tissue about 1) as int16 NIfTI, or as 8-bit PNG where it has one slice."""
    dims = _dims(grid)
    grey = np.round(image * _GREY_OF_TISSUE[dims])
    _write(stem, np.clip(grey, 0, 255).astype(np.uint8) if dims == 2 else grey.astype(np.int16), grid, intent="none")


def write_label(stem: Path, labels: NDArray[np.uint8], grid: Grid) -> None:
    """Write a label map [I, J, K] uint8."""
    _write(stem, labels, grid, intent="label")


def write_probability(stem: Path, probability: NDArray[np.float32], grid: Grid, *, structure: str) -> None:
    """Write a probability map [I, J, K] as float32 NIfTI, or as 16-bit PNG (value / 65535)."""
    like = _on_grid(probability, grid)
    write_map(_path(stem, grid), probability, like, description=f"true probability of {structure}")


def _write(stem: Path, voxels: NDArray[Any], grid: Grid, *, intent: str) -> None:
    if _dims(grid) == 2:
        picture_output.write(_path(stem, grid), voxels)
    else:
        nifti_output.write(_path(stem, grid), voxels, _on_grid(voxels, grid), intent=intent)


def _on_grid(voxels: NDArray[Any], grid: Grid) -> Volume:
    return Volume(voxels[None], grid, dims=_dims(grid))


def _path(stem: Path, grid: Grid) -> Path:
    return stem.with_name(stem.name + ENDINGS[_dims(grid)])


def _dims(grid: Grid) -> int:
    return 2 if grid.shape[2] == 1 else 3
