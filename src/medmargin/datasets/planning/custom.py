"""The chosen configuration with the user's patch, batch or network in it, checked as if it were going to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medmargin.datasets.planning.configurations import assembled
from medmargin.datasets.planning.memory import require_memory
from medmargin.datasets.planning.overrides import Overrides
from medmargin.datasets.planning.patch import Fit, fitted_batch, network_for
from medmargin.datasets.planning.plan import Configuration
from medmargin.datasets.planning.scale import Scale
from medmargin.datasets.planning.topology import Shape, Topology, divisor_of, padded, topology_for
from medmargin.datasets.planning.unet import UNetShape
from medmargin.errors import ConfigError

_ASKED = "asked for"


def customised(planned: Configuration, asked: Overrides, *, voxels: float, scale: Scale) -> Configuration:
    """Put the user's choices into a configuration; what was not asked for follows from them by the rules.

    Args:
        planned: by the rules. voxels: of the whole data set at its spacing.

    Raises:
        ConfigError: choices of the wrong length, a patch the poolings do not divide (the nearest one that they do is
            given), or maps that end in a single voxel.
        BudgetError: training would need more than `scale.memory`.
    """
    names = ("patch", "batch_size", "strides", "kernels", "features")
    chosen = [name for name in names if getattr(asked, name) is not None]
    if not chosen:
        return planned
    patch = _of_dims("patch", asked.patch, planned.dims) or planned.patch
    topology = _topology(planned, asked, patch, scale)
    if asked.patch is not None:
        _require_divisible(patch, topology, planned, asked, scale)
    fit = Fit(padded(patch, topology.divisor), _featured(planned, asked, topology, scale))
    if max(fit.network.maps(fit.patch)[-1]) < 2:
        raise ConfigError(
            f"patch {_written(patch)}: the last of {len(topology.strides)} stages would see a single voxel"
        )
    batch_size, batch_reason = fitted_batch(fit, voxels=voxels, scale=scale)
    reasons = {"patch": planned.reasons["patch"], "batch_size": batch_reason}
    samples = asked.batch_size or batch_size
    custom = assembled(planned.name, planned.spacing, planned.median_shape, fit, samples, reasons)
    custom = replace(custom, previous=planned.previous, reasons={**custom.reasons, **dict.fromkeys(chosen, _ASKED)})
    require_memory(
        custom.training_bytes(scale.precision),
        scale.memory,
        what=f"training {custom.name} on patches of {_written(custom.patch)} with {custom.batch_size} samples",
        cure="Allow more with --memory, or ask for a smaller patch, batch or network.",
    )
    return custom


def _topology(planned: Configuration, asked: Overrides, patch: Shape, scale: Scale) -> Topology:
    by_rule = topology_for(patch, planned.spacing, most_stages=scale.most_stages)
    strides = asked.strides or (by_rule.strides if asked.patch else planned.strides)
    kernels = asked.kernels
    if kernels is None:  # further stages have no coarse axis any more
        kernels = by_rule.kernels if asked.patch and not asked.strides else planned.kernels
        kernels = (kernels + (kernels[-1],) * len(strides))[: len(strides)]
    for name, stages in (("strides", strides), ("kernels", kernels)):
        if any(len(stage) != planned.dims for stage in stages):
            raise ConfigError(f"{name}: expected {planned.dims} numbers in each stage of {planned.name}, got {stages}")
    if max(strides[0]) > 1:
        raise ConfigError(f"strides: the first stage keeps the resolution of the input; got {strides[0]}, expected 1s")
    if len(kernels) != len(strides):
        raise ConfigError(f"kernels: {len(kernels)} stages, but the strides have {len(strides)}")
    if any(side % 2 == 0 for stage in kernels for side in stage):
        raise ConfigError(f"kernels: even ones shift the map by half a voxel; expected 1, 3, 5, ... got {kernels}")
    return Topology(strides, kernels)


def _featured(planned: Configuration, asked: Overrides, topology: Topology, scale: Scale) -> UNetShape:
    network = network_for(
        topology,
        channels=planned.channels,
        classes=planned.classes,
        base_features=scale.base_features,
        most_features=scale.most_features[planned.dims],
    )
    if asked.features is None:
        return network
    if len(asked.features) != len(topology.strides):
        raise ConfigError(
            f"features: {len(asked.features)} numbers for {len(topology.strides)} stages; expected as many"
        )
    return replace(network, features=asked.features)


def _require_divisible(
    patch: Shape, topology: Topology, planned: Configuration, asked: Overrides, scale: Scale
) -> None:
    if padded(patch, topology.divisor) == patch:
        return
    nearest = tuple(max(round(side / factor), 1) * factor for side, factor in zip(patch, topology.divisor, strict=True))
    if asked.strides is None:  # the nearest patch may be pooled more often than the one asked for
        divisor = divisor_of(topology_for(nearest, planned.spacing, most_stages=scale.most_stages).strides)
        nearest = padded(nearest, divisor)
    raise ConfigError(
        f"patch {_written(patch)}: its poolings need it divisible by {_written(topology.divisor)}; the nearest that "
        f"is: patch={','.join(map(str, nearest))}"
    )


def _of_dims(name: str, numbers: Sequence[int] | None, dims: int) -> Shape | None:
    if numbers is not None and len(numbers) != dims:
        raise ConfigError(f"{name}: {len(numbers)} numbers for a {dims}-D network; expected {dims}")
    return None if numbers is None else tuple(numbers)


def _written(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
