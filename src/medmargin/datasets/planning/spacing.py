"""Target spacing, order of the axes and median shape. Isensee et al. 2021, supplementary note 2, "Target spacing"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

ANISOTROPY = 3.0
"""A coarsest axis beyond this ratio to the others, in spacing and inversely in size, makes a data set anisotropic."""
_COARSE_PERCENTILE = 10

Axes = tuple[int, ...]
Spacing = tuple[float, ...]


def target_spacing(spacings: ArrayLike, shapes: ArrayLike) -> tuple[Spacing, str]:
    """Choose the voxel size that every image is resampled to.

    The median per axis. Where the coarsest axis is anisotropic, its 10th percentile instead: the median would blur the
    finer half of the images along it. It never becomes finer than the other axes.

    Args:
        spacings: [cases, axes]. shapes: [cases, axes], voxels.

    Returns:
        the spacing per axis, and the reason in one sentence.
    """
    spacings, shapes = np.asarray(spacings, float), np.asarray(shapes, float)
    target, size = np.median(spacings, axis=0), np.median(shapes, axis=0)
    coarse = int(np.argmax(target))
    others = np.delete(target, coarse)
    is_coarse = target[coarse] > ANISOTROPY * others.max()
    has_few_slices = size[coarse] * ANISOTROPY < np.delete(size, coarse).min()
    if not (is_coarse and has_few_slices):
        return tuple(target.tolist()), "the median voxel size of the cases, axis by axis"
    target[coarse] = max(np.percentile(spacings[:, coarse], _COARSE_PERCENTILE), others.max())
    return tuple(target.tolist()), (
        f"the median voxel size, but the {_COARSE_PERCENTILE}th percentile along the coarsest axis, which is more than "
        f"{ANISOTROPY:g} times coarser and shorter than the others: its median would blur the finer cases"
    )


def axis_order(spacing: Sequence[float], shape: Sequence[float]) -> tuple[Axes, str]:
    """Choose the order in which a network sees the working axes (R, A, S): the coarsest first, as slices.

    Args:
        spacing, shape: per working axis; an axis of one voxel counts as the coarsest.

    Returns:
        indices of the working axes, e.g. (2, 1, 0) for axial slices, and the reason in one sentence.
    """
    natural = (2, 1, 0)  # slices along S, rows along A, columns along R
    single = [axis for axis in natural if shape[axis] <= 1]
    first = single[0] if single else max(natural, key=lambda axis: spacing[axis])  # ties: the first, S
    what = "the axis of one voxel" if single else "the axis of the coarsest spacing (S where all are equal)"
    return (first, *(axis for axis in natural if axis != first)), f"{what} comes first and counts as the slice axis"


def median_shape(spacings: ArrayLike, shapes: ArrayLike, target: Sequence[float]) -> tuple[float, ...]:
    """Compute the median size in voxels once every case has the target spacing ([cases, axes] each)."""
    resampled = np.rint(np.asarray(shapes, float) * np.asarray(spacings, float) / np.asarray(target, float))
    return tuple(np.median(np.maximum(resampled, 1), axis=0).tolist())


def is_anisotropic(spacing: Sequence[float]) -> bool:
    """Tell whether the coarsest of the spacings is more than three times the finest."""
    return max(spacing) > ANISOTROPY * min(spacing)
