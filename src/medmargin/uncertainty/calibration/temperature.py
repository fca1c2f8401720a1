"""Temperature scaling: one number, or two per class, that make probabilities as sure as they deserve to be.

Guo et al. 2017, arXiv:1706.04599: softmax(z / T) with one T > 0 for all ("temperature scaling"), and softmax(w * z + b)
with a slope and an offset per class ("vector scaling"), fitted by the likelihood of held-out patients. Logits are known
up to a constant per voxel, so log-probabilities serve as logits: every predictor that gives probabilities can be
scaled, also one that averages several answers.

Deviations: probabilities below 1e-12 count as 1e-12; slopes are positive and bounded; a class that no drawn voxel has
keeps the common temperature, because nothing is known about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.optimize import minimize
from scipy.special import logsumexp

from medmargin.uncertainty.calibration.classes import SMALLEST
from medmargin.uncertainty.calibration.voxel_sample import Voxels, mean_over

Block = NDArray[np.float32]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# In float32 a value this far below 1 stays below it after both are divided by the same number.
_BELOW_ONE = np.float32(1 - 2.0**-22)
_LOG_RANGE = (-4.0, 4.0)  # of slopes
_OFFSET_RANGE = (-8.0, 8.0)


class Rescaling(Protocol):
    """A change of class probabilities that was fitted on held-out patients."""

    @property
    def kind(self) -> str: ...

    def scale(self, block: Block, vacuity: Block | None = None, image: Block | None = None) -> None:
        """Rescale a block of probabilities in place.

        Args:
            block: [K, *spatial] float32, background first, sums of 1.
            vacuity: [*spatial] K / S, for a rescaling of evidence.
            image: [C, *spatial], for a local temperature.
        """


Kind = TypeVar("Kind", bound=Rescaling, covariant=True)
_Tried = TypeVar("_Tried", bound=Rescaling)


class Fitted(NamedTuple, Generic[Kind]):
    """What was fitted, and -ln p of the truth before and after (nats, mean over the fit's voxels)."""

    rescaling: Kind
    before: float
    after: float


class Unchanged(BaseModel):
    """Probabilities as they come."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["none"] = "none"

    def scale(self, block: Block, vacuity: Block | None = None, image: Block | None = None) -> None:
        """Leave the block [K, *spatial] as it is."""


class Temperature(BaseModel):
    """softmax(log p / T): T above 1 makes less sure, T below 1 surer; the largest class stays the largest.

    Attributes:
        temperature: T > 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["temperature"] = "temperature"
    temperature: Positive

    def scale(self, block: Block, vacuity: Block | None = None, image: Block | None = None) -> None:
        """Rescale a block of probabilities [K, *spatial] in place, as p^(1/T) over its sum."""
        top = block.max(axis=0)
        block /= np.maximum(top, SMALLEST, out=top)
        below = block < 1
        np.maximum(block, SMALLEST, out=block)
        np.power(block, 1 / self.temperature, out=block)
        np.minimum(block, _BELOW_ONE, out=block, where=below)  # rounding may not turn a second class into a first one
        block /= block.sum(axis=0)


class VectorScaling(BaseModel):
    """softmax(w log p + b) with a slope and an offset per class; the largest class may change.

    Attributes:
        slopes: [K] w > 0. offsets: [K] b, 0 for the background.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["vector"] = "vector"
    slopes: tuple[Positive, ...] = Field(min_length=2)
    offsets: tuple[Finite, ...]

    @model_validator(mode="after")
    def _one_offset_per_slope(self) -> VectorScaling:
        if len(self.slopes) != len(self.offsets):
            raise ValueError(f"{len(self.slopes)} slopes and {len(self.offsets)} offsets")
        return self

    def scale(self, block: Block, vacuity: Block | None = None, image: Block | None = None) -> None:
        """Rescale a block of probabilities [K, *spatial] in place."""
        np.maximum(block, SMALLEST, out=block)
        np.log(block, out=block)
        for channel, slope, offset in zip(block, self.slopes, self.offsets, strict=True):
            channel *= slope
            channel += offset
        block -= block.max(axis=0)
        np.exp(block, out=block)
        block /= block.sum(axis=0)


def fit_temperature(voxels: Voxels) -> Fitted[Temperature | Unchanged]:
    """Fit one temperature by the likelihood of the voxels.

    Returns:
        A `Temperature`, or `Unchanged` where no temperature is better than 1.
    """
    logits = _log_ratios(voxels.probabilities)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        return _likelihood(voxels, logits, np.exp(-parameters[0]) * np.ones(len(logits)), np.zeros(len(logits)))

    def in_log_temperature(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient = loss(parameters)
        # the slopes are all 1 / T, and d(1/T) / d(ln T) = -1/T
        return value, np.array([-np.exp(-parameters[0]) * gradient[: len(logits)].sum()])

    found = minimised(in_log_temperature, np.zeros(1), [_LOG_RANGE])
    return better_of(voxels, Temperature(temperature=float(np.exp(found[0]))))


def fit_vector_scaling(voxels: Voxels) -> Fitted[VectorScaling | Temperature | Unchanged]:
    """Fit a slope and an offset per class by the likelihood of the voxels, starting from the common temperature.

    Returns:
        The best of a `VectorScaling`, the `Temperature` it started from and `Unchanged`.
    """
    classes = len(voxels.probabilities)
    common = fit_temperature(voxels)
    slope = 1 / common.rescaling.temperature if isinstance(common.rescaling, Temperature) else 1.0
    logits = np.log(np.maximum(voxels.probabilities, SMALLEST))
    start = np.concatenate([np.full(classes, np.log(slope)), np.zeros(classes)])
    seen = np.bincount(voxels.labels, minlength=classes) > 0
    free = np.concatenate([seen, seen & (np.arange(classes) > 0)])
    ranges = [_LOG_RANGE] * classes + [_OFFSET_RANGE] * classes
    bounds = [pair if is_free else (value, value) for pair, value, is_free in zip(ranges, start, free, strict=True)]

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slopes = np.exp(parameters[:classes])
        value, gradient = _likelihood(voxels, logits, slopes, parameters[classes:])
        gradient[:classes] *= slopes
        return value, gradient

    found = minimised(loss, start, bounds)
    scaling = VectorScaling(slopes=tuple(np.exp(found[:classes]).tolist()), offsets=tuple(found[classes:].tolist()))
    fitted = better_of(voxels, scaling)
    return fitted if fitted.after < common.after else common


def minimised(
    loss: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
    start: NDArray[np.float64],
    bounds: list[tuple[float, float]],
) -> NDArray[np.float64]:
    """Minimise a loss that comes with its gradient (L-BFGS within bounds)."""
    return minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-12, "gtol": 1e-8}).x


def better_of(voxels: Voxels, rescaling: _Tried) -> Fitted[_Tried | Unchanged]:
    """Compare with leaving the probabilities alone, by what `scale` really gives: no fit may do harm."""
    scaled = voxels.probabilities.copy()
    rescaling.scale(scaled, voxels.vacuity)
    before = voxels.negative_log_likelihood(voxels.probabilities)
    after = voxels.negative_log_likelihood(scaled)
    return Fitted(rescaling, before, after) if after < before else Fitted(Unchanged(), before, before)


def _log_ratios(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits as `Temperature.scale` sees them: relative to the largest class, then bounded from below."""
    return np.log(np.maximum(probabilities / probabilities.max(axis=0), SMALLEST))


def _likelihood(
    voxels: Voxels, logits: NDArray[np.float32], slopes: NDArray[np.float64], offsets: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Mean of -ln softmax(w z + b) of the true class, with its gradient [2 K] by the slopes and the offsets."""

    def loss(piece: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        unscaled, labels = logits[:, piece].astype(np.float64), voxels.labels[piece]
        scaled = slopes[:, None] * unscaled + offsets[:, None]
        normaliser = logsumexp(scaled, axis=0)
        excess = np.exp(scaled - normaliser)  # probability minus truth, in the end
        columns = np.arange(labels.size)
        excess[labels, columns] -= 1
        return normaliser - scaled[labels, columns], np.concatenate([excess * unscaled, excess])

    return mean_over(voxels, loss, 2 * len(logits))
