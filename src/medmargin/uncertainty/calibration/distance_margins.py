"""Outer and inner masks by distance: how many millimetres around and inside a mask the truth may run.

The outer mask holds everything within `outer` of the mask, the inner mask what lies deeper than `inner` in it. Every
image gives two scores: the least outer distance that holds all of the structure (the directed Hausdorff distance from
the truth to the mask; all but a tolerated share of its volume: a robust one), and the least inner distance at which
the inner mask holds nothing else. The conformal quantile of a score over patients (the largest over a patient's images)
covers the next patient with at least the level asked for; outer and inner are two statements, each at that level.

Deviations: robust variants are often percentiles over the surface (HD95). Here the share is one of volume, because the
surface alone does not see a separate false piece inside the mask.
Distances run between voxel centres; the edge of the image is no border.
"""

from __future__ import annotations

from collections.abc import Sequence

import edt
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from medmargin.errors import ConfigError, DataError
from medmargin.uncertainty.boxes import box_around
from medmargin.uncertainty.calibration.patients import conformal_quantile, largest_per_patient

Mask = NDArray[np.bool_]


class DistanceMargins(BaseModel):
    """Widths of the undecided zone on both sides of a structure's border, with what they promise.

    Attributes:
        outer, inner: in `unit`. level: least probability that the next patient's structure lies in the outer mask, and
            as much for the inner mask lying in the structure.
        tolerated: share of the structure's volume that does not count.
        unit: "mm", or "px" where the size of a voxel is unknown. patients: that carry the guarantee.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: float = Field(gt=0, lt=1)
    outer: float = Field(ge=0, allow_inf_nan=False)
    inner: float = Field(ge=0, allow_inf_nan=False)
    tolerated: float = Field(ge=0, lt=1)
    unit: str = "mm"
    patients: int = Field(ge=1)

    def regions(self, mask: Mask, spacing: Sequence[float]) -> NDArray[np.uint8]:
        """Mark where the structure surely is and is not.

        Args:
            mask: [*spatial] of the structure as it is shown.
            spacing: of the voxels along its axes, in `unit`.

        Returns:
            [*spatial] 0 surely outside, 1 undecided, 2 surely inside.
        """
        found = np.zeros(mask.shape, np.uint8)
        crop = box_around(mask, [int(self.outer / size) + 1 for size in spacing])
        if crop is None:
            return found
        outer, inner = np.float64(self.outer), np.float64(self.inner)  # a plain number would be rounded to float32
        found[crop][_distance(~mask[crop], spacing) <= outer] = 1  # within the mask the distance is 0
        found[crop][_distance(mask[crop], spacing) > inner] = 2
        return found


def margin_scores(
    mask: Mask, truth: Mask, spacing: Sequence[float], *, tolerated: float = 0.0, counted: Mask | None = None
) -> tuple[float, float]:
    """Measure the least outer and inner distance that hold for one image.

    Args:
        mask, truth: [*spatial] of the structure.
        spacing: voxel size along the axes.
        tolerated: share of the structure's volume that may lie outside the outer mask, and size of the inner mask's
            part outside the structure as a share of the structure's volume.
        counted: [*spatial] voxels that were labelled; elsewhere nothing is known to be wrong. None: all.

    Returns:
        (outer, inner) in the unit of the spacing; outer is infinite where the mask misses the structure altogether,
        inner where the mask fills the image and should not.
    """
    union = mask | truth
    crop = box_around(union, [1] * union.ndim)
    if crop is None:
        return 0.0, 0.0
    mask, truth = mask[crop], truth[crop]
    false = mask & ~truth if counted is None else mask & ~truth & counted[crop]
    allowed = int(tolerated * np.count_nonzero(truth) + 1e-9)
    outer = _exceeded_by(_distance(~mask, spacing)[truth & ~mask], allowed)
    inner = _exceeded_by(_distance(mask, spacing)[false], allowed)
    return outer, inner


def conformal_margins(
    scores: Sequence[tuple[float, float]],
    patients: Sequence[str],
    *,
    level: float,
    structure: str,
    tolerated: float = 0.0,
    unit: str = "mm",
) -> DistanceMargins:
    """Choose a structure's margins so that each covers the next patient with probability `level`.

    Args:
        scores: `margin_scores` of each calibration image, with the same `tolerated`.
        patients: patient of each image.
        level: in (0, 1).
        structure: name, for messages.
        tolerated: as in the scores. unit: of the scores.

    Raises:
        DataError: too few patients (the message names the number needed), or the structure was missed so often that no
            distance is wide enough.
    """
    risk = round(1 - level, 12)
    found = []
    for side, values in zip(("outer", "inner"), zip(*scores, strict=True) if scores else ((), ()), strict=True):
        what = f"{side} margin of {structure}"
        quantile = conformal_quantile(largest_per_patient(values, patients), risk, what=what)
        if not np.isfinite(quantile):
            raise DataError(
                f"{what}: no distance covers {level:.0%} of the patients, because the structure was missed altogether "
                "too often. Ask for a lower level, or use the thresholds of the probability maps."
            )
        found.append(quantile)
    count = len(set(patients))
    return DistanceMargins(level=level, outer=found[0], inner=found[1], tolerated=tolerated, unit=unit, patients=count)


def _exceeded_by(distances: NDArray[np.float32], allowed: int) -> float:
    """The least distance that at most `allowed` of the distances exceed."""
    if distances.size <= allowed:
        return 0.0
    return float(np.partition(distances, distances.size - 1 - allowed)[distances.size - 1 - allowed])


def _distance(mask: Mask, spacing: Sequence[float]) -> NDArray[np.float32]:
    """Distance of every voxel of the mask to the nearest voxel outside it; 0 outside, infinite where there is none."""
    if len(spacing) != mask.ndim:
        raise ConfigError(f"spacing {tuple(spacing)} for a mask with {mask.ndim} axes")
    anisotropy = tuple(float(size) for size in spacing)
    return edt.edt(np.ascontiguousarray(mask), anisotropy=anisotropy, black_border=False, parallel=1)
