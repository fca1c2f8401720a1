"""The volume of a structure with an interval, and the confidence in its mask, from member probabilities.

Voxels at an edge are not wrong one by one: a contour is drawn too wide or too narrow as a whole. So each member s
stands for a family of masks {p^(s) > u}, u uniform in (0, 1): every voxel is inside with its own probability, and all
errors go together (comonotone voxels: no other dependence with these probabilities gives the volume more variance).
Its mean is sum_i p_i^(s). The volume's distribution is the mixture over the members, thus it holds both the doubt
inside each member and the disagreement between them. The interval is central in that mixture.

The interval is a model statement, not a guarantee: it is uncalibrated until held-out patients have calibrated it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = 200  # levels u = (j + 0.5) / 200


class VolumeSamples:
    """Volumes, in voxels, of every member at every threshold, added up part by part (slice by slice).

    Args:
        structures: number of structures.
        members: number of members.
    """

    def __init__(self, structures: int, members: int) -> None:
        self._counts = np.zeros((structures, members, THRESHOLDS + 1), np.int64)

    def add(self, structure: int, member: int, probabilities: NDArray[np.floating]) -> None:
        """Add one member's foreground probabilities (any shape) of one part of the image."""
        exceeded = np.ceil(probabilities * THRESHOLDS - 0.5).astype(np.int64).clip(0, THRESHOLDS)
        self._counts[structure, member] += np.bincount(exceeded.ravel(), minlength=THRESHOLDS + 1)

    def voxels(self, structure: int) -> NDArray[np.int64]:
        """Compute the equally likely volumes [members, THRESHOLDS] of a structure, in voxels."""
        return np.cumsum(self._counts[structure, :, :0:-1], axis=-1)[:, ::-1]


def volume_interval(samples: NDArray, estimate: float, *, level: float) -> tuple[float, float]:
    """Compute the central interval that holds `level` of the volume samples, stretched to hold the estimate.

    Args:
        samples: equally likely volumes, any shape.
        estimate: volume of the mask that is shown, in the same unit.
        level: share of the samples inside, in (0, 1).

    Returns:
        (low, high) with low <= estimate <= high.
    """
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return min(float(low), estimate), max(float(high), estimate)


def expected_dice(probability_inside: float, probability_everywhere: float, voxels: float) -> float:
    """Estimate the Dice a mask will have against the truth, if the voxel probabilities are right.

    Args:
        probability_inside: sum of the structure's probabilities over the mask's voxels.
        probability_everywhere: sum over all voxels, the expected size of the truth.
        voxels: size of the mask.

    Returns:
        2 sum_mask p / (|mask| + sum p), a ratio of expectations in [0, 1]; 0 for an empty mask, because a prompt says
        that something is there.
    """
    if voxels == 0:
        return 0.0
    return float(min(2 * probability_inside / (voxels + probability_everywhere), 1.0))
