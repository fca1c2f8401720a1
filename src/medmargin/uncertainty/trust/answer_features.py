"""What an answer says about itself: a few numbers per structure that tend to fall or rise with its Dice.

Computed slab by slab within the box around the structure, so that maps may lie on the disk and nothing of the size of
the image is made. The border band is that of `uncertainty.bands`, here around the structure's own mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmargin.datasets.task import mask_of
from medmargin.errors import DataError
from medmargin.uncertainty.bands import BAND_VOXELS, band
from medmargin.uncertainty.volumes import expected_dice

_SLAB_VOXELS = 1 << 22

Map = NDArray[Any]
Box = tuple[slice, ...]


class Feature(NamedTuple):
    """One feature: its range, why it should tell good from bad masks, the side that is bad (+1 high, -1 low), and how
    a sentence says that it stands out."""

    range: str
    why: str
    bad_side: int
    sentence: str


FEATURES: dict[str, Feature] = {
    "expected_dice": Feature(
        "0 to 1",
        "the Dice itself if the voxel probabilities were right; the strongest single score",
        -1,
        "its own probabilities promise little overlap",
    ),
    "border_uncertainty": Feature(
        "nats, 0 to ln K",
        "mean total uncertainty of the band; errors lie at the border, and far background would drown them",
        1,
        "its border is unusually uncertain",
    ),
    "epistemic_share": Feature(
        "0 to 1",
        "share of the band's uncertainty that is disagreement between answers: what training has not settled",
        1,
        "the model's answers disagree unusually much along its border",
    ),
    "border_vacuity": Feature(
        "0 to 1",
        "mean share of the answer in the band that no evidence backs",
        1,
        "little evidence backs the answer along its border",
    ),
    "interval_width": Feature(
        "0 to 1",
        "(high - low) / high of the volume interval; a wide one leaves the size open",
        1,
        "its volume is unusually uncertain",
    ),
    "log_voxels": Feature(
        "ln voxels, from 0",
        "small structures lose more Dice to the same error at the border",
        -1,
        "it is unusually small",
    ),
    "compactness": Feature(
        "0 to 1",
        "surface of the cube (square) of the same size / surface along voxel faces: 1 for a cube, 0.8 for a ball, "
        "near 0 for scattered voxels",
        -1,
        "its outline is unusually ragged",
    ),
    "largest_piece": Feature(
        "0 to 1",
        "share of the voxels in the largest connected piece; loose pieces are often false",
        -1,
        "it lies in separate pieces",
    ),
}


class Measured(Protocol):
    """What is known of a structure beside its maps; `inference.StructureResult` has it all."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> int: ...
    @property
    def low_voxels(self) -> float: ...
    @property
    def high_voxels(self) -> float: ...
    @property
    def confidence(self) -> float: ...


@dataclass(frozen=True)
class SliceToLook:
    """A slice of the file's own grid: `index` (from 0) along `axis` (0, 1, 2 for i, j, k)."""

    axis: int
    index: int


@dataclass(frozen=True)
class CaseFeatures:
    """One structure of one case.

    Attributes:
        voxels: size of the mask; 0 leaves only `expected_dice` (0), `log_voxels` (0) and `interval_width`.
        pieces: connected pieces of the mask, counting neighbours across edges and corners.
        values: feature name -> value, for every name in `FEATURES`; None where the answer does not hold what it needs.
        look: slice with the largest sum of uncertainty in the band (in the whole image where there is no mask).
    """

    voxels: int
    pieces: int
    values: Mapping[str, float | None]
    look: SliceToLook


def case_features(
    labels: NDArray[np.integer],
    structures: Sequence[Measured],
    *,
    total: Map,
    probabilities: Sequence[Map] | Map | None = None,
    epistemic: Map | None = None,
    vacuity: Map | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    members: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, CaseFeatures]:
    """Measure every structure of an answer.

    Args:
        labels: [I, J, K], 0 background.
        structures: name, label value, volume interval and confidence of each.
        total: [I, J, K] uncertainty in nats.
        probabilities: per structure [I, J, K] in [0, 1], in the order of `structures`; without them the expected Dice
            is the structure's `confidence`.
        epistemic: [I, J, K] part of `total`. vacuity: [I, J, K] in [0, 1].
        spacing: voxel size along (i, j, k), any unit; slices to look at are cut across the axis with the thickest
            voxels (across k where they are equal), as they were acquired.

    Returns:
        Structure name -> features.

    Raises:
        DataError: a map has another shape than the labels, or holds NaN or infinite values.
    """
    maps = {"total": total, "epistemic": epistemic, "vacuity": vacuity}
    per_structure = {} if probabilities is None else {s.name: probabilities[n] for n, s in enumerate(structures)}
    for name, values in {**maps, **{f"probabilities of {name}": p for name, p in per_structure.items()}}.items():
        if values is not None and values.shape != labels.shape:
            raise DataError(f"{name}: map {values.shape} does not fit the labels {labels.shape}; expected one grid")
    through = _acquired_axis(labels.shape, spacing)
    inside = {s.name: (s.label,) if members is None else tuple(members[s.name]) for s in structures}
    boxes = ndimage.find_objects(labels, max((value for values in inside.values() for value in values), default=1))
    held = {name: values for name, values in maps.items() if values is not None}
    return {
        s.name: _measure(
            labels,
            s,
            inside[s.name],
            _joined([boxes[value - 1] for value in inside[s.name]]),
            held,
            per_structure.get(s.name),
            through,
        )
        for s in structures
    }


def _measure(
    labels: Map,
    structure: Measured,
    values_inside: tuple[int, ...],
    box: Box | None,
    maps: Mapping[str, Map],
    probability: Map | None,
    through: int,
) -> CaseFeatures:
    values: dict[str, float | None] = dict.fromkeys(FEATURES)
    values["interval_width"] = _interval_width(structure)
    if box is None:
        profile = np.concatenate([_profile(part, through) for part in _parts(maps["total"], through)])
        _require_finite(profile, "total")
        values |= {"expected_dice": 0.0, "log_voxels": 0.0}
        return CaseFeatures(0, 0, values, SliceToLook(through, int(np.argmax(profile))))
    voxels, faces, sums, profile, inside = _within_box(labels, values_inside, box, maps, probability, through)
    band_voxels = sums.pop("band")
    largest, pieces = _pieces(mask_of(labels[box], values_inside))
    everywhere = None if probability is None else _sum(probability, through, f"probabilities of {structure.name}")
    values |= {
        "expected_dice": structure.confidence if everywhere is None else expected_dice(inside, everywhere, voxels),
        "border_uncertainty": sums["total"] / band_voxels if band_voxels else 0.0,
        "log_voxels": float(np.log(voxels)),
        "compactness": _compactness(voxels, faces, labels.shape),
        "largest_piece": largest / voxels,
    }
    if "epistemic" in sums:
        values["epistemic_share"] = min(sums["epistemic"] / sums["total"], 1.0) if sums["total"] > 0 else 0.0
    if "vacuity" in sums:
        values["border_vacuity"] = sums["vacuity"] / band_voxels if band_voxels else 0.0
    start = _grown(box, labels.shape)[through].start
    return CaseFeatures(voxels, pieces, values, SliceToLook(through, start + int(np.argmax(profile))))


def _within_box(
    labels: Map,
    values_inside: tuple[int, ...],
    box: Box,
    maps: Mapping[str, Map],
    probability: Map | None,
    through: int,
) -> tuple[int, int, dict[str, float], NDArray[np.float64], float]:
    """Add up, slab by slab: voxels, exposed faces, sums over the band, uncertainty per slice, probability inside."""
    grown = _grown(box, labels.shape)
    span = grown[through]
    voxels = faces = 0
    sums = dict.fromkeys(("band", *maps), 0.0)
    profile, inside = np.zeros(span.stop - span.start), 0.0
    for core, halo in _slabs(grown, labels.shape[through], through):
        mask = mask_of(labels[halo], values_inside)
        cut = _cut(through, core[through].start - halo[through].start, core[through].stop - halo[through].start)
        near, own = band(mask)[cut], mask[cut]
        voxels += int(own.sum())
        faces += _faces(mask, cut)
        sums["band"] += int(near.sum())
        for name, values in maps.items():
            kept = np.where(near, values[core], 0)
            added = float(kept.sum(dtype=np.float64))
            _require_finite(added, name)
            sums[name] += added
            if name == "total":
                first = core[through].start - span.start
                profile[first : first + kept.shape[through]] = _profile(kept, through)
        if probability is not None:
            inside += float(probability[core][own].sum(dtype=np.float64))
    return voxels, faces, sums, profile, inside


def _slabs(grown: Box, length: int, through: int) -> Iterator[tuple[Box, Box]]:
    """Cut a box into slabs across `through`; each comes with its halo, in which the band's distances are exact."""
    area = int(np.prod([s.stop - s.start for axis, s in enumerate(grown) if axis != through]))
    thickness = max(_SLAB_VOXELS // area, 1)
    for first in range(grown[through].start, grown[through].stop, thickness):
        last = min(first + thickness, grown[through].stop)
        wide = slice(max(first - BAND_VOXELS, 0), min(last + BAND_VOXELS, length))
        core, halo = (tuple(s if axis == through else grown[axis] for axis in range(3)) for s in
                      (slice(first, last), wide))  # fmt: skip
        yield core, halo


def _faces(mask: NDArray[np.bool_], cut: Box) -> int:
    """Count faces of the mask's voxels in the slab `cut` that border on another label or on the edge of the image."""
    found = 0
    for axis in range(3):
        if mask.shape[axis] == 1:
            continue  # a picture has no faces towards the viewer
        padded = np.pad(mask, [(1, 1) if a == axis else (0, 0) for a in range(3)])
        exposed = [padded[_cut(axis, shift, shift + mask.shape[axis])] for shift in (0, 2)]
        found += sum(int((mask & ~neighbour)[cut].sum()) for neighbour in exposed)
    return found


def _compactness(voxels: int, faces: int, shape: tuple[int, ...]) -> float:
    dims = max(sum(length > 1 for length in shape), 1)
    return min(2 * dims * voxels ** ((dims - 1) / dims) / faces, 1.0) if faces else 1.0


def _pieces(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Voxels of the largest piece, and the number of pieces."""
    labelled, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    return int(np.bincount(labelled.ravel())[1:].max()), int(count)


def _interval_width(structure: Measured) -> float:
    low, high = structure.low_voxels, structure.high_voxels
    if not (np.isfinite([low, high]).all() and low <= high):
        raise DataError(f"{structure.name}: volume interval {low} to {high} voxels; expected low <= high, finite")
    return float((high - low) / high) if high > 0 else 0.0


def _acquired_axis(shape: tuple[int, ...], spacing: Sequence[float]) -> int:
    single = [axis for axis, length in enumerate(shape) if length == 1]
    if len(single) == 1:
        return single[0]
    rounded = np.round(np.asarray(spacing, np.float64) / max(spacing), 3)
    return 2 - int(np.argmax(rounded[::-1]))


def _joined(boxes: Sequence[Box | None]) -> Box | None:
    """The box around all boxes, None where there is none."""
    found = [box for box in boxes if box is not None]
    if not found:
        return None
    return tuple(slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*found, strict=True))


def _grown(box: Box, shape: tuple[int, ...]) -> Box:
    pairs = zip(box, shape, strict=True)
    return tuple(slice(max(s.start - BAND_VOXELS, 0), min(s.stop + BAND_VOXELS, n)) for s, n in pairs)


def _cut(axis: int, start: int, stop: int) -> Box:
    return tuple(slice(start, stop) if a == axis else slice(None) for a in range(3))


def _parts(values: Map, through: int) -> Iterator[Map]:
    thickness = max(_SLAB_VOXELS // max(values.size // values.shape[through], 1), 1)
    for first in range(0, values.shape[through], thickness):
        yield values[_cut(through, first, first + thickness)]


def _sum(values: Map, through: int, name: str) -> float:
    found = sum(float(part.sum(dtype=np.float64)) for part in _parts(values, through))
    _require_finite(found, name)
    return found


def _profile(values: Map, through: int) -> NDArray[np.float64]:
    return values.sum(axis=tuple(axis for axis in range(3) if axis != through), dtype=np.float64)


def _require_finite(found: float | NDArray[np.float64], name: str) -> None:
    if not np.isfinite(found).all():
        raise DataError(f"{name}: the map holds NaN or infinite values; expected finite numbers. Predict again.")
