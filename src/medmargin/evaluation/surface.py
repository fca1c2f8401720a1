"""Distances between the surfaces of two masks, under named conventions (on the same masks they give different numbers).

Two answers to "what is the surface":
- `element_surface`: pieces between voxel corners, weighted by length or area (google-deepmind/surface-distance;
  Nikolov et al. 2021, J Med Internet Res 23(7):e26151). The toolkit's surface Dice (NSD) uses it.
- `voxel_surface`: the mask minus its erosion by a cross, every voxel weighs 1 (MONAI, MetricsReloaded). The toolkit's
  HD95 and ASSD use it.

Masks are boolean, 2-D or 3-D, of equal shape; `spacing` has one number per axis and gives distances their unit.
Where a mask is empty most of these numbers do not exist: the functions then return None, and `states` holds the rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from medmargin.evaluation.surface_elements import element_areas

Mask = NDArray[Any]


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance of every surface element of one mask to the other's surface (infinite where the other is empty).

    Attributes:
        truth_to_mask, mask_to_truth: [N] and [M] distances in the unit of the spacing.
        truth_weights, mask_weights: [N] and [M] length or area of each element, or ones.
    """

    truth_to_mask: NDArray[np.float64]
    mask_to_truth: NDArray[np.float64]
    truth_weights: NDArray[np.float64]
    mask_weights: NDArray[np.float64]

    @property
    def both_exist(self) -> bool:
        """Whether both surfaces exist."""
        return bool(self.truth_to_mask.size and self.mask_to_truth.size)


def voxel_surface(truth: Mask, mask: Mask, spacing: Sequence[float]) -> SurfaceDistances:
    """Measure between surface voxels: inside voxels with a face neighbour outside (or at the edge of the image)."""
    cropped_truth, cropped_mask = _cropped(truth, mask)
    edges_truth = cropped_truth & ~ndimage.binary_erosion(cropped_truth)
    edges_mask = cropped_mask & ~ndimage.binary_erosion(cropped_mask)
    to_mask, to_truth = _nearest(edges_truth, edges_mask, spacing), _nearest(edges_mask, edges_truth, spacing)
    return SurfaceDistances(to_mask, to_truth, np.ones(to_mask.size), np.ones(to_truth.size))


def element_surface(truth: Mask, mask: Mask, spacing: Sequence[float]) -> SurfaceDistances:
    """Measure between the corners of voxels where the surface passes, weighted by its length or area there."""
    areas = element_areas(spacing)
    codes_truth, codes_mask = (_neighbourhood_codes(cropped) for cropped in _cropped(truth, mask))
    full = areas.size - 1
    at_truth = (codes_truth != 0) & (codes_truth != full)
    at_mask = (codes_mask != 0) & (codes_mask != full)
    return SurfaceDistances(
        _nearest(at_truth, at_mask, spacing),
        _nearest(at_mask, at_truth, spacing),
        areas[codes_truth[at_truth]],
        areas[codes_mask[at_mask]],
    )


def surface_dice(distances: SurfaceDistances, tolerance: float) -> float | None:
    """Compute the normalised surface distance: share of both surfaces within `tolerance` of the other one.

    Returns:
        A number in [0, 1], or None where both masks are empty.
    """
    total = distances.truth_weights.sum() + distances.mask_weights.sum()
    if not total:
        return None
    near_mask = distances.truth_weights[distances.truth_to_mask <= tolerance].sum()
    near_truth = distances.mask_weights[distances.mask_to_truth <= tolerance].sum()
    return float((near_mask + near_truth) / total)


def hausdorff(distances: SurfaceDistances, percentile: float = 95.0) -> float | None:
    """Compute the larger of the two directed percentiles, linearly interpolated (MONAI, MetricsReloaded).

    Pooling both directions before taking the percentile would be another number under the same name.
    """
    if not distances.both_exist:
        return None
    return float(max(np.percentile(side, percentile) for side in (distances.truth_to_mask, distances.mask_to_truth)))


def weighted_hausdorff(distances: SurfaceDistances, percentile: float = 95.0) -> float | None:
    """Compute the larger of the two directed percentiles by surface area, without interpolation (DeepMind)."""
    if not distances.both_exist:
        return None
    return max(
        _weighted_percentile(distances.truth_to_mask, distances.truth_weights, percentile),
        _weighted_percentile(distances.mask_to_truth, distances.mask_weights, percentile),
    )


def average_symmetric_distance(distances: SurfaceDistances) -> float | None:
    """Compute ASSD: the mean over all elements of both surfaces (MONAI, MetricsReloaded)."""
    if not distances.both_exist:
        return None
    return float(np.concatenate([distances.truth_to_mask, distances.mask_to_truth]).mean())


def directed_averages(distances: SurfaceDistances) -> tuple[float, float] | None:
    """Compute the weighted mean distance truth to mask, and mask to truth; half their sum is MASD."""
    if not distances.both_exist:
        return None
    return (
        float(np.average(distances.truth_to_mask, weights=distances.truth_weights)),
        float(np.average(distances.mask_to_truth, weights=distances.mask_weights)),
    )


def boundary_iou(truth: Mask, mask: Mask, width: float) -> float | None:
    """Compute the IoU of the inner rims: voxels less than `width` voxels from their mask's surface voxels.

    Cheng et al. 2021, arXiv:2103.16562, in the form of MetricsReloaded; None where both masks are empty.
    """
    rims = []
    for inside in _cropped(truth, mask):
        edges = inside & ~ndimage.binary_erosion(inside)
        rims.append(inside & (ndimage.distance_transform_edt(~edges) < width))
    union = np.count_nonzero(rims[0] | rims[1])
    return np.count_nonzero(rims[0] & rims[1]) / union if union else None


def _cropped(truth: Mask, mask: Mask) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Cut both masks to the box around their union, and add one empty voxel on every side."""
    truth, mask = np.asarray(truth, bool), np.asarray(mask, bool)
    union = truth | mask
    box = []
    for axis in range(union.ndim):
        rest = tuple(other for other in range(union.ndim) if other != axis)
        occupied = np.flatnonzero(union.any(axis=rest))
        box.append(slice(occupied[0], occupied[-1] + 1) if occupied.size else slice(0, 0))
    return np.pad(truth[tuple(box)], 1), np.pad(mask[tuple(box)], 1)


def _neighbourhood_codes(padded: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Code [n - 1, ..] of the 2 x 2 (x 2) neighbourhood at each inner corner of the padded mask."""
    voxels = padded.astype(np.uint8)
    codes = np.zeros([size - 1 for size in padded.shape], np.uint8)
    offsets = list(itertools.product((0, 1), repeat=padded.ndim))
    for rank, offset in enumerate(reversed(offsets)):
        window = tuple(slice(start, size - 1 + start) for start, size in zip(offset, padded.shape, strict=True))
        codes |= voxels[window] << rank
    return codes


def _nearest(start: NDArray[np.bool_], target: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance of each element of `start` (in array order) to the nearest one of `target`."""
    elements = np.argwhere(start)
    distances = np.zeros(len(elements))
    targets = np.argwhere(target)
    if not len(targets):
        return np.full(len(elements), np.inf)
    apart = ~target[start]
    size = np.asarray(spacing, np.float64)
    tree = KDTree(targets * size, balanced_tree=False, compact_nodes=False)
    _, nearest = tree.query(elements[apart] * size)
    # From whole steps, so that a distance which equals the tolerance is not lost to rounding.
    steps = elements[apart] - targets[nearest]
    distances[apart] = np.sqrt(((steps * size) ** 2).sum(axis=1))
    return distances


def _weighted_percentile(distances: NDArray[np.float64], weights: NDArray[np.float64], percentile: float) -> float:
    order = np.lexsort((weights, distances))
    share = np.cumsum(weights[order]) / weights.sum()
    position = int(np.searchsorted(share, percentile / 100.0))
    return float(distances[order][min(position, distances.size - 1)])
