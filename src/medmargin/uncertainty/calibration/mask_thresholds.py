"""Outer and inner masks whose mean error on new patients is bounded: conformal risk control of two thresholds.

Around the mask that is shown stands an outer one, mask or p >= outer, that is to hold the structure, and in it an inner
one, mask and p >= inner, that is to hold nothing else; between them it is undecided. Safest is everything outer and
nothing inner. Thresholds come from a grid fixed beforehand, by `risk_control.controlled_lambda` (Angelopoulos et al.
2022, arXiv:2208.02814). Every loss is in [0, 1], falls towards the safe end by itself (nothing has to be made
monotone), and is 0 there:

- "volume": two guarantees. Outer: share of the structure outside the outer mask (false-negative rate); images without
  the structure have no such share and are left out, so the bound is that of patients who have it. Inner: volume of the
  inner mask outside the structure over the structure's volume, at most 1; without the structure it is 1 as soon as
  anything is inner.
- "dice": one guarantee for both. Whoever redraws the undecided zone and nothing else reaches at best the mask
  (structure within outer) + inner; the loss is 1 - its Dice. Outer and inner thresholds mirror each other at 0.5.

The plain Dice loss of {p >= t} cannot be controlled: it is not monotone in t and no t is safe.
A patient's loss is the mean over the patient's images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from medmargin.uncertainty.calibration.patients import mean_per_patient, require_patients
from medmargin.uncertainty.risk_control import controlled_lambda

Loss = Literal["volume", "dice"]
EVERYWHERE, NOWHERE = 0.0, 2.0  # thresholds that every and no probability reaches
# Equal steps of log-odds, because probabilities of voxels crowd at 0 and 1; 0.5 is in the middle. They are float32
# numbers, so that a float32 map reaches a threshold at prediction exactly where it did when voxels were counted.
_ODDS = np.float32(1 / (1 + np.exp(-np.linspace(-13, 13, 261))))
THRESHOLDS = np.concatenate([[EVERYWHERE], _ODDS, [NOWHERE]]).astype(np.float64)
SURELY_OUTSIDE, UNDECIDED, SURELY_INSIDE = 0, 1, 2


@dataclass(frozen=True)
class MaskCounts:
    """Voxels of one structure in one image by threshold; counts of slabs add up.

    Attributes:
        volume: voxels of the structure.
        held: [T] of them in the outer mask of each threshold.
        wrong: [T] voxels outside the structure in the inner mask of each threshold.
    """

    volume: int
    held: NDArray[np.int64]
    wrong: NDArray[np.int64]

    def __add__(self, other: MaskCounts) -> MaskCounts:
        return MaskCounts(self.volume + other.volume, self.held + other.held, self.wrong + other.wrong)

    def false_negative_rate(self) -> NDArray[np.float64]:
        """Share [T] of the structure outside the outer mask, for an image that has the structure."""
        return 1 - self.held / self.volume

    def false_positive_share(self) -> NDArray[np.float64]:
        """Volume [T] of the inner mask outside the structure over the structure's volume, at most 1."""
        return np.minimum(self.wrong / max(self.volume, 1), 1.0)

    def unreachable_dice(self) -> NDArray[np.float64]:
        """1 - the Dice [(T + 1) / 2] that edits between outer THRESHOLDS[j] and inner THRESHOLDS[-1 - j] can reach."""
        half = len(THRESHOLDS) // 2 + 1
        held = self.held[:half]
        errors = self.volume - held + self.wrong[::-1][:half]
        return errors / np.maximum(2 * held + errors, 1)


class ThresholdMargins(BaseModel):
    """Thresholds of a structure's outer and inner mask, with what they promise.

    Attributes:
        loss: "volume" or "dice". risk: bound of the mean loss on new patients.
        outer: 0 where only the whole image is safe, 2 where the mask is. inner: 2 where nothing is safely inside, 0
            where the whole mask is.
        patients: that carry the guarantee (the smaller number of the two for "volume").
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    loss: Loss
    risk: float = Field(gt=0, lt=1)
    outer: float = Field(ge=EVERYWHERE, le=NOWHERE)
    inner: float = Field(ge=EVERYWHERE, le=NOWHERE)
    patients: int = Field(ge=1)

    def regions(self, probabilities: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Mark where the structure surely is and is not.

        Args:
            probabilities: [*spatial] of the structure, rescaled as they were when the thresholds were fitted.
            mask: [*spatial] of the structure as it is shown.

        Returns:
            [*spatial] 0 surely outside, 1 undecided, 2 surely inside; inner <= mask <= outer.
        """
        found = ((probabilities >= self.outer) | mask).astype(np.uint8)
        found += (probabilities >= self.inner) & mask
        return found


def count_mask(
    probabilities: NDArray[Any],
    truth: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    counted: NDArray[np.bool_] | None = None,
) -> MaskCounts:
    """Count a structure's voxels by threshold, of a whole image or a slab.

    Args:
        probabilities: [*spatial] of the structure, rescaled.
        truth: [*spatial] where it is.
        mask: [*spatial] where it is shown.
        counted: [*spatial] voxels that were labelled; elsewhere nothing is known to be wrong. None: all.
    """
    false = mask & ~truth if counted is None else mask & ~truth & counted
    held = _reached(np.where(mask[truth], NOWHERE, probabilities[truth]))
    wrong = _reached(probabilities[false])
    return MaskCounts(int(np.count_nonzero(truth)), held, wrong)


def control_thresholds(
    counts: Sequence[MaskCounts], patients: Sequence[str], *, risk: float, structure: str, loss: Loss = "volume"
) -> ThresholdMargins:
    """Choose a structure's thresholds so that the mean loss of new patients is at most `risk`.

    Args:
        counts: of each calibration image.
        patients: patient of each image.
        risk: bound, in (0, 1).
        structure: name, for messages.
        loss: which errors to bound; see the module.

    Raises:
        DataError: too few patients; the message names the number needed.
    """
    if loss == "dice":
        losses = mean_per_patient([each.unreachable_dice() for each in counts], patients)
        outer = _controlled(losses, THRESHOLDS[: losses.shape[1]] if len(losses) else THRESHOLDS, risk, structure)
        inner = float(THRESHOLDS[::-1][np.searchsorted(THRESHOLDS, outer)])
        return ThresholdMargins(loss=loss, risk=risk, outer=outer, inner=inner, patients=len(losses))
    present = [index for index, each in enumerate(counts) if each.volume]
    missed = _per_patient([counts[index] for index in present], [patients[index] for index in present],
                          MaskCounts.false_negative_rate)  # fmt: skip
    wrong = _per_patient(counts, patients, MaskCounts.false_positive_share)
    outer = _controlled(missed, THRESHOLDS, risk, structure)
    inner = _controlled(wrong[:, ::-1], THRESHOLDS[::-1], risk, structure)
    return ThresholdMargins(loss=loss, risk=risk, outer=outer, inner=inner, patients=min(len(missed), len(wrong)))


def _per_patient(
    counts: Sequence[MaskCounts], patients: Sequence[str], loss: Callable[[MaskCounts], NDArray[np.float64]]
) -> NDArray[np.float64]:
    if not counts:
        return np.zeros((0, len(THRESHOLDS)))
    return mean_per_patient([loss(each) for each in counts], patients)


def _reached(values: NDArray[Any]) -> NDArray[np.int64]:
    """Count [T] how many of the values reach each threshold."""
    passed = np.bincount(np.searchsorted(THRESHOLDS, values, side="right"), minlength=len(THRESHOLDS) + 1)
    return np.cumsum(passed[::-1])[::-1][1:]  # a value in bin b reaches the first b thresholds


def _controlled(losses: NDArray[np.float64], thresholds: NDArray[np.float64], risk: float, structure: str) -> float:
    """Choose from thresholds that go from the safest to the least safe; a mean may rise by rounding only."""
    require_patients(len(losses), risk, what=f"outer and inner mask of {structure}")
    return controlled_lambda(losses, thresholds, risk + 1e-12)
