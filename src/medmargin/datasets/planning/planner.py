"""From a fingerprint to a plan: each rule in turn, with its reason, unless the user decided.

Isensee et al. 2021, "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature
Methods 18, doi:10.1038/s41592-020-01008-z, with its supplementary note 2; limits of nnU-Net 2.

Deviations: the axis that is shortened stops at 4 voxels; the memory counts weights, gradients and momentum beside the
feature maps; of data sets with one slice per volume only slices are planned; the laptop scale is not from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from medmargin.datasets.planning.configurations import configuration, low_resolution, resampling_reason
from medmargin.datasets.planning.custom import customised
from medmargin.datasets.planning.fingerprint import Fingerprint
from medmargin.datasets.planning.normalisation import Normalisation, normalisation_of
from medmargin.datasets.planning.overrides import Overrides
from medmargin.datasets.planning.patch import Fit, fitted_batch
from medmargin.datasets.planning.plan import Configuration, Plan, Resampling
from medmargin.datasets.planning.scale import PAPER, Scale
from medmargin.datasets.planning.spacing import ANISOTROPY, axis_order, median_shape, target_spacing
from medmargin.errors import ConfigError

_ASKED = "asked for"
_RESAMPLINGS = {
    None: Resampling(),
    "whole": Resampling(slicewise_beyond=None),
    "slicewise": Resampling(slicewise_beyond=0.0),
}


@dataclass(frozen=True)
class _Images:
    """The median image in network order (D, H, W), and the voxels of all cases together."""

    order: tuple[int, int, int]
    spacing: tuple[float, ...]
    shape: tuple[float, ...]
    cases: int

    @property
    def voxels(self) -> float:
        return prod(self.shape) * self.cases

    @property
    def has_one_slice(self) -> bool:
        return self.shape[0] < 2


def make_plan(
    fingerprint: Fingerprint, *, scale: Scale = PAPER, dims: int | None = None, overrides: Overrides | None = None
) -> Plan:
    """Plan a data set.

    Args:
        fingerprint: of its training cases.
        scale: limits of memory, features and batch.
        dims: 2 plans slices only, 3 volumes only; None: both where there are volumes.
        overrides: the user's choices; what follows from them is planned by the rules.

    Raises:
        ConfigError: choices that make no sense together. BudgetError: nothing fits into the memory.
    """
    asked = overrides or Overrides()
    scale = _scale(scale, asked)
    images, reasons = _images(fingerprint, asked)
    dims = _dims(dims, asked, images, fingerprint)
    configurations = _configurations(
        fingerprint, images, scale, dims, reasons, is_spacing_asked=asked.spacing is not None
    )
    chosen, reasons["configuration"] = _chosen(configurations, asked, images, reasons, scale, fingerprint.task.unit)
    final = [
        customised(planned, asked, voxels=_voxels(planned, images), scale=scale) if planned.name == chosen else planned
        for planned in configurations
    ]
    return Plan(
        dataset=fingerprint.task.name,
        cases=fingerprint.cases,
        scale=scale.name,
        memory=scale.memory,
        precision=scale.precision,
        unit=fingerprint.task.unit,
        axis_order=images.order,
        slices=round(images.shape[0]),
        crop=_crop(fingerprint, asked, reasons),
        normalisation=_normalisations(fingerprint, asked, reasons),
        resampling=_resampling(asked, images, reasons),
        configurations=tuple(final),
        chosen=chosen,
        reasons=reasons,
    )


def _scale(scale: Scale, asked: Overrides) -> Scale:
    most = scale.most_features if asked.most_features is None else {2: asked.most_features, 3: asked.most_features}
    return replace(
        scale,
        precision=asked.precision or scale.precision,
        base_features=asked.base_features or scale.base_features,
        most_features=most,
        most_stages=asked.most_stages or scale.most_stages,
    )


def _images(fingerprint: Fingerprint, asked: Overrides) -> tuple[_Images, dict[str, str]]:
    """Choose the order of the axes and the target spacing."""
    spacings, shapes = np.array(fingerprint.spacings), np.array(fingerprint.shapes)
    target, spacing_reason = target_spacing(spacings, shapes)
    if fingerprint.task.unit == "px" and fingerprint.task.dims == 3:
        spacing_reason += "; the true voxel size is unknown, so thick slices cannot be told from thin ones"
    order, order_reason = axis_order(target, np.median(shapes, axis=0).tolist())
    if asked.axis_order is not None:
        order, order_reason = asked.axis_order, _ASKED
    target = tuple(target[axis] for axis in order)
    if asked.spacing is not None:
        if len(asked.spacing) not in (2, 3):
            raise ConfigError(f"spacing: {len(asked.spacing)} numbers; expected 3 (D, H, W), or 2 (H, W) for slices")
        target, spacing_reason = (target[: 3 - len(asked.spacing)] + asked.spacing), _ASKED
    shape = median_shape(spacings[:, list(order)], shapes[:, list(order)], target)
    d, h, w = order
    reasons = {"axis_order": order_reason, "spacing": spacing_reason}
    return _Images((d, h, w), target, shape, fingerprint.cases), reasons


def _dims(dims: int | None, asked: Overrides, images: _Images, fingerprint: Fingerprint) -> int | None:
    """Choose which dimensions are planned; volumes of one slice are pictures.

    Raises:
        ConfigError: volumes are asked for where there are only pictures, or two choices contradict each other.
    """
    if dims not in (None, 2, 3):
        raise ConfigError(f"dims {dims}: expected 2 or 3")
    wanted = int(asked.configuration[0]) if asked.configuration else dims
    if dims is not None and wanted != dims:
        raise ConfigError(f"configuration={asked.configuration} is {wanted}-D, but {dims} dimensions are asked for")
    if images.has_one_slice and wanted == 3:
        raise ConfigError(
            f"'{fingerprint.task.name}': the median image is one slice ({_written(images.shape)} voxels), which a 3-D "
            "network cannot use; plan it with --dims 2"
        )
    return 2 if images.has_one_slice else dims


def _configurations(
    fingerprint: Fingerprint,
    images: _Images,
    scale: Scale,
    dims: int | None,
    reasons: dict[str, str],
    *,
    is_spacing_asked: bool,
) -> list[Configuration]:
    sizes = {"channels": len(fingerprint.task.channels), "classes": fingerprint.task.num_classes}
    planned = []
    if dims != 3:
        planned.append(_slices(images, sizes, scale, is_spacing_asked=is_spacing_asked))
    if dims != 2:
        full = configuration("3d_fullres", images.spacing, images.shape, **sizes, voxels=images.voxels, scale=scale)
        coarse, reasons["3d_lowres"] = low_resolution(full, images.shape, voxels=images.voxels, scale=scale)
        planned += [full] if coarse is None else [full, coarse, _cascade(full, coarse, images, scale)]
    return planned


def _slices(images: _Images, sizes: dict[str, int], scale: Scale, *, is_spacing_asked: bool) -> Configuration:
    """Plan the network of slices; at a small scale long ones are brought to a side it can learn in minutes."""
    spacing, shape = images.spacing[1:], images.shape[1:]
    factor = 1.0 if scale.longest_side is None or is_spacing_asked else max(1.0, max(shape) / scale.longest_side)
    coarse = [side / factor for side in shape]
    planned = configuration(
        "2d", [pitch * factor for pitch in spacing], coarse, **sizes,
        voxels=images.voxels / factor**2, scale=scale,
    )  # fmt: skip
    if factor == 1:
        return planned
    reason = f"{factor:.3g} times coarser: the {scale.name} scale brings longer slices to {scale.longest_side} pixels"
    return replace(planned, reasons={**planned.reasons, "spacing": reason})


def _cascade(full: Configuration, coarse: Configuration, images: _Images, scale: Scale) -> Configuration:
    """Plan the full-resolution network that also sees the low-resolution answer, one channel per structure."""
    cascade = replace(
        full,
        name="3d_cascade",
        channels=full.channels + full.classes - 1,
        previous=coarse.name,
    )
    batch_size, reason = fitted_batch(Fit(full.patch, cascade.network), voxels=images.voxels, scale=scale)
    return replace(cascade, batch_size=batch_size, reasons={**full.reasons, "batch_size": reason})


def _chosen(
    configurations: list[Configuration],
    asked: Overrides,
    images: _Images,
    reasons: dict[str, str],
    scale: Scale,
    unit: str,
) -> tuple[str, str]:
    names = [planned.name for planned in configurations]
    if asked.configuration is not None:
        if asked.configuration not in names:
            raise ConfigError(
                f"configuration={asked.configuration}: not planned for these images; planned: {', '.join(names)}. "
                f"3d_lowres: {reasons.get('3d_lowres', 'only where volumes are planned')}"
            )
        return asked.configuration, _ASKED
    if names == ["2d"]:
        return "2d", "the images are single slices" if images.has_one_slice else "only slices were asked for"
    if "2d" in names and unit == "px" and images.shape[0] * ANISOTROPY < min(images.shape[1:]):
        return "2d", "few slices of unknown thickness: only within a slice are distances known to be alike"
    if scale.name == "laptop" and "3d_lowres" in names:
        return "3d_lowres", "at full resolution a small patch sees too little of the image to know where it is"
    others = " and ".join(name for name in names if name != "3d_fullres")
    reason = "a volume's context lies in all three directions"
    return "3d_fullres", f"{reason}; cross-validate {others} beside it" if others else reason


def _voxels(planned: Configuration, images: _Images) -> float:
    """Count the voxels of the data set at the configuration's spacing; slices are counted all."""
    return images.cases * prod(planned.median_shape) * (images.shape[0] if planned.dims == 2 else 1)


def _normalisations(fingerprint: Fingerprint, asked: Overrides, reasons: dict[str, str]) -> tuple[Normalisation, ...]:
    channels = fingerprint.task.channels
    schemes: tuple[str | None, ...] = asked.normalisation or (None,)
    if len(schemes) == 1:
        schemes *= len(channels)
    if len(schemes) != len(channels):
        raise ConfigError(f"normalisation: {len(schemes)} schemes for {len(channels)} channels ({', '.join(channels)})")
    chosen = []
    for channel, scheme in zip(channels, schemes, strict=True):
        one, reasons[f"normalisation of {channel}"] = normalisation_of(
            channel, fingerprint, scheme=scheme, within_mask=asked.within_mask
        )
        chosen.append(one)
    return tuple(chosen)


def _resampling(asked: Overrides, images: _Images, reasons: dict[str, str]) -> Resampling:
    has_slices = not images.has_one_slice
    spacing = images.spacing if has_slices else images.spacing[1:]
    reasons["resampling"] = resampling_reason(spacing) if asked.resampling is None else _ASKED
    return _RESAMPLINGS[asked.resampling]


def _crop(fingerprint: Fingerprint, asked: Overrides, reasons: dict[str, str]) -> bool:
    share = f"the box around the non-zero voxels holds {fingerprint.kept:.0%} of the median image"
    reasons["crop"] = _ASKED if asked.crop is not None else f"{share}; the rest is nothing but zeros"
    return asked.crop is not False


def _written(shape: tuple[float, ...]) -> str:
    return " x ".join(f"{side:g}" for side in shape)
