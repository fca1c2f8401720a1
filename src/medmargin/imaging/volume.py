"""The voxel grid every image and label lives on: `Grid` (geometry alone) and `Volume` (voxels on a grid).

Conventions: arrays are indexed (i, j, k) with an affine to RAS+ millimetres at the centre of voxel (0, 0, 0).
2-D pictures are volumes with one slice: i is the column (x), j the row (y), k = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import orientations
from numpy.typing import ArrayLike, NDArray

from medmargin.errors import GeometryError

LARGEST_SPACING_MM = 50.0
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # its own inverse; DICOM and ITK speak LPS


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape and placement of a voxel array.

    Attributes:
        shape: voxels along (i, j, k).
        affine: [4, 4] float64, voxel index -> RAS+ mm (or pixels where `unit` is "px").
        unit: "mm", or "px" where the file does not say how large a voxel is; millimetre figures are then refused.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    unit: str = "mm"

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along (i, j, k) in `unit`: the column norms of the affine, never the header's zooms."""
        i, j, k = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(i), float(j), float(k)

    @property
    def axis_codes(self) -> str:
        """Closest anatomical direction of each axis, e.g. "RAS" or "LPI"."""
        return "".join(orientations.aff2axcodes(self.affine))

    @property
    def voxel_volume_ml(self) -> float | None:
        """Volume of one voxel in millilitres, or None where the spacing is unknown."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0 if self.unit == "mm" else None

    @property
    def shear(self) -> float:
        """Largest |cosine| between two axes; 0 for an orthogonal grid."""
        directions = self.affine[:3, :3] / np.asarray(self.spacing)
        return float(np.abs(directions.T @ directions - np.eye(3)).max())

    def matches(self, other: Grid, *, tolerance: float = 1e-3) -> bool:
        """Tell whether two grids agree in shape and, to `tolerance` (mm, and per unit direction), in placement."""
        return not self.difference(other, tolerance=tolerance)

    def difference(self, other: Grid, *, tolerance: float = 1e-3) -> str:
        """Describe in words how `other` differs from this grid; empty where they match."""
        if self.shape != other.shape:
            return f"shape {other.shape} vs {self.shape}"
        found = []
        if not np.allclose(self.spacing, other.spacing, rtol=0.0, atol=tolerance):
            found.append(f"spacing {_rounded(other.spacing)} vs {_rounded(self.spacing)} {self.unit}")
        mine, theirs = self.affine[:3, :3] / np.asarray(self.spacing), other.affine[:3, :3] / np.asarray(other.spacing)
        if not np.allclose(mine, theirs, rtol=0.0, atol=tolerance):
            found.append(f"orientation {other.axis_codes} vs {self.axis_codes}")
        if not np.allclose(self.affine[:3, 3], other.affine[:3, 3], rtol=0.0, atol=tolerance):
            found.append(f"origin {_rounded(other.affine[:3, 3])} vs {_rounded(self.affine[:3, 3])} {self.unit}")
        return "; ".join(found)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with the geometry they must never lose.

    Attributes:
        voxels: [C, I, J, K] array of any numeric dtype; labels have C = 1 and an integer dtype.
        grid: placement of the voxels; `grid.shape == voxels.shape[1:]`.
        dims: 2 for a picture (K = 1), 3 for a volume.
        source: file or folder the voxels came from.
        format: "nifti", "itk", "dicom", "picture", "npz" or "array".
        header: what the writer of that format needs to answer in kind (DICOM data sets, a NIfTI header, ...).
        warnings: what the reader had to decide for the user, one sentence each; they end up in the report.
    """

    voxels: NDArray[Any]
    grid: Grid
    dims: int = 3
    source: Path | None = None
    format: str = "array"
    header: Any = field(default=None, repr=False, compare=False)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.voxels.ndim != 4 or self.voxels.shape[1:] != self.grid.shape:
            raise GeometryError(
                f"{self.source or 'array'}: voxels {self.voxels.shape} do not fit the grid {self.grid.shape}; "
                "expected channel-first voxels [C, I, J, K]."
            )

    @property
    def channels(self) -> int:
        """Number of channels, C."""
        return int(self.voxels.shape[0])

    @property
    def affine(self) -> NDArray[np.float64]:
        """[4, 4] voxel index -> RAS+ mm."""
        return self.grid.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along (i, j, k) in the grid's unit."""
        return self.grid.spacing

    def with_voxels(self, voxels: NDArray[Any]) -> Volume:
        """Put other voxels ([I, J, K] or [C, I, J, K]) on the same grid."""
        return replace(self, voxels=voxels[None] if voxels.ndim == 3 else voxels)

    def reoriented(self, codes: str = "RAS") -> Volume:
        """Permute and flip the axes to the orientation closest to `codes`; no voxel value changes.

        Raises:
            GeometryError: `codes` is not three letters, one of each of L/R, A/P and S/I.
        """
        transform = orientation_transform(self.grid, codes)
        voxels = apply_orientation(self.voxels, transform)
        affine = self.affine @ orientations.inv_ornt_aff(transform, self.grid.shape)
        i, j, k = voxels.shape[1:]
        return replace(self, voxels=voxels, grid=Grid((i, j, k), affine, self.grid.unit))


def orientation_transform(grid: Grid, codes: str) -> NDArray[np.float64]:
    """Compute nibabel's orientation transform [3, 2] (target axis, flip) that brings `grid` to `codes`."""
    if len(codes) != 3 or {frozenset(pair) for pair in ("LR", "AP", "SI")} != {
        frozenset(pair) for pair in ("LR", "AP", "SI") for letter in codes if letter in pair
    }:
        raise GeometryError(
            f"orientation '{codes}' is not three letters out of L/R, A/P and S/I, one of each, as in 'RAS'"
        )
    present = orientations.io_orientation(grid.affine)
    return orientations.ornt_transform(present, orientations.axcodes2ornt(tuple(codes)))


def apply_orientation(voxels: NDArray[Any], transform: NDArray[np.float64]) -> NDArray[Any]:
    """Permute and flip the last three axes of [I, J, K] or [C, I, J, K] as `transform` says; a view, never a copy."""
    if voxels.ndim == 3:
        return orientations.apply_orientation(voxels, transform)
    return np.moveaxis(orientations.apply_orientation(np.moveaxis(voxels, 0, -1), transform), -1, 0)


def checked_grid(shape: Sequence[int], affine: ArrayLike, *, unit: str = "mm", source: object = "array") -> Grid:
    """Build a grid from what a file says, after refusing placements no scanner can produce.

    Args:
        shape: voxels along (i, j, k).
        affine: [4, 4], voxel index -> RAS+ mm (or pixels).
        unit: "mm" or "px".
        source: what the error message names.

    Raises:
        GeometryError: the affine is not finite, zero or singular, or a spacing exceeds 50 mm.
    """
    matrix = np.array(affine, np.float64)
    i, j, k = (int(size) for size in shape)
    if not np.isfinite(matrix).all():
        raise GeometryError(f"{source}: the affine holds numbers that are not finite. Export the image again.")
    grid = Grid((i, j, k), matrix, unit)
    spacing = _rounded(grid.spacing)
    if min(grid.spacing) <= 0 or abs(np.linalg.det(matrix[:3, :3] / np.asarray(grid.spacing))) < 1e-6:
        raise GeometryError(
            f"{source}: the affine is singular (spacing {spacing}): it gives several voxels the same place. "
            "Expected three independent axes. Export the image again, or repair the header."
        )
    if unit == "mm" and max(grid.spacing) > LARGEST_SPACING_MM:
        raise GeometryError(
            f"{source}: spacing {spacing} mm is larger than {LARGEST_SPACING_MM:g} mm. Expected the size of a voxel; "
            "check the header's spacing and units."
        )
    return grid


def _rounded(values: Any) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
