"""Voxels of calibration cases, drawn in two strata, so that a fit needs neither all voxels nor all cases at once.

Nearly all voxels are far background and nearly all errors are near borders. So the band around the structures and the
rest are sampled separately, and every drawn voxel weighs as many voxels as it stands for: weighted means over the
sample estimate the means over all voxels of all cases (stratified sampling, Cochran 1977, ch. 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError
from medmargin.uncertainty.calibration.classes import SMALLEST, with_background

_BLOCK = 1 << 20
_SUM_TOLERANCE = 0.02  # maps stored in steps of 1/250 do not sum to exactly 1


@dataclass(frozen=True, eq=False)
class Voxels:
    """Drawn voxels.

    Attributes:
        probabilities: [K, N] float32, background first, sums of 1.
        labels: [N] true class, 0..K-1.
        weights: [N] voxels each one stands for.
        near: [N] whether it lies in the band.
        vacuity: [N] float32 in (0, 1], or None.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    near: NDArray[np.bool_]
    vacuity: NDArray[np.float32] | None

    def negative_log_likelihood(self, probabilities: NDArray[Any]) -> float:
        """Estimate the mean of -ln p of the true class (nats, p >= 1e-12) over all voxels these stand for.

        Args:
            probabilities: [K, N] for these voxels: their own, or rescaled ones.
        """
        truth = np.take_along_axis(probabilities, self.labels[None], axis=0)[0].astype(np.float64)
        return float(np.average(-np.log(np.maximum(truth, SMALLEST)), weights=self.weights))

    def take(self, chosen: Any) -> Voxels:
        """Take some of the voxels, e.g. those of the band with `near`."""
        vacuity = None if self.vacuity is None else self.vacuity[chosen]
        return Voxels(
            self.probabilities[:, chosen], self.labels[chosen], self.weights[chosen], self.near[chosen], vacuity
        )


class VoxelSample:
    """Draws voxels of cases that arrive one by one; its memory is bounded.

    Args:
        classes: K, with the background; 2 for a structure with a probability of its own.
        per_case: voxels to draw of a case, half of them in the band.
        at_most: voxels to keep; beyond, a random half of all is dropped and the rest weighs twice as much.
        band_only: draw in the band only; means are then means over the bands.
        seed: of the draws; the same cases in the same order give the same sample.
    """

    def __init__(
        self, classes: int, *, per_case: int = 20_000, at_most: int = 1_000_000, band_only: bool = False, seed: int = 0
    ) -> None:
        self.classes, self.per_case, self.at_most, self.band_only = classes, per_case, at_most, band_only
        self._rng = np.random.default_rng(seed)
        self._cases: list[Voxels] = []
        self._size = 0

    def add(
        self,
        case: str,
        probabilities: NDArray[Any],
        labels: NDArray[Any],
        near: NDArray[np.bool_],
        vacuity: NDArray[Any] | None = None,
    ) -> None:
        """Draw voxels of one case.

        Args:
            case: name, for messages.
            probabilities: [K, *spatial], or [K - 1, *spatial] of the structures alone, the rest being background; a
                memory map is read at the drawn voxels only.
            labels: [*spatial] true class, 0..K-1.
            near: [*spatial] the band around structures (`uncertainty.bands.band`).
            vacuity: [*spatial] K / S of an evidential answer.

        Raises:
            DataError: shapes that do not fit, unknown classes, probabilities that are no distribution, or cases with
                and without vacuity.
        """
        shape = labels.shape
        given = {"band": near.shape, "probabilities": probabilities.shape[1:]}
        given |= {} if vacuity is None else {"vacuity": vacuity.shape}
        for what, found in given.items():
            if found != shape:
                raise DataError(f"{case}: {what} of shape {found} for labels of shape {shape}; bring them on one grid")
        if len(probabilities) not in (self.classes, self.classes - 1):
            raise DataError(f"{case}: {len(probabilities)} probability maps for {self.classes} classes")
        if self._cases and (self._cases[0].vacuity is None) != (vacuity is None):
            raise DataError(f"{case}: cases with and without vacuity cannot be calibrated together")
        position, weights, from_band = self._draw(near.ravel())
        values = np.stack([np.asarray(channel.reshape(-1)[position], np.float32) for channel in probabilities])
        drawn = Voxels(
            self._distribution(case, values), labels.reshape(-1)[position].astype(np.int64), weights, from_band,
            None if vacuity is None else np.asarray(vacuity.reshape(-1)[position], np.float32),
        )  # fmt: skip
        if drawn.labels.size and not 0 <= drawn.labels.min() <= drawn.labels.max() < self.classes:
            raise DataError(f"{case}: a true class outside 0..{self.classes - 1}; check the label values")
        if drawn.vacuity is not None and not ((drawn.vacuity > 0) & (drawn.vacuity <= 1 + 1e-5)).all():
            raise DataError(f"{case}: vacuity outside (0, 1]; it is the number of classes over the Dirichlet strength")
        self._cases.append(drawn)
        self._size += drawn.labels.size
        self._thin()

    def voxels(self) -> Voxels:
        """Put together what was drawn so far.

        Raises:
            DataError: nothing was drawn.
        """
        if not self._size:
            where = "in the band around any structure" if self.band_only else "in any case"
            raise DataError(f"no voxel {where}: nothing to calibrate on")
        pool = self._cases
        return Voxels(
            np.concatenate([each.probabilities for each in pool], axis=1),
            np.concatenate([each.labels for each in pool]),
            np.concatenate([each.weights for each in pool]),
            np.concatenate([each.near for each in pool]),
            None if pool[0].vacuity is None else np.concatenate([each.vacuity for each in pool]),
        )

    def _draw(self, near: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Choose positions of both strata, with the weight and the stratum of each."""
        inside = int(np.count_nonzero(near))
        strata = [(True, inside)] if self.band_only else [(True, inside), (False, near.size - inside)]
        positions, weights, from_band = [], [], []
        for stratum, size in strata:
            count = min(size, max(1, self.per_case // len(strata)))
            ranks = np.sort(self._rng.choice(size, count, replace=False, shuffle=False)) if size else np.empty(0, int)
            positions.append(_positions(near, stratum, ranks))
            weights.append(np.full(count, size / max(count, 1)))
            from_band.append(np.full(count, stratum))
        return np.concatenate(positions), np.concatenate(weights), np.concatenate(from_band)

    def _distribution(self, case: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(values).all() or (values.size and values.min() < 0):
            raise DataError(f"{case}: probabilities that are negative or not finite")
        if len(values) < self.classes:
            return with_background(values)
        total = values.sum(axis=0)
        if total.size and np.abs(total - 1).max() > _SUM_TOLERANCE:
            worst = total[np.abs(total - 1).argmax()]
            raise DataError(f"{case}: class probabilities sum to {worst:.3g} in a voxel; expected 1")
        return values / total

    def _thin(self) -> None:
        while self._size > self.at_most:
            kept = (each.take(self._rng.random(each.labels.size) < 0.5) for each in self._cases)
            self._cases = [replace(each, weights=2 * each.weights) for each in kept]
            self._size = sum(each.labels.size for each in self._cases)


def _positions(flags: NDArray[np.bool_], value: bool, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find where the ranks-th (ascending) voxels with this flag are, block by block: no index of the whole image."""
    found, passed = [], 0
    for start in range(0, flags.size, _BLOCK):
        block = np.flatnonzero(flags[start : start + _BLOCK] == value)
        first, last = np.searchsorted(ranks, [passed, passed + block.size])
        found.append(start + block[ranks[first:last] - passed])
        passed += block.size
    return np.concatenate(found) if found else np.empty(0, np.int64)


def mean_over(
    voxels: Voxels, loss: Callable[[slice], tuple[NDArray[np.float64], NDArray[np.float64]]], parameters: int
) -> tuple[float, NDArray[np.float64]]:
    """Average a loss and its gradient over the sample, piece by piece.

    Args:
        voxels: the sample.
        loss: piece -> loss [N] of its voxels and gradient [P, N].
        parameters: P.
    """
    total, gradient = 0.0, np.zeros(parameters)
    for piece in _pieces(voxels.labels.size):
        weights = voxels.weights[piece]
        value, slope = loss(piece)
        total += float(value @ weights)
        gradient += slope @ weights
    whole = voxels.weights.sum()
    return total / whole, gradient / whole


def _pieces(size: int) -> Iterator[slice]:
    for start in range(0, size, 1 << 16):
        yield slice(start, start + (1 << 16))
