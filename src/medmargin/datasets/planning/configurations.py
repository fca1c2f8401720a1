"""The configurations of a plan: slices, full resolution, low resolution and the cascade of both.

Isensee et al. 2021 (doi:10.1038/s41592-020-01008-z), supplementary note 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from medmargin.datasets.planning.patch import Fit, fitted, fitted_batch
from medmargin.datasets.planning.plan import Configuration
from medmargin.datasets.planning.scale import Scale
from medmargin.datasets.planning.spacing import ANISOTROPY, is_anisotropic

SMALLEST_COVERAGE = 0.25
"""Share of the median image a full-resolution patch must cover, or a low resolution is planned as well."""
_COARSER = 1.03  # step of the search for the low resolution
_BALANCE = 2.0  # axes that are more than this factor finer than the coarsest are coarsened alone
_WORTHWHILE = 2.0  # a low resolution must halve the voxels at least


def configuration(
    name: str,
    spacing: Sequence[float],
    shape: Sequence[float],
    *,
    channels: int,
    classes: int,
    voxels: float,
    scale: Scale,
) -> Configuration:
    """Plan one network for images of one spacing.

    Args:
        spacing, shape: of the median image, per axis in network order.
        channels, classes: of the network.
        voxels: of the whole data set at the plan's spacing.

    Raises:
        BudgetError: nothing fits into the memory of the scale.
    """
    fit = fitted(spacing, shape, channels=channels, classes=classes, scale=scale)
    batch_size, batch_reason = fitted_batch(fit, voxels=voxels, scale=scale)
    return assembled(
        name, spacing, shape, fit, batch_size, {"patch": _patch_reason(fit, shape, scale), "batch_size": batch_reason}
    )


def assembled(
    name: str,
    spacing: Sequence[float],
    shape: Sequence[float],
    fit: Fit,
    batch_size: int,
    reasons: dict[str, str],
) -> Configuration:
    """Put a fitted patch and its network into a configuration, with the reasons that follow from them."""
    network, patch = fit.network, fit.patch
    flat = len(patch) == 3 and max(patch) > ANISOTROPY * patch[0]
    return Configuration(
        name=name,
        spacing=tuple(map(float, spacing)),
        median_shape=tuple(round(side) for side in shape),
        patch=patch,
        batch_size=batch_size,
        strides=network.strides,
        kernels=network.kernels,
        features=network.features,
        channels=network.channels,
        classes=network.classes,
        turns_in_plane_only=flat,
        reasons={**reasons, **_network_reasons(network.kernels, len(network.strides)), **_turn_reason(patch, flat)},
    )


def low_resolution(
    full: Configuration, shape: Sequence[float], *, voxels: float, scale: Scale
) -> tuple[Configuration | None, str]:
    """Plan a coarser configuration where the full-resolution patch sees too little of an image.

    Spacing grows by 3 % at a time, first along axes more than twice as fine as the coarsest, until the patch covers a
    quarter of the median image.

    Args:
        full: the full-resolution configuration. shape: of the median image at its spacing, not rounded.
        voxels: of the data set at full resolution.

    Returns:
        the configuration or None, and the reason in one sentence.
    """
    coverage = prod(full.patch) / prod(shape)
    seen = f"the full-resolution patch covers {min(coverage, 1):.0%} of the median image"
    if coverage >= SMALLEST_COVERAGE:
        return None, f"not needed: {seen}, at least {SMALLEST_COVERAGE:.0%}"
    spacing = list(full.spacing)
    while coverage < SMALLEST_COVERAGE:
        coarsest = max(spacing)
        fine = [axis for axis, pitch in enumerate(spacing) if coarsest / pitch > _BALANCE] or range(len(spacing))
        spacing = [pitch * _COARSER if axis in fine else pitch for axis, pitch in enumerate(spacing)]
        coarse_shape = [
            max(side * before / after, 1) for side, before, after in zip(shape, full.spacing, spacing, strict=True)
        ]
        fit = fitted(spacing, coarse_shape, channels=full.channels, classes=full.classes, scale=scale)
        coverage = prod(fit.patch) / prod(coarse_shape)
    if prod(shape) < _WORTHWHILE * prod(coarse_shape):
        return None, f"left out: {seen}, but a coarser image would save less than half of the voxels"
    planned = configuration(
        "3d_lowres", spacing, coarse_shape, channels=full.channels, classes=full.classes,
        voxels=voxels * prod(coarse_shape) / prod(shape), scale=scale,
    )  # fmt: skip
    return planned, f"{seen}, less than {SMALLEST_COVERAGE:.0%}: a coarser network sees the surroundings"


def _patch_reason(fit: Fit, shape: Sequence[float], scale: Scale) -> str:
    divisible = f"divisible by {' x '.join(map(str, _divisor(fit)))} for the poolings"
    if all(side >= round(whole) for side, whole in zip(fit.patch, shape, strict=True)):
        return f"the whole median image fits, padded to be {divisible}"
    return (
        f"of the median image's proportions, the largest with which {scale.fitted_batch} samples fit into "
        f"{scale.memory / 2**30:.3g} GB in {scale.precision} precision, {divisible}"
    )


def _divisor(fit: Fit) -> tuple[int, ...]:
    return tuple(prod(column) for column in zip(*fit.network.strides, strict=True))


def _network_reasons(kernels: Sequence[Sequence[int]], stages: int) -> dict[str, str]:
    flat = any(1 in kernel for kernel in kernels)
    return {
        "strides": f"{stages} stages: axes within a factor 2 of the finest spacing are halved while 4 voxels remain",
        "kernels": (
            "1 along the coarse axis until the other axes have become about as coarse, then 3"
            if flat
            else "3 everywhere: no axis is more than twice as coarse as the finest"
        ),
        "features": "doubled with every stage up to a cap, so that coarse stages stay affordable",
    }


def _turn_reason(patch: Sequence[int], flat: bool) -> dict[str, str]:
    if len(patch) == 2:
        return {}
    how = "more" if flat else "not more"
    return {"turns_in_plane_only": f"the longest side of the patch is {how} than {ANISOTROPY:g} times its depth"}


def resampling_reason(spacing: Sequence[float]) -> str:
    """Say why images are resampled in one piece or slice by slice."""
    if is_anisotropic(spacing):
        return (
            f"slice by slice where the slices are more than {ANISOTROPY:g} times coarser than the pixels, nearest "
            "between slices: interpolating across them would invent anatomy"
        )
    return f"cubic in one piece; only cases more than {ANISOTROPY:g} times coarser along one axis go slice by slice"
