"""Patch and batch that fit a memory. Isensee et al. 2021, supplementary note 2, "Network topology, patch and batch"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from medmargin.datasets.planning.memory import gigabytes, samples_that_fit, training_bytes
from medmargin.datasets.planning.scale import Scale
from medmargin.datasets.planning.topology import SMALLEST_EDGE, Shape, Topology, padded, topology_for
from medmargin.datasets.planning.unet import UNetShape
from medmargin.errors import BudgetError

LARGEST_SHARE = 0.05
"""Of the data set's voxels that one batch may hold; beyond it, steps see the same voxels again and again."""
SMALLEST_BATCH = 2
_FIRST_SIDE = {2: 2048, 3: 256}  # of the isotropic patch that is shrunk from, before it is cut to the median image


@dataclass(frozen=True)
class Fit:
    """A patch with the network that suits it, and the median shape it was cut from."""

    patch: Shape
    network: UNetShape


def fitted(spacing: Sequence[float], shape: Sequence[float], *, channels: int, classes: int, scale: Scale) -> Fit:
    """Find the largest patch of the median image's proportions with which `scale.fitted_batch` samples can be trained.

    From the whole median image (at most 256 voxels a side on average, 2048 in 2-D), the axis on which the patch covers
    most of the image is shortened by the smallest step the poolings allow, until training fits.

    Args:
        spacing, shape: of the median image, per axis in network order.
        channels, classes: of the network.

    Raises:
        BudgetError: even the smallest patch does not fit.
    """
    patch = tuple(round(min(side, whole)) for side, whole in zip(_first_patch(spacing), shape, strict=True))
    while True:
        fit = _networked(patch, spacing, channels=channels, classes=classes, scale=scale)
        if samples_that_fit(fit.network, fit.patch, scale.memory, scale.precision) >= scale.fitted_batch:
            return fit
        smaller = _shortened(fit.patch, spacing, shape, scale)
        if smaller is None:
            needed = training_bytes(fit.network, fit.patch, scale.fitted_batch, scale.precision)
            raise BudgetError(
                f"training on the smallest patch {_written(fit.patch)} with {scale.fitted_batch} samples needs about "
                f"{gigabytes(needed)}, more than the {gigabytes(scale.memory)} allowed. Allow more with --memory, or "
                "make the network smaller with --set base_features=... or --scale laptop."
            )
        patch = smaller


def network_for(
    topology: Topology, *, channels: int, classes: int, base_features: int, most_features: int
) -> UNetShape:
    """Put features on a topology: doubled with every stage, up to the cap."""
    features = tuple(min(base_features * 2**stage, most_features) for stage in range(len(topology.strides)))
    return UNetShape(topology.strides, topology.kernels, features, channels, classes)


def fitted_batch(fit: Fit, *, voxels: float, scale: Scale) -> tuple[int, str]:
    """Choose the batch: what fits, at most 5 % of the data set's voxels, at least 2.

    Args:
        voxels: of the whole data set at the plan's spacing.

    Returns:
        the number of samples and the reason in one sentence.
    """
    fitting = samples_that_fit(fit.network, fit.patch, scale.memory, scale.precision)
    dims = len(fit.patch)
    limits = {
        f"as many samples as fit into {scale.memory / 2**30:.3g} GB": fitting,
        f"at most {LARGEST_SHARE:.0%} of the data set's voxels in one batch": round(
            LARGEST_SHARE * voxels / prod(fit.patch)
        ),
    }
    if scale.most_samples is not None:
        limits[f"the {scale.name} scale takes at most {scale.most_samples[dims]} samples"] = scale.most_samples[dims]
    reason = min(limits, key=lambda name: limits[name])
    if limits[reason] < SMALLEST_BATCH:
        return SMALLEST_BATCH, f"{reason}, but never fewer than {SMALLEST_BATCH}"
    return limits[reason], reason


def _networked(patch: Shape, spacing: Sequence[float], *, channels: int, classes: int, scale: Scale) -> Fit:
    topology = topology_for(patch, spacing, most_stages=scale.most_stages)
    network = network_for(
        topology,
        channels=channels,
        classes=classes,
        base_features=scale.base_features,
        most_features=scale.most_features[len(patch)],
    )
    return Fit(padded(patch, topology.divisor), network)


def _first_patch(spacing: Sequence[float]) -> list[float]:
    """Give the patch that is a cube in millimetres and holds 256**3 voxels (2048**2 pixels)."""
    density = [1 / pitch for pitch in spacing]
    dims = len(density)
    factor = (_FIRST_SIDE[dims] ** dims / prod(density)) ** (1 / dims)
    return [side * factor for side in density]


def _shortened(patch: Shape, spacing: Sequence[float], shape: Sequence[float], scale: Scale) -> Shape | None:
    """Shorten the axis that covers most of the median image (ties: the last) by the smallest step that stays valid."""
    by_coverage = sorted(range(len(patch)), key=lambda axis: (patch[axis] / shape[axis], axis), reverse=True)
    for axis in by_coverage:
        full = topology_for(patch, spacing, most_stages=scale.most_stages).divisor[axis]
        shorter = [side - full if other == axis else side for other, side in enumerate(patch)]
        if shorter[axis] < SMALLEST_EDGE:
            continue
        # The shorter patch may be pooled less often, and then a finer step is enough (224 after 256, not 192).
        step = topology_for(shorter, spacing, most_stages=scale.most_stages).divisor[axis]
        return tuple(side - step if other == axis else side for other, side in enumerate(patch))
    return None


def _written(patch: Shape) -> str:
    return " x ".join(map(str, patch))
