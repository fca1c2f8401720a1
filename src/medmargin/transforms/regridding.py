"""Voxels at another spacing: images and labels on the way into a network, its answer slice by slice on the way out.

Isensee et al. 2021 (doi:10.1038/s41592-020-01008-z), "resampling": images cubic, labels linear per value, answers
linear; anisotropic images slice by slice. Voxels are boxes that share the image's outer faces (align_corners=False),
and beyond its rim an image stays as it is there: `scipy.ndimage.zoom(grid_mode=True, mode="nearest")`, clipped to the
range of the source. That is linear and separable: the matrices of the three axes give the same numbers in a fraction of
the time, and in float32.

Deviations: a voxel takes the label with the largest share; nnU-Net 2 leaves it background where no share reaches half.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

SAME_SPACING = 1e-3
"""Spacings that differ by less, relatively, are the same; a longer axis would otherwise change for nothing."""

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
_Weights = list[NDArray[np.float32] | None]  # per axis [target, source]; None: unchanged


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> Shape:
    """Compute the voxels an image of `shape` and `spacing` has at the spacing `target`: rounded, at least 1 each."""
    d, h, w = (
        side if abs(own / wanted - 1) <= SAME_SPACING else max(1, round(side * own / wanted))
        for side, own, wanted in zip(shape, spacing, target, strict=True)
    )
    return d, h, w


def slice_axis(spacing: Sequence[float], target: Sequence[float], *, beyond: float | None) -> int | None:
    """Choose the axis across which an image is resampled slice by slice.

    Args:
        beyond: the coarsest spacing of the image, or else of the target, must be more than this many times the finest;
            None: never.

    Returns:
        the coarsest axis; None: in one piece, also where two axes are the coarsest.
    """
    if beyond is None:
        return None
    for candidate in (spacing, target):
        coarsest = max(candidate)
        if coarsest > beyond * min(candidate):
            axes = [axis for axis, pitch in enumerate(candidate) if pitch >= coarsest * (1 - SAME_SPACING)]
            return axes[0] if len(axes) == 1 else None
    return None


def resampled(
    values: NDArray[np.float32], shape: Shape, *, order: int, through: int | None = None, through_order: int = 0
) -> NDArray[np.float32]:
    """Resample an image; no value leaves the range of the source (of its slice, where slices are resampled alone).

    Args:
        values: [D, H, W].
        shape: (D', H', W').
        order: of the spline, 0 nearest, 1 linear, 3 cubic.
        through: axis that is resampled with `through_order` instead, after the slices across it.

    Returns:
        [D', H', W']; `values` itself where the shapes agree.
    """
    if values.shape == shape:
        return values
    weights = _weights_of(values.shape, shape, order, through, through_order)
    over = tuple(axis for axis in range(3) if axis != through)
    low, high = values.min(axis=over, keepdims=True), values.max(axis=over, keepdims=True)
    found = _multiplied(values, [None if axis == through else own for axis, own in enumerate(weights)])
    if found is not values:
        np.clip(found, low, high, out=found)
    return found if through is None else _multiplied(found, [weights[a] if a == through else None for a in range(3)])


def resampled_labels(
    labels: NDArray, shape: Shape, *, order: int, through: int | None = None, through_order: int = 0
) -> NDArray:
    """Resample a label map: each voxel takes the value with the largest resampled share, the greater of equals.

    Args:
        labels: [D, H, W], whole numbers of 0 and above.
        shape, order, through, through_order: as in `resampled`.

    Returns:
        [D', H', W'] of the same dtype; `labels` itself where the shapes agree.
    """
    from scipy import ndimage  # slow to import

    if labels.shape == shape:
        return labels
    weights = _weights_of(labels.shape, shape, order, through, through_order)
    found, largest = np.zeros(shape, labels.dtype), np.zeros(shape, np.float32)
    for value, box in enumerate(ndimage.find_objects(np.add(labels, 1, dtype=np.int32))):  # most boxes are small
        if box is None:
            continue
        parts = [_part(own, side) for own, side in zip(weights, box, strict=True)]
        place = tuple(where for where, _ in parts)
        share = _multiplied((labels[box] == value).astype(np.float32), [own for _, own in parts])
        np.copyto(found[place], value, where=share >= largest[place])
        np.maximum(largest[place], share, out=largest[place])
    return found


def to_slices(
    averages: Iterable[tuple[int, NDArray[np.float32]]],
    source_shape: Shape,
    target_shape: Shape,
    *,
    through: Literal["linear", "nearest"] = "linear",
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Bring a network's answer to another grid, linearly and slice by slice; two slices are held at most.

    Args:
        averages: (z, [A, H, W]) for z = 0 .. D-1 in this order. A slice must not be written into until the next has
            been asked for twice.
        source_shape, target_shape: (D, H, W) and (D', H', W').
        through: interpolation between slices.

    Yields:
        (z', [A, H', W']) for z' = 0 .. D'-1, not to be written into: a slice may come again. Where the shapes agree,
        the arrays of `averages` themselves.

    Raises:
        ValueError: slices are missing or out of order.
    """
    lower, upper, fraction = _neighbours(source_shape[0], target_shape[0], through)
    needed = {*lower, *upper}
    previous: NDArray[np.float32] | None = None
    target = 0
    for expected, (z, values) in enumerate(averages):
        if z != expected or z == source_shape[0]:
            raise ValueError(f"slice {z} came where slice {expected} of {source_shape[0]} was expected")
        current = _resized(values, target_shape[1:]) if z in needed else None
        while target < target_shape[0] and upper[target] == z and current is not None:
            if fraction[target] == 0 or previous is None:  # then it lies on the slice, or before the first
                yield target, current
            else:
                yield target, previous + np.float32(fraction[target]) * (current - previous)
            target += 1
        previous = current
    if target < target_shape[0]:
        raise ValueError(f"the slices of {source_shape} ended before slice {target} of {target_shape}")


def places_between(source: int, target: int) -> NDArray[np.float64]:
    """Tell where the `target` voxels of an axis lie on its `source` voxels, as places from 0 to source - 1."""
    return np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)


def _neighbours(source: int, target: int, through: str) -> tuple[list[int], list[int], list[float]]:
    """Find, per target slice, the source slices below and above it and how far it lies between them (0: on `upper`)."""
    nearest = [(2 * index + 1) * source // (2 * target) for index in range(target)]
    if through == "nearest" or source == target:
        return nearest, nearest, [0.0] * target
    positions = places_between(source, target)
    upper = np.ceil(positions).astype(int)
    lower = np.floor(positions).astype(int)
    return lower.tolist(), upper.tolist(), (positions - lower).tolist()


def _resized(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Resize pictures [A, H, W] linearly; the array itself where the shape is right."""
    if values.shape[1:] == shape:
        return values
    height, width = shape
    pictures = [cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR) for picture in values]
    return np.stack(pictures).astype(np.float32, copy=False)


def axis_weights(source: int, target: int, *, order: int) -> NDArray[np.float32]:
    """Compute the matrix [target, source] by which a spline of this order resamples one axis."""
    from scipy import ndimage  # slow to import

    columns = [
        ndimage.zoom(unit, target / source, order=order, mode="nearest", grid_mode=True) for unit in np.eye(source)
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _weights_of(source: Sequence[int], target: Shape, order: int, through: int | None, through_order: int) -> _Weights:
    return [
        None if old == new else axis_weights(old, new, order=through_order if axis == through else order)
        for axis, (old, new) in enumerate(zip(source, target, strict=True))
    ]


def _multiplied(values: NDArray[np.float32], weights: _Weights) -> NDArray[np.float32]:
    """Apply each axis's matrix to [D, H, W], the one that shrinks most first; no matrix: `values` itself."""
    changed = [(axis, own) for axis, own in enumerate(weights) if own is not None]
    for axis, own in sorted(changed, key=lambda pair: pair[1].shape[0] / pair[1].shape[1]):
        if axis == 0:
            values = (own @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])
        elif axis == 1:
            values = own @ values  # [H', H] @ [D, H, W]
        else:
            values = values @ own.T  # [D, H, W] @ [W, W']
    return values


def _part(weights: NDArray[np.float32] | None, box: slice) -> tuple[slice, NDArray[np.float32] | None]:
    """Cut out the target voxels of one axis that see the source voxels `box`, and their weights."""
    if weights is None:
        return box, None
    seen = np.flatnonzero(weights[:, box].any(axis=1))
    place = slice(int(seen[0]), int(seen[-1]) + 1) if seen.size else slice(0, 0)
    return place, weights[place, box]
