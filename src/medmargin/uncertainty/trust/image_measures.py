"""What an image is like before anything is segmented: grey values, likeness of neighbours, size and voxel size.

Images are turned to the orientation closest to RAS first, as the network sees them, so a flipped file is the same.
Grey values are given relative to the image's own robust range (0.5 to 99.5 percentile), because most modalities have no
unit; CT has one, and its raw HU are measured too. At most 100 000 voxels per channel are read, drawn from a fixed seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError
from medmargin.imaging.volume import Grid, Volume

Group = Literal["intensity", "geometry"]

_SAMPLES = 100_000
_AXES = {3: ("from left to right", "from back to front", "from foot to head"), 2: ("across", "down")}
_RANGE = (0.5, 99.5)
_RELATIVE = (5, 25, 50, 75, 95)


class Kind(NamedTuple):
    """A kind of feature: how a sentence gives it, and the smallest difference that matters.

    Attributes:
        group: "intensity" or "geometry".
        sentence: with {value}, {where} and {unit}.
        shown: format of one value. resolution: in the feature's own scale. is_log: measured as natural logarithm.
    """

    group: Group
    sentence: str
    shown: str
    resolution: float
    is_log: bool = False


KINDS: dict[str, Kind] = {
    **{
        f"percentile {share}": Kind(
            "intensity",
            f"{share} % of the voxels{{where}} are darker than {{value}} of its own grey range",
            ".0%",
            0.02,
        )
        for share in _RELATIVE
    },
    "darkest": Kind("intensity", "{value} of the voxels{where} have the smallest grey value", ".1%", 0.02),
    "brightest": Kind("intensity", "{value} of the voxels{where} have the largest grey value", ".1%", 0.02),
    "likeness": Kind(
        "intensity", "voxels next to each other{where} are alike by {value} (1: equal, 0: unrelated)", ".2f", 0.02
    ),
    **{
        f"HU {share:g}": Kind("intensity", f"{share:g} % of the voxels{{where}} lie below {{value}} HU", ".0f", 20.0)
        for share in (_RANGE[0], 50.0, _RANGE[1])
    },
    "voxels": Kind("geometry", "the image is {value} voxels long{where}", ".0f", 0.1, True),
    "spacing": Kind("geometry", "voxels are {value} mm apart{where}", ".2g", 0.1, True),
    "extent": Kind("geometry", "the image is {value} mm long{where}", ".0f", 0.1, True),
    "sized": Kind("geometry", "the file says how large a voxel is: {value} (1 yes, 0 no)", ".0f", 0.5),
}


@dataclass(frozen=True)
class ImageFeatures:
    """What one image is like.

    Attributes:
        values: "<kind>" or "<kind>, <where>" -> value, a logarithm where the kind is one.
        embedding: [D] description of the image by the network (its features averaged over the image), or None.
    """

    values: Mapping[str, float]
    embedding: NDArray[np.float64] | None = None


def image_features(
    image: Volume, *, modality: str = "other", embedding: NDArray[np.floating] | None = None
) -> ImageFeatures:
    """Measure an image.

    Args:
        image: voxels [C, I, J, K] in the file's own unit.
        modality: `Task.modality`; "CT" measures HU.
        embedding: [D] description by the network.

    Raises:
        DataError: voxels are NaN or infinite, or the embedding is not a vector of finite numbers.
    """
    name = image.source or "the image"
    turned = image if image.dims == 2 else image.reoriented("RAS")
    values = _geometry(turned.grid, image.dims)
    for index, channel in enumerate(turned.voxels):
        where = f" of channel {index + 1}" if image.channels > 1 else ""
        values |= _intensities(channel, image.dims, where, is_ct=modality.upper() == "CT", name=name)
    if embedding is None:
        return ImageFeatures(values)
    vector = np.asarray(embedding, np.float64)
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise DataError(f"{name}: embedding of shape {vector.shape}; expected one vector of finite numbers")
    return ImageFeatures(values, vector)


def kind_of(feature: str) -> Kind:
    """Look up the kind of a feature by its name."""
    return KINDS[feature.partition(",")[0]]


def said(feature: str, value: float) -> str:
    """Say the value of a feature in a sentence, without capital and full stop."""
    kind, where = kind_of(feature), feature.partition(",")[2]
    return kind.sentence.format(value=shown(feature, value), where=where)


def shown(feature: str, value: float) -> str:
    """Format the value of a feature as its sentence gives it."""
    kind = kind_of(feature)
    return format(float(np.exp(value)) if kind.is_log else value, kind.shown).replace("%", " %")


def _geometry(grid: Grid, dims: int) -> dict[str, float]:
    is_sized = grid.unit == "mm" and dims == 3  # a picture's spacing is a convention
    found = {"sized": float(is_sized)}
    for axis, where in enumerate(_AXES[dims]):
        found[f"voxels, {where}"] = float(np.log(grid.shape[axis]))
        if is_sized:
            found[f"spacing, {where}"] = float(np.log(grid.spacing[axis]))
            found[f"extent, {where}"] = float(np.log(grid.spacing[axis] * grid.shape[axis]))
    return found


def _intensities(channel: NDArray[Any], dims: int, of: str, *, is_ct: bool, name: object) -> dict[str, float]:
    places = _places(channel.shape)
    raw = channel[places].astype(np.float64)
    if not np.isfinite(raw).all():
        raise DataError(f"{name}: voxels{of} are NaN or infinite; expected finite grey values")
    low, high = np.percentile(raw, _RANGE)
    span = high - low if high > low else 1.0
    suffix = f",{of}" if of else ""
    relative = np.percentile((raw - low) / span, _RELATIVE)
    found = {f"percentile {share}{suffix}": float(value) for share, value in zip(_RELATIVE, relative, strict=True)}
    found[f"darkest{suffix}"] = float((raw == raw.min()).mean())
    found[f"brightest{suffix}"] = float((raw == raw.max()).mean())
    if is_ct:
        percentiles = zip((_RANGE[0], 50.0, _RANGE[1]), np.percentile(raw, (_RANGE[0], 50.0, _RANGE[1])), strict=True)
        found |= {f"HU {share:g}{suffix}": float(value) for share, value in percentiles}
    for axis, where in enumerate(_AXES[dims]):
        if channel.shape[axis] > 1:
            found[f"likeness, {where}{of}"] = _likeness(channel, places, axis, low, high)
    return found


def _places(shape: tuple[int, ...]) -> tuple[NDArray[np.intp], ...]:
    """Draw voxels, or take all of them where they are few."""
    count = int(np.prod(shape))
    flat = np.arange(count) if count <= _SAMPLES else np.random.default_rng(0).integers(0, count, _SAMPLES)
    return np.unravel_index(flat, shape)


def _likeness(channel: NDArray[Any], places: tuple[NDArray[np.intp], ...], axis: int, low: float, high: float) -> float:
    """Compute 1 - mean (x - x')^2 / (2 var x) of neighbours x, x' along an axis: their correlation; 1 if constant."""
    here = places[axis] < channel.shape[axis] - 1
    first = tuple(place[here] for place in places)
    second = tuple(place + 1 if a == axis else place for a, place in enumerate(first))
    x, y = (np.clip(channel[place].astype(np.float64), low, high) for place in (first, second))
    variance = x.var()
    return float(1 - ((x - y) ** 2).mean() / (2 * variance)) if variance > 0 else 1.0
