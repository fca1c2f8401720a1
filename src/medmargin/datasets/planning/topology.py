"""Pooling and kernels of a U-Net from patch and spacing. Isensee et al. 2021, supplementary note 2, "Architecture"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

SMALLEST_EDGE = 4
"""Voxels a feature map keeps along every pooled axis."""
_NEAR = 2.0  # axes within this factor of the finest spacing are pooled together and convolved together

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Topology:
    """Strides and kernels per stage, finest first.

    Attributes:
        strides: of the first convolution of each stage; all 1 in the first stage.
        kernels: of the convolutions of each stage; 1 along an axis that is still too coarse to mix.
    """

    strides: tuple[Shape, ...]
    kernels: tuple[Shape, ...]

    @property
    def divisor(self) -> Shape:
        """What the patch must be divisible by, per axis."""
        return divisor_of(self.strides)


def divisor_of(strides: Sequence[Sequence[int]]) -> Shape:
    """Multiply the strides of all stages, per axis."""
    divisor = [1] * len(strides[0])
    for stage in strides:
        divisor = [product * stride for product, stride in zip(divisor, stage, strict=True)]
    return tuple(divisor)


def topology_for(patch: Sequence[int], spacing: Sequence[float], *, most_stages: int | None = None) -> Topology:
    """Halve the finest axes until a map would become shorter than 4, and convolve an axis once it is about as fine.

    An axis is halved where the map keeps at least 4 voxels along it and its spacing lies within a factor 2 of the
    finest axis that can be halved; the last axis that is left needs 12 voxels. Kernels are 1 along an axis until its
    spacing lies within a factor 2 of the finest one, then 3 from there on; the coarsest stage has 3 everywhere.

    Args:
        patch, spacing: per axis. most_stages: cap of the number of stages.
    """
    size, pitch = list(patch), list(spacing)
    strides: list[Shape] = [(1,) * len(size)]
    kernels: list[Shape] = []
    kernel = [1] * len(size)
    while most_stages is None or len(strides) < most_stages:
        pooled = _pooled_axes(size, pitch)
        if not pooled:
            break
        kernel = [3 if side == 3 or pitch[axis] / min(pitch) < _NEAR else 1 for axis, side in enumerate(kernel)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in pooled else 1 for axis in range(len(size))))
        for axis in pooled:
            size[axis], pitch[axis] = ceil(size[axis] / 2), pitch[axis] * 2
    kernels.append((3,) * len(size))
    return Topology(tuple(strides), tuple(kernels))


def padded(patch: Sequence[int], divisor: Sequence[int]) -> Shape:
    """Enlarge a patch to the next multiple of the divisor."""
    return tuple(ceil(side / factor) * factor for side, factor in zip(patch, divisor, strict=True))


def _pooled_axes(size: Sequence[int], pitch: Sequence[float]) -> list[int]:
    large = [axis for axis in range(len(size)) if size[axis] >= 2 * SMALLEST_EDGE]
    if not large:
        return []
    finest = min(pitch[axis] for axis in large)
    pooled = [axis for axis in large if pitch[axis] / finest < _NEAR]
    return [] if len(pooled) == 1 and size[pooled[0]] < 3 * SMALLEST_EDGE else pooled
