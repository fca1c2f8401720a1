"""True and predicted volumes of a case; in ml where the spacing is known, else in voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.task import mask_of
from medmargin.evaluation.structures import SPACING_UNKNOWN
from medmargin.imaging.volume import Grid


@dataclass(frozen=True)
class VolumeInterval:
    """A predicted volume; in ml where the spacing is known, in voxels where it is not.

    Attributes:
        estimate: volume of the mask.
        low, high: ends of the interval.
        level: probability that the true volume lies inside, in (0, 1).
    """

    estimate: float
    low: float
    high: float
    level: float


def measure_volumes(
    truth: NDArray[Any],
    labels: NDArray[Any],
    grid: Grid,
    structures: Mapping[str, int | Sequence[int]],
    intervals: Mapping[str, VolumeInterval],
    *,
    missing: str = "the prediction came without a volume interval",
) -> dict[str, Any]:
    """Measure the true volumes, beside the predicted ones.

    Args:
        truth, labels: [I, J, K] label maps on `grid`.
        grid: geometry.
        structures: name -> label value, or the values in a region.
        intervals: predicted volumes by structure; one that is missing is counted from `labels`, without an interval.
        missing: why an interval is missing.

    Returns:
        "volumes_ml", and "volumes_px" (in voxels) where the spacing is unknown: true, estimate, low, high and level of
        each structure; a number that does not exist is None with its reason beside it.
    """
    size = grid.voxel_volume_ml
    measured: dict[str, dict[str, Any]] = {}
    for name, value in structures.items():
        interval = intervals.get(name)
        true, estimate = (float(np.count_nonzero(mask_of(array, value)) * (size or 1.0)) for array in (truth, labels))
        if interval is None:
            measured[name] = {"true": true, "estimate": estimate, "low": None, "high": None, "level": None}
            measured[name] |= {f"{key}_reason": missing for key in ("low", "high", "level")}
        else:
            measured[name] = {"true": true} | {key: float(value) for key, value in asdict(interval).items()}
    if size is not None:
        return {"volumes_ml": measured}
    empty = {key: None for key in ("true", "estimate", "low", "high", "level")} | {"reason": SPACING_UNKNOWN}
    return {"volumes_ml": {name: dict(empty) for name in structures}, "volumes_px": measured}
