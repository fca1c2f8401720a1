"""From slice positions to one affine: every irregularity of a DICOM series is named, none is smoothed over.

DICOM PS3.3 section C.7.6.2.1.1: PixelSpacing is (row step, column step); ImageOrientationPatient holds the direction
of a row, along which the column index i grows, then that of a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import GeometryError
from medmargin.imaging.dicom_series import SliceFacts
from medmargin.imaging.volume import LPS_TO_RAS

_SAME_DIRECTION = 1e-3
_SAME_POSITION_MM = 1e-3
_EVEN_SHARE = 0.01  # of the slice distance


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in the order of space.

    Attributes:
        order: index of the k-th slice among those given, sorted along the normal.
        affine: [4, 4], (column, row, slice) index -> RAS+ mm.
        warnings: what was unusual.
    """

    order: NDArray[np.intp]
    affine: NDArray[np.float64]
    warnings: tuple[str, ...]


def stack_slices(source: object, slices: Sequence[SliceFacts]) -> Stack:
    """Sort slices by position and build their affine.

    Args:
        source: what error messages name.
        slices: facts of each, in any order.

    Raises:
        GeometryError: no positions, mixed orientations or sizes, duplicate, missing or unevenly spaced slices.
    """
    positions, orientation, pixel_spacing = _common(source, slices)
    row, column = orientation[:3], orientation[3:]
    if abs(row @ column) > _SAME_DIRECTION or not np.allclose([row @ row, column @ column], 1, atol=_SAME_DIRECTION):
        raise GeometryError(
            f"{source}: rows {row} and columns {column} are no perpendicular unit vectors. Export the series again."
        )
    normal = np.cross(row, column)
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    warnings = _count_warnings(source, slices)
    if len(slices) == 1:
        thickness = slices[0].thickness
        step = normal * (thickness or 1.0)
        if not thickness:
            warnings.append(f"{source}: a single slice without a thickness; 1 mm was assumed")
    else:
        step, more = _step(source, positions[order], heights[order], normal)
        warnings += more
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row * pixel_spacing[1], column * pixel_spacing[0], step], axis=1)
    affine[:3, 3] = positions[order[0]]
    return Stack(order, LPS_TO_RAS @ affine, tuple(warnings))


def _common(
    source: object, slices: Sequence[SliceFacts]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Check what all slices must share; return positions [N, 3], orientation [6], pixel spacing [2]."""
    first = slices[0]
    if first.orientation is None or first.pixel_spacing is None:
        raise GeometryError(
            f"{source}: {first.path.name} says neither its orientation nor its pixel spacing. Export the series again."
        )
    positions = []
    for facts in slices:
        if facts.position is None or facts.orientation is None or facts.pixel_spacing is None:
            raise GeometryError(f"{source}: {facts.path.name} has no position in space. Expected one for every slice.")
        if np.abs(facts.orientation - first.orientation).max() > _SAME_DIRECTION:
            raise GeometryError(
                f"{source}: mixed orientations, {facts.path.name} lies another way than {first.path.name} (a localizer "
                "inside?). Expected parallel slices; move the others away."
            )
        same_size = (facts.rows, facts.columns) == (first.rows, first.columns)
        if not same_size or not np.allclose(facts.pixel_spacing, first.pixel_spacing, rtol=_EVEN_SHARE):
            raise GeometryError(
                f"{source}: {facts.path.name} has {facts.rows} x {facts.columns} pixels of {facts.pixel_spacing} mm, "
                f"{first.path.name} {first.rows} x {first.columns} of {first.pixel_spacing} mm. Expected equal slices."
            )
        positions.append(facts.position)
    return np.stack(positions), first.orientation, first.pixel_spacing


def _step(
    source: object, positions: NDArray[np.float64], heights: NDArray[np.float64], normal: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[str]]:
    """Measure the vector from one slice to the next; `positions` [N, 3] are sorted by `heights` [N]."""
    gaps = np.diff(heights)
    if gaps.min() < _SAME_POSITION_MM:
        twice = heights[:-1][gaps < _SAME_POSITION_MM]
        raise GeometryError(
            f"{source}: {len(twice)} slices share their position with another (at {_listed(twice)} mm along the "
            "normal). Expected each once; several acquisitions may be mixed: separate them."
        )
    if gaps.max() - gaps.min() > _EVEN_SHARE * gaps.min():
        _refuse_uneven(source, gaps, heights)
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    line = positions[0] + np.arange(len(positions))[:, None] * step
    if np.abs(positions - line).max() > _EVEN_SHARE * gaps.min() + _SAME_POSITION_MM:
        raise GeometryError(
            f"{source}: the slices are shifted against each other. Expected positions on a straight line."
        )
    tilt = float(np.degrees(np.arccos(min(1.0, abs(step @ normal) / np.linalg.norm(step)))))
    if np.radians(tilt) <= _SAME_DIRECTION:
        return step, []
    return step, [f"{source}: gantry tilt of {tilt:.1f} degrees; kept as a shear in the affine"]


def _refuse_uneven(source: object, gaps: NDArray[np.float64], heights: NDArray[np.float64]) -> None:
    smallest = gaps.min()
    ratios = gaps / smallest
    if np.abs(ratios - np.rint(ratios)).max() < 0.05:
        missing = [
            heights[index] + smallest * inside
            for index, ratio in enumerate(np.rint(ratios).astype(int))
            for inside in range(1, ratio)
        ]
        raise GeometryError(
            f"{source}: {len(missing)} slices are missing inside (at {_listed(missing)} mm along the normal, slice "
            f"distance {smallest:.3f} mm). Expected a complete series; copy it again."
        )
    raise GeometryError(
        f"{source}: the slice distance varies from {smallest:.3f} to {gaps.max():.3f} mm. Expected one distance; "
        "resample the series, or separate mixed acquisitions."
    )


def _count_warnings(source: object, slices: Sequence[SliceFacts]) -> list[str]:
    """Notice slices missing at an end, which positions cannot show."""
    expected = max((facts.expected or 0 for facts in slices), default=0)
    if expected > len(slices):
        return [
            f"{source}: the headers announce {expected} slices, {len(slices)} are here; some may be missing at an end"
        ]
    numbers = [facts.instance for facts in slices if facts.instance is not None]
    if len(numbers) == len(slices) and min(numbers) > 1 and len(slices) > 1:
        return [f"{source}: instance numbers begin at {min(numbers)}; slices may be missing at an end"]
    return []


def _listed(values: Sequence[float] | NDArray[np.float64]) -> str:
    shown = ", ".join(f"{value:.2f}" for value in values[:5])
    return shown + (" ..." if len(values) > 5 else "")
