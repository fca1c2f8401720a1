"""Memory before a volume is segmented: what it will need, and the batches and strips that fit."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from medmargin.datasets.planning import Configuration, Plan, require_memory
from medmargin.imaging import Volume
from medmargin.imaging.volume import orientation_transform
from medmargin.inference.budget import TARGET
from medmargin.inference.window_averages import layers_at_once
from medmargin.inference.window_network import Answers
from medmargin.inference.windows import window_axes
from medmargin.transforms.regridding import resampled_shape

Shape = tuple[int, int, int]

_LEAST_ROOM = 2**30  # bytes for slices and windows where the result alone exceeds the aim
_WORKSPACE = 192 * 2**20  # bytes that libraries take for themselves at the first call
# Small windows share a batch: torch's 3-D convolutions were 2 to 7 times slower on one window of 40 x 56 x 40 or 32^3
# voxels than on two. From 64^3 voxels on each of them got slower with every further one.
_MOST_WINDOWS, _MOST_VOXELS = 16, 2**18
_NETWORK_BYTES = 8  # per number held in a pass: float32, and as much again for what convolutions rearrange
_WINDOW_BYTES = 16  # per voxel and answer of a window: logits, answers, means and shares
_SLICE_BYTES = 32  # per voxel and answer of a slice: as it comes, between slices, resampled, with its entropies
_LABEL_BYTES, _TOTAL_BYTES, _PARTS_BYTES, _VACUITY_BYTES, _PROBABILITY_BYTES = 3, 4, 8, 4, 8
_RULES_BYTES = 8  # probability of what has a voxel, the mask of one structure and its connected pieces


@dataclass(frozen=True)
class VolumeGeometry:
    """Sizes of one case, in network order.

    Attributes:
        image: voxels [D, H, W] to answer. grid: voxels [D, H, W] that windows slide over. patch: [d, h, w] of a window.
    """

    image: Shape
    grid: Shape
    patch: Shape


@dataclass(frozen=True)
class VolumeBudget:
    """How much to do at a time.

    Attributes:
        batch: windows in the network at once. strips: parts of the slices that are predicted one after the other.
        estimate: bytes the whole process is expected to hold at its peak.
    """

    batch: int
    strips: int
    estimate: int


def expected_geometry(volume: Volume, plan: Plan, configuration: Configuration, patch: Shape) -> VolumeGeometry:
    """Tell sizes before anything is computed; cropping can only make them smaller."""
    shape, spacing = np.array(volume.grid.shape), np.array(volume.spacing)
    if volume.dims == 3:
        turn = np.argsort(orientation_transform(volume.grid, "RAS")[:, 0])
        shape, spacing = shape[turn], spacing[turn]
    order = list(plan.axis_order)
    is_known = plan.unit == volume.grid.unit == "mm"
    d, h, w = spacing[order].tolist() if is_known else (1.0, 1.0, 1.0)
    deep, high, wide = (d, *configuration.spacing)[-3:]
    image = _shape(shape[order])
    return VolumeGeometry(image, resampled_shape(image, (d, h, w), (deep, high, wide)), patch)


def plan_volume(
    geometry: VolumeGeometry,
    answers: Answers,
    configuration: Configuration,
    *,
    in_use: int,
    limit: int | None,
    name: str,
    step: float,
    keep_probabilities: bool,
    has_rules: bool,
    may_cut: bool,
) -> VolumeBudget:
    """Choose the batch and the strips that keep the whole process within `limit`.

    Args:
        in_use: bytes the process held with the image, before any work.
        limit: bytes the process may hold; None aims at 4 GiB and refuses nothing.
        name: of the image, for messages. step: between windows.
        keep_probabilities: whether a map per structure is kept.
        has_rules: whether labels are corrected afterwards. may_cut: whether a slice may be predicted in strips.

    Raises:
        BudgetError: even one window and the narrowest strip at a time need more than `limit`.
    """
    result = prod(geometry.image) * _result_bytes(answers, keep_probabilities, has_rules)
    prepared = 4 * configuration.channels * prod(geometry.grid)
    preparing = 4 * (configuration.channels + 2) * prod(geometry.image)
    fixed = in_use + _WORKSPACE + prepared + max(result, preparing)
    room = (limit or TARGET) - fixed if limit else max(TARGET - fixed, _LEAST_ROOM)
    most = _most_strips(geometry) if may_cut else 1

    def busy(batch: int, strips: int) -> int:
        return _busy_bytes(geometry, answers, configuration, step=step, batch=batch, strips=strips)

    strips = next((count for count in range(1, most + 1) if busy(1, count) <= room), most)
    needed = fixed + busy(1, strips)
    if limit is not None:
        require_memory(
            needed,
            limit,
            what=f"{name}: segmenting {' x '.join(map(str, geometry.image))} voxels",
            cure="Allow more with --memory, crop the image, or leave out --probabilities.",
        )
    batches = range(min(_MOST_WINDOWS, max(1, _MOST_VOXELS // prod(geometry.patch))), 0, -1)
    batch = next((count for count in batches if busy(count, strips) <= room), 1)
    return VolumeBudget(batch, strips, fixed + busy(batch, strips))


def _result_bytes(answers: Answers, keep_probabilities: bool, has_rules: bool) -> int:
    """Bytes per voxel of the image of everything that is kept of it."""
    return (
        _LABEL_BYTES
        + _TOTAL_BYTES
        + _PARTS_BYTES * answers.is_split
        + _VACUITY_BYTES * (answers.evidence is not None)
        + _RULES_BYTES * has_rules
        + _PROBABILITY_BYTES * answers.structures * keep_probabilities
    )


def _busy_bytes(
    geometry: VolumeGeometry, answers: Answers, configuration: Configuration, *, step: float, batch: int, strips: int
) -> int:
    """Bytes of the windows in the network, of the slices they add to and of the slice that is being finished."""
    depth, height, width = window_axes(geometry.grid, geometry.patch, step)
    in_strip = -(-len(height.starts) // strips) * len(width.starts)
    layers = layers_at_once(batch, in_strip)
    between = max(np.diff(depth.starts), default=0)
    held = min(depth.size, depth.window + (layers - 1) * int(between))
    slab = 4 * answers.channels * held * -(-height.size // strips) * width.size
    network = configuration.network.live_in_prediction(geometry.patch[3 - configuration.dims :])
    window = network * _NETWORK_BYTES + prod(geometry.patch) * answers.channels * _WINDOW_BYTES
    rows = -(-geometry.image[1] // strips)
    slice_work = answers.channels * rows * geometry.image[2] * _SLICE_BYTES
    return slab + batch * window + slice_work


def _most_strips(geometry: VolumeGeometry) -> int:
    """Count the strips of a quarter of a window; in narrower ones almost all windows would be computed many times."""
    return max(1, 4 * geometry.grid[1] // geometry.patch[1])


def _shape(sides: np.ndarray) -> Shape:
    depth, height, width = (int(side) for side in sides)
    return depth, height, width
