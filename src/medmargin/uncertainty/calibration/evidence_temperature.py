"""Evidence temperature: the logits behind the evidence, softened as those of a softmax are.

p = (1 + e) / S of an evidential network is blunt where there is little evidence: with e = (0.1, 0.02, 0.01) it says a
third each, though the first class has five times the evidence of the others and is mostly right. No temperature on p
and no scale of e mends that and the sure voxels alike. The logits z that the evidence was made of keep the difference:
z = ln e where e = exp(z), z = ln(exp(e) - 1) where e = softplus(z) (`networks.evidence`). So both readings are mixed,

    p' = (1 - w) softmax(z / T) + w p

with a temperature T > 0 (Guo et al. 2017, arXiv:1706.04599) and a share w in [0, 1], by the likelihood of held-out
patients. p, which is never surer than its evidence, keeps the few voxels that are wrong with much evidence from
dictating T; far from borders it adds nothing that was not there before. The order of the classes stays. How evidence
was made is tried, not asked: the likelier of the two is taken, which also serves e = relu(z) and means over several
answers, where z is a definition.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import expit

from medmargin.errors import DataError
from medmargin.uncertainty.calibration.classes import SMALLEST
from medmargin.uncertainty.calibration.evidential_rescaling import evidence
from medmargin.uncertainty.calibration.temperature import Block, Fitted, Positive, Unchanged, better_of, minimised
from medmargin.uncertainty.calibration.voxel_sample import Voxels, mean_over

Link = Literal["exp", "softplus"]
_LEAST_EVIDENCE = np.float32(1e-6)  # what S p - 1 can still tell from none in float32
_LINEAR = 20  # from here on softplus is the identity in float32
_LOG_TEMPERATURES = (-4.0, 6.0)
_LOG_ODDS = (-14.0, 14.0)
_START = (0.0, 0.0)


class EvidenceTemperature(BaseModel):
    """(1 - w) softmax(z / T) + w p of the logits z behind the evidence; the vacuity stays as it is.

    Attributes:
        temperature: T > 0. kept: w, the share of p. link: how evidence is made of logits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["evidence temperature"] = "evidence temperature"
    temperature: Positive
    kept: Annotated[float, Field(ge=0, le=1)]
    link: Link

    def scale(self, block: Block, vacuity: Block | None = None, image: Block | None = None) -> None:
        """Rescale probabilities [K, *spatial] in place, by their vacuity [*spatial] in (0, 1].

        Raises:
            DataError: no vacuity.
        """
        if vacuity is None:
            raise DataError("an evidence temperature needs the vacuity map of an evidential answer, and there is none")
        softened = logits_behind(block, vacuity, self.link)
        softened /= self.temperature
        np.exp(softened, out=softened)
        softened *= (1 - self.kept) / softened.sum(axis=0)
        block *= self.kept
        block += softened


def logits_behind(probabilities: Block, vacuity: Block, link: Link) -> Block:
    """Compute the logits [K, *spatial] behind an evidential answer, the largest of a voxel being 0: a new array.

    Args:
        probabilities: [K, *spatial]. vacuity: [*spatial] in (0, 1].
        link: how evidence was made of them.
    """
    found = evidence(probabilities, vacuity)
    np.maximum(found, _LEAST_EVIDENCE, out=found)
    if link == "exp":
        np.log(found, out=found)
    else:
        small = found < _LINEAR
        np.log(np.expm1(found, out=found, where=small), out=found, where=small)
    found -= found.max(axis=0)
    return found


def fit_evidence_temperature(voxels: Voxels) -> Fitted[EvidenceTemperature | Unchanged]:
    """Fit T and w for both links by the likelihood of the voxels, and take the better one.

    Returns:
        An `EvidenceTemperature`, or `Unchanged` where it is not better than leaving the probabilities alone.

    Raises:
        DataError: the voxels were drawn without vacuity.
    """
    if voxels.vacuity is None:
        raise DataError("an evidence temperature needs answers with a vacuity map; calibrate an evidential network")
    links: tuple[Link, ...] = ("exp", "softplus")
    found = [better_of(voxels, _fitted(voxels, voxels.vacuity, link)) for link in links]
    return min(found, key=lambda fitted: fitted.after)


def _fitted(voxels: Voxels, vacuity: NDArray[np.float32], link: Link) -> EvidenceTemperature:
    logits = logits_behind(voxels.probabilities, vacuity, link)
    as_given = np.take_along_axis(voxels.probabilities, voxels.labels[None], axis=0)[0].astype(np.float64)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        def terms(piece: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            return _terms(logits[:, piece], voxels.labels[piece], as_given[piece], *parameters)

        return mean_over(voxels, terms, 2)

    log_temperature, log_odds = minimised(loss, np.array(_START), [_LOG_TEMPERATURES, _LOG_ODDS])
    return EvidenceTemperature(temperature=float(np.exp(log_temperature)), kept=float(expit(log_odds)), link=link)


def _terms(
    logits: Block, labels: NDArray[np.int64], as_given: NDArray[np.float64], log_temperature: float, log_odds: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute -ln p' of the true class [N], and its derivatives [2, N] by ln T and the log-odds of w."""
    kept, scaled = expit(log_odds), logits * np.exp(-log_temperature)
    softened = np.exp(scaled)
    softened /= softened.sum(axis=0)
    columns = np.arange(labels.size)
    of_truth = softened[labels, columns]
    found = np.maximum((1 - kept) * of_truth + kept * as_given, SMALLEST)
    # d softmax_y / d ln T = -softmax_y (z_y - sum_k softmax_k z_k) / T
    by_temperature = (1 - kept) * of_truth * (scaled[labels, columns] - (softened * scaled).sum(axis=0)) / found
    by_share = kept * (1 - kept) * (of_truth - as_given) / found
    return -np.log(found), np.stack([by_temperature, by_share])
