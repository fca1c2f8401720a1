"""From a file's own grid to the one models work on, and exactly back.

The working grid is the closest to RAS, reached by swapping and flipping axes only. Sheared grids (a gantry tilt kept in
the affine) are resampled to an orthogonal one first. Pictures stay as they are: they have no anatomy to turn to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from nibabel import orientations
from numpy.typing import ArrayLike, NDArray

from medmargin.errors import GeometryError
from medmargin.imaging.resampling import resample
from medmargin.imaging.volume import Grid, Volume, apply_orientation, orientation_transform

LARGEST_SHEAR = 1e-3  # cosine between two axes; below it a grid counts as orthogonal


@dataclass(frozen=True, eq=False)
class Working:
    """A volume on its working grid, with the way back.

    Attributes:
        volume: closest RAS, orthogonal.
        original: grid of the file; every `restore_*` answers on it.
        orthogonal: the same without shear (`original` itself where it has none), before axes were turned.
    """

    volume: Volume
    original: Grid
    orthogonal: Grid

    @property
    def to_original(self) -> NDArray[np.float64]:
        """[4, 4] matrix from working voxels to the file's voxels."""
        turn = orientations.inv_ornt_aff(self._turn, self.orthogonal.shape)
        return _voxel_map(self.orthogonal, self.original) @ turn

    def restore_labels(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Bring a label map [I', J', K'] back to the file's grid [I, J, K] (exact; nearest where it was sheared)."""
        turned = self._turned_back(labels)
        return turned if self._is_exact else resample(turned, source=self.orthogonal, target=self.original, order=0)

    def restore_map(self, values: NDArray[Any], *, fill: float = 0) -> NDArray[Any]:
        """Bring a map [I', J', K'] back to the file's grid [I, J, K] (exact; linear where it was sheared).

        Args:
            values: real numbers on the working grid.
            fill: value of voxels outside the working grid.
        """
        turned = self._turned_back(values)
        if self._is_exact:
            return turned
        return resample(turned, source=self.orthogonal, target=self.original, order=1, fill=fill)

    def point_to_working(self, position: ArrayLike) -> NDArray[np.float64]:
        """Bring voxel coordinates [..., 3] (or [..., 2] of a picture) from the file's grid to the working grid."""
        return _transformed(np.linalg.inv(self.to_original).astype(np.float64), position)

    def point_from_working(self, position: ArrayLike) -> NDArray[np.float64]:
        """Bring voxel coordinates [..., 3] (or [..., 2] of a picture) from the working grid to the file's grid."""
        return _transformed(self.to_original, position)

    def box_to_working(
        self, minimum: Sequence[float], maximum: Sequence[float]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bring a box (inclusive voxel coordinates) to the working grid: the smallest box around its corners."""
        corners = self.point_to_working(list(product(*zip(minimum, maximum, strict=True))))
        return corners.min(axis=0), corners.max(axis=0)

    @property
    def _turn(self) -> NDArray[np.float64]:
        """Orientation transform [3, 2] from the orthogonal grid to the working grid."""
        if self.volume.dims == 2:
            return _NO_TURN
        return orientation_transform(self.orthogonal, "RAS")

    @property
    def _is_exact(self) -> bool:
        return self.orthogonal is self.original

    def _turned_back(self, values: NDArray[Any]) -> NDArray[Any]:
        if values.shape != self.volume.grid.shape:
            raise GeometryError(f"an array of shape {values.shape} is not on the working grid {self.volume.grid.shape}")
        return apply_orientation(values, _inverse(self._turn))


_NO_TURN = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])


def to_working(volume: Volume, *, nearest: bool = False) -> Working:
    """Bring a volume to the working grid.

    Args:
        volume: any volume; a view of its voxels is used wherever no resampling is needed.
        nearest: it is a label map; resample sheared grids without mixing values.

    Returns:
        the volume on its working grid, with a warning where it had to be resampled.
    """
    original, orthogonal = volume.grid, volume.grid
    if original.shear > LARGEST_SHEAR:
        orthogonal = orthogonalised(original)
        order, voxels = (0 if nearest else 1), volume.voxels
        fills = [0 if nearest else channel.min() for channel in voxels]
        straight = [
            resample(channel, source=original, target=orthogonal, order=order, fill=fill)
            for channel, fill in zip(voxels, fills, strict=True)
        ]
        warning = (
            f"{volume.source or 'array'}: the grid is sheared (cosine {original.shear:.3f} between two axes); "
            "resampled to an orthogonal grid, results return to the original one"
        )
        volume = replace(volume, voxels=np.stack(straight), grid=orthogonal, warnings=(*volume.warnings, warning))
    turned = volume if volume.dims == 2 else volume.reoriented("RAS")
    return Working(turned, original, orthogonal)


def orthogonalised(grid: Grid) -> Grid:
    """Build the orthogonal grid that covers a sheared one.

    The two axes closest to a right angle keep their plane, so slices acquired under a gantry tilt stay slices and are
    only shifted in themselves; the third axis becomes the normal of that plane (Gram-Schmidt, by QR decomposition).
    """
    matrix = grid.affine[:3, :3]
    directions = matrix / np.asarray(grid.spacing)
    cosines = {(a, b): abs(directions[:, a] @ directions[:, b]) for a, b in ((0, 1), (0, 2), (1, 2))}
    first, second = min(cosines, key=lambda pair: cosines[pair])
    order = [first, second, 3 - first - second]
    q, r = np.linalg.qr(matrix[:, order])
    straight = np.empty((3, 3))
    straight[:, order] = q * np.diag(r)  # each column keeps its sense and its length along the new axis
    corners = np.array(list(product(*[(0, size - 1) for size in grid.shape]))) @ matrix.T @ np.linalg.inv(straight).T
    low = np.floor(corners.min(axis=0) + 1e-6)
    high = np.ceil(corners.max(axis=0) - 1e-6)
    affine = np.eye(4)
    affine[:3, :3] = straight
    affine[:3, 3] = grid.affine[:3, 3] + straight @ low
    i, j, k = (high - low).astype(int) + 1
    return Grid((int(i), int(j), int(k)), affine, grid.unit)


def _voxel_map(source: Grid, target: Grid) -> NDArray[np.float64]:
    """[4, 4] matrix from voxels of `source` to voxels of `target`; exactly the identity for one grid."""
    return np.eye(4) if source is target else np.linalg.solve(target.affine, source.affine).astype(np.float64)


def _inverse(turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert an orientation transform [3, 2]."""
    inverse = np.empty_like(turn)
    for axis, (target, flip) in enumerate(turn):
        inverse[int(target)] = axis, flip
    return inverse


def _transformed(matrix: NDArray[np.float64], position: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(position, np.float64)
    full = np.zeros((*points.shape[:-1], 3))
    full[..., : points.shape[-1]] = points
    return (full @ matrix[:3, :3].T + matrix[:3, 3])[..., : points.shape[-1]]
