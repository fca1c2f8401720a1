"""Conformal volume intervals: a model's interval, stretched until it covers new patients as often as promised.

Conformalised quantile regression (Romano et al. 2019, arXiv:1905.03222) with a score in units of the model's own doubt:
how far the true volume lies outside (low, high), over half their distance. A patient the model is unsure of gets a
wider interval. The half width is increased by 1 % of the estimate, so that the same score serves models whose interval
is narrow or has no width at all: it then measures the relative error of the volume.
A patient's score is the largest over the patient's images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from medmargin.errors import DataError
from medmargin.uncertainty.calibration.patients import conformal_quantile, largest_per_patient

_RELATIVE = 0.01


class VolumeScale(BaseModel):
    """How many half widths a structure's intervals are moved outwards (inwards where negative).

    Attributes:
        level: least probability that the next patient's volume is covered. stretch: half widths.
        patients: that carry the guarantee.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: float = Field(gt=0, lt=1)
    stretch: float = Field(allow_inf_nan=False)
    patients: int = Field(ge=1)

    def interval(self, low: float, estimate: float, high: float) -> tuple[float, float]:
        """Calibrate one interval: (low, high) around the estimate, not below 0; any unit of volume."""
        step = self.stretch * _half_width(low, estimate, high)
        return max(0.0, min(low - step, estimate)), max(high + step, estimate)


class PredictedVolume(NamedTuple):
    """A volume as predicted and as it is, in one unit, with low <= estimate <= high."""

    low: float
    estimate: float
    high: float
    true: float

    @property
    def score(self) -> float:
        """Distance of the true volume outside the interval, in half widths; negative inside."""
        outside = max(self.low - self.true, self.true - self.high)
        width = _half_width(self.low, self.estimate, self.high)
        if width == 0:  # nothing was found and nothing was thought possible
            return np.inf if outside > 0 else 0.0
        return outside / width


def conformal_volumes(
    volumes: Sequence[PredictedVolume], patients: Sequence[str], *, level: float, structure: str
) -> VolumeScale:
    """Choose how far a structure's intervals are stretched to cover the next patient with probability `level`.

    Args:
        volumes: of each calibration image.
        patients: patient of each image.
        level: in (0, 1).
        structure: name, for messages.

    Raises:
        DataError: too few patients (the message names the number needed), an interval that is none, or the structure
            was missed so often that no interval is wide enough.
    """
    what = f"volume interval of {structure}"
    for volume, patient in zip(volumes, patients, strict=True):
        if not (np.isfinite(volume).all() and 0 <= volume.low <= volume.estimate <= volume.high and volume.true >= 0):
            raise DataError(f"{what}: patient {patient}: expected 0 <= low <= estimate <= high, got {tuple(volume)}")
    scores = largest_per_patient([volume.score for volume in volumes], patients)
    stretch = conformal_quantile(scores, round(1 - level, 12), what=what)
    if not np.isfinite(stretch):
        raise DataError(
            f"{what}: no interval covers {level:.0%} of the patients, because the structure was missed altogether too "
            "often. Ask for a lower level, or train the model further."
        )
    return VolumeScale(level=level, stretch=stretch, patients=scores.size)


def _half_width(low: float, estimate: float, high: float) -> float:
    return (high - low) / 2 + _RELATIVE * estimate
