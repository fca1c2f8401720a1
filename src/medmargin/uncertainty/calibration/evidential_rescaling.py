"""Evidential rescaling: as much evidence as the errors of held-out patients justify.

An evidential network gives evidence e_k >= 0, alpha = e + 1, S = sum_k alpha_k, p = alpha / S and vacuity u = K / S
(Sensoy et al. 2018, arXiv:1806.01768). Trained on one data set its evidence has no natural unit, so it is given one:
alpha' = 1 + s e^g with s > 0 (and g = 1, or fitted too), by the likelihood of p' = alpha' / S'. The order of
the classes stays. Evidence follows from the maps: S = K / u, e_k = max(0, S p_k - 1). For means over several answers
that is a definition and no longer exact, so that s = g = 1 may change them a little.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medmargin.errors import DataError
from medmargin.uncertainty.calibration.temperature import Block, Fitted, Positive, Unchanged, better_of, minimised
from medmargin.uncertainty.calibration.voxel_sample import Voxels, mean_over

_SCALE_RANGE = (-12.0, 12.0)  # of ln s
_EXPONENT_RANGE = (-2.0, 2.0)  # of ln g
_LEAST_VACUITY = 1e-6


class EvidentialRescaling(BaseModel):
    """alpha' = 1 + s e^g.

    Attributes:
        scale_of_evidence: s > 0. exponent: g > 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["evidential"] = "evidential"
    scale_of_evidence: Positive
    exponent: Positive = 1.0

    def scale(self, block: Block, vacuity: Block | None = None, image: Block | None = None) -> None:
        """Turn probabilities [K, *spatial] into p' in place; see `rescale`."""
        self.rescale(block, vacuity)

    def rescale(self, block: Block, vacuity: Block | None) -> Block:
        """Turn probabilities [K, *spatial] into p' in place, by their vacuity [*spatial] in (0, 1].

        Returns:
            [*spatial] the new vacuity K / S'.

        Raises:
            DataError: no vacuity.
        """
        if vacuity is None:
            raise DataError("evidential rescaling needs the vacuity map of an evidential answer, and there is none")
        _to_evidence(block, vacuity)
        if self.exponent != 1:
            np.power(block, self.exponent, out=block)
        block *= self.scale_of_evidence
        block += 1
        strength = block.sum(axis=0)
        block /= strength
        return np.asarray(len(block) / strength, np.float32)


def evidence(probabilities: Block, vacuity: Block) -> Block:
    """Compute e_k = max(0, K p_k / u - 1) from probabilities [K, *spatial] and vacuity [*spatial]: a new array."""
    found = probabilities.astype(np.float32)
    _to_evidence(found, vacuity)
    return found


def fit_evidential_rescaling(voxels: Voxels, *, exponent: bool = False) -> Fitted[EvidentialRescaling | Unchanged]:
    """Fit s, and g where asked, by the likelihood of the voxels.

    Returns:
        An `EvidentialRescaling`, or `Unchanged` where it is not better than leaving the probabilities alone.

    Raises:
        DataError: the voxels were drawn without vacuity.
    """
    if voxels.vacuity is None:
        raise DataError(
            "evidential rescaling needs answers with a vacuity map; calibrate an evidential network with it"
        )
    given = evidence(voxels.probabilities, voxels.vacuity)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scale, power = np.exp(parameters)
        value, gradient = mean_over(voxels, lambda piece: _terms(voxels, given, piece, scale, power), 2)
        return value, gradient * (scale, power)

    bounds = [_SCALE_RANGE, _EXPONENT_RANGE if exponent else (0.0, 0.0)]
    scale, power = np.exp(minimised(loss, np.zeros(2), bounds))
    return better_of(voxels, EvidentialRescaling(scale_of_evidence=float(scale), exponent=float(power)))


def _terms(
    voxels: Voxels, given: Block, piece: slice, scale: float, power: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute -ln p' of the true class [N], and its derivatives [2, N] by s and g."""
    amount, labels = given[:, piece].astype(np.float64), voxels.labels[piece]
    powered = amount**power
    growth = powered * np.log(np.where(amount > 0, amount, 1.0))  # d e^g / d g; 0 without evidence
    columns = np.arange(labels.size)
    of_truth = 1 + scale * powered[labels, columns]
    strength = len(given) + scale * powered.sum(axis=0)
    by_scale = powered.sum(axis=0) / strength - powered[labels, columns] / of_truth
    by_power = scale * (growth.sum(axis=0) / strength - growth[labels, columns] / of_truth)
    return np.log(strength) - np.log(of_truth), np.stack([by_scale, by_power])


def _to_evidence(block: Block, vacuity: Block) -> None:
    """Turn probabilities into evidence in place."""
    block *= np.float32(len(block)) / np.maximum(vacuity, np.float32(_LEAST_VACUITY))
    block -= 1
    np.maximum(block, 0, out=block)
