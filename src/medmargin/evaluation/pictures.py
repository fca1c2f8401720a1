"""One slice of a case, turned the way a radiologist expects it, ready to be drawn."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.evaluation.measure import CaseResult
from medmargin.imaging.volume import Volume

_DISPLAY_PERCENTILES = (0.5, 99.5)
_PERCENTILE_VOXELS = 1_000_000
_THICK = 1.5  # an axis with voxels this much longer than the others is the one along which slices were taken


@dataclass(frozen=True)
class Picture:
    """A slice in display order: row 0 is on top, column 0 on the left.

    Attributes:
        case: name.
        dice, states: of each structure in the whole case; the mean Dice sorts the pictures.
        place: "axial slice 17 of 35", or empty for a picture.
        image: [H, W] or [H, W, 3] grey values or colours in 0..1 after the display window.
        truth, labels: [H, W] label values.
        uncertainty: [H, W] in nats, or None.
        pixel_size: (height, width) of a pixel in `unit`.
        unit: "mm" or "px".
        sides: anatomical letters (left, right, top, bottom), or None where the orientation is unknown.
        window: (low, high) image values shown as black and white, or None for colours.
        edge: [H, W] probability of an edge, where the system gives one.
    """

    case: str
    dice: Mapping[str, float]
    states: Mapping[str, str]
    place: str
    image: NDArray[np.floating]
    truth: NDArray[Any]
    labels: NDArray[Any]
    uncertainty: NDArray[Any] | None
    pixel_size: tuple[float, float]
    unit: str
    sides: tuple[str, str, str, str] | None
    window: tuple[float, float] | None
    edge: NDArray[Any] | None = None


def picture(
    result: CaseResult,
    image: Volume,
    truth: NDArray[Any],
    labels: NDArray[Any],
    uncertainty: NDArray[Any] | None = None,
    *,
    window: tuple[float, float] | None = None,
    edge: NDArray[Any] | None = None,
) -> Picture:
    """Cut the slice with the most wrong voxels (without errors: with the largest structures) out of a case.

    Volumes are shown in radiological convention: the patient's right on the left, front or head on top; cut across the
    axis with far longer voxels if there is one, else axial. Pictures, and volumes of unknown spacing, stay as stored.

    Args:
        result: what `measure_case` returned for the case.
        image: the image; its first channel is shown, or its colours if it is an RGB picture.
        truth, labels: [I, J, K] on the image's grid.
        uncertainty: [I, J, K] in nats, or None.
        window: image values for black and white (HU for CT); by default the 0.5th and 99.5th percentile.
        edge: [I, J, K] probability of an edge in [0, 1], or None.
    """
    is_anatomical = image.dims == 3 and image.grid.unit == "mm"
    layers = {"truth": image.with_voxels(truth), "labels": image.with_voxels(labels), "image": image}
    layers |= {
        name: image.with_voxels(values)
        for name, values in (("uncertainty", uncertainty), ("edge", edge))
        if values is not None
    }
    if is_anatomical:
        layers = {name: volume.reoriented("LPS") for name, volume in layers.items()}
    shown = layers["image"]
    axis = _slice_axis(shown.spacing) if is_anatomical else 2
    position = _worst_slice(layers["truth"].voxels[0], layers["labels"].voxels[0], axis)
    cut = {name: _display(volume.voxels.take(position, axis=axis + 1), axis) for name, volume in layers.items()}
    is_colour = image.dims == 2 and image.channels == 3
    limits = None if is_colour else window or _percentiles(image.voxels[0])
    plane, sides = _PLANES[axis]
    count = shown.grid.shape[axis]
    width, height = (shown.spacing[other] for other in range(3) if other != axis)
    return Picture(
        case=result.case,
        dice={name: figures["dice"] for name, figures in result.entry["structures"].items()},
        states={name: figures["state"] for name, figures in result.entry["structures"].items()},
        place=f"{plane + ' ' if is_anatomical else ''}slice {position + 1} of {count}" if count > 1 else "",
        image=_colours(cut["image"]) if limits is None else _windowed(cut["image"][0], limits),
        truth=cut["truth"][0],
        labels=cut["labels"][0],
        uncertainty=cut["uncertainty"][0] if uncertainty is not None else None,
        pixel_size=(height, width),
        unit=image.grid.unit,
        sides=sides if is_anatomical else None,
        window=limits,
        edge=cut["edge"][0] if edge is not None else None,
    )


class Gallery:
    """Keeps the pictures of the worst, the best and the middle cases while an evaluation runs, and no others.

    Args:
        worst, best: how many of each.
        middle: how many near the median of the cases so far, among which the last median is sought.
    """

    def __init__(self, *, worst: int = 6, best: int = 2, middle: int = 9) -> None:
        self._worst, self._best, self._middle = worst, best, middle
        self._qualities: list[tuple[float, str]] = []
        self._kept: dict[tuple[float, str], Picture] = {}

    def offer(
        self,
        result: CaseResult,
        image: Volume,
        truth: NDArray[Any],
        labels: NDArray[Any],
        uncertainty: NDArray[Any] | None = None,
        *,
        window: tuple[float, float] | None = None,
        edge: NDArray[Any] | None = None,
    ) -> None:
        """Consider a case; the arguments are those of `picture`."""
        quality = _quality({name: figures["dice"] for name, figures in result.entry["structures"].items()}, result.case)
        insort(self._qualities, quality)
        wanted = {*self._extremes(), *self._near_median()}
        if quality in wanted:
            self._kept[quality] = picture(result, image, truth, labels, uncertainty, window=window, edge=edge)
        self._kept = {known: shown for known, shown in self._kept.items() if known in wanted}

    @property
    def pictures(self) -> list[Picture]:
        """The pictures of the worst and the best cases, the worst case first."""
        return [self._kept[quality] for quality in self._extremes()]

    @property
    def contrast(self) -> dict[str, Picture]:
        """The pictures of the worst, the median and the best case, those that are distinct, by these words.

        Pictures are dropped while cases come in: where the one in the middle is among them, the nearest that was kept
        is called "near the median".
        """
        if not self._qualities:
            return {}
        worst, median, best = (self._qualities[at] for at in (0, (len(self._qualities) - 1) // 2, -1))
        near = min(self._kept, key=lambda quality: abs(quality[0] - median[0]))
        middle = {"median": median} if median in self._kept else {"near the median": near}
        named = {"worst": worst, **middle, "best": best}
        distinct = {quality: word for word, quality in reversed(named.items())}
        return {word: self._kept[quality] for quality, word in reversed(distinct.items())}

    def _extremes(self) -> list[tuple[float, str]]:
        surplus = len(self._qualities) - self._worst - self._best
        if surplus <= 0:
            return list(self._qualities)
        return self._qualities[: self._worst] + self._qualities[len(self._qualities) - self._best :]

    def _near_median(self) -> list[tuple[float, str]]:
        start = max(0, (len(self._qualities) - self._middle) // 2)
        return self._qualities[start : start + self._middle]


def _quality(dice: Mapping[str, float], case: str) -> tuple[float, str]:
    return float(np.mean(list(dice.values()))), case


# Slices across the axes L, P, S: the plane's name and the letters at its left, right, top and bottom.
_PLANES = {
    0: ("sagittal", ("A", "P", "S", "I")),
    1: ("coronal", ("R", "L", "S", "I")),
    2: ("axial", ("R", "L", "A", "P")),
}


def _slice_axis(spacing: tuple[float, float, float]) -> int:
    longest = int(np.argmax(spacing))
    others = max(size for axis, size in enumerate(spacing) if axis != longest)
    return longest if spacing[longest] >= _THICK * others else 2


def _worst_slice(truth: NDArray[Any], labels: NDArray[Any], axis: int) -> int:
    others = tuple(other for other in range(3) if other != axis)
    errors = np.count_nonzero(truth != labels, axis=others)
    if errors.any():
        return int(errors.argmax())
    size = np.count_nonzero(truth, axis=others)
    return int(size.argmax()) if size.any() else truth.shape[axis] // 2


def _display(plane: NDArray[Any], axis: int) -> NDArray[Any]:
    """Turn [C, first, second] to [C, rows, columns]; in slices across L or P the second axis ends at the head."""
    turned = plane.swapaxes(1, 2)
    return turned if axis == 2 else turned[:, ::-1]


def _percentiles(voxels: NDArray[Any]) -> tuple[float, float]:
    sample = voxels.ravel()[:: max(1, voxels.size // _PERCENTILE_VOXELS)]
    low, high = np.percentile(sample[np.isfinite(sample)], _DISPLAY_PERCENTILES)
    return float(low), float(high)


def _windowed(plane: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.floating]:
    low, high = limits
    scaled = (np.nan_to_num(plane.astype(np.float64), nan=low) - low) / max(high - low, 1e-12)
    return np.clip(scaled, 0.0, 1.0)


def _colours(planes: NDArray[Any]) -> NDArray[np.floating]:
    """[3, H, W] of 8 or 16 bits, or in 0..1, to [H, W, 3] in 0..1."""
    whole = float(np.iinfo(planes.dtype).max) if np.issubdtype(planes.dtype, np.integer) else 1.0
    if whole == 1.0 and planes.max() > 1.0:
        whole = 255.0
    return np.clip(np.moveaxis(planes, 0, -1) / whole, 0.0, 1.0)
