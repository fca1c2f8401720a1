"""Distance of a feature vector from a few training vectors: Mahalanobis with a shrunk covariance.

Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices" (J. Multivariate Analysis
88): Sigma = (1 - rho) S + rho mu I with mu = tr S / D and the rho that minimises the expected squared error. Features
are first put on their median and MAD, so that none rules by its unit.

Deviations: only the leading 32 eigenvectors of S are kept; the other directions share their mean variance. A network
gives hundreds of features and a data set tens of images, so nearly nothing is lost, and the file stays small.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from medmargin.uncertainty.trust.stored import Stored

Array = NDArray[np.float64]
_COMPONENTS = 32
_MAD = 1.4826
_FURTHEST = 50.0  # scales from the median: one feature that is nearly constant must not blow up the covariance


class ShrunkCovariance(Stored):
    """Where training vectors lie, and how they spread.

    Attributes:
        centre, scale: [D] median and MAD (as a standard deviation) of each feature; scale 0: it never changed.
        mean: [D] mean of the scaled features. directions: [R, D] orthonormal. variances: [R] along them, shrunk.
        rest: variance along every other direction. shrinkage: rho.
    """

    centre: list[float]
    scale: list[float]
    mean: list[float]
    directions: list[list[float]]
    variances: list[float]
    rest: float
    shrinkage: float

    @classmethod
    def fit(cls, vectors: Array) -> Self:
        """Fit to training vectors [N, D], N >= 2."""
        centre = np.median(vectors, axis=0)
        scale = _MAD * np.median(np.abs(vectors - centre), axis=0)
        scale = np.where(scale > 0, scale, vectors.std(axis=0))
        scaled = _scaled(vectors, centre, scale)
        mean = scaled.mean(axis=0)
        count, size = scaled.shape
        _, singular, directions = np.linalg.svd(scaled - mean, full_matrices=False)
        variances = singular**2 / count
        shrinkage = _shrinkage(scaled - mean, variances)
        mu = variances.sum() / size
        kept = min(_COMPONENTS, count - 1, size)
        left = variances[kept:].sum() / max(size - kept, 1)
        return cls.model_construct(
            centre=centre.tolist(),
            scale=scale.tolist(),
            mean=mean.tolist(),
            directions=np.round(directions[:kept], 6).tolist(),
            variances=((1 - shrinkage) * variances[:kept] + shrinkage * mu).tolist(),
            rest=float((1 - shrinkage) * left + shrinkage * mu),
            shrinkage=shrinkage,
        )

    def distance(self, vector: Array) -> float:
        """Compute the distance of a vector [D], per root of the number of features: about 1 for training vectors."""
        offset = _scaled(vector, np.array(self.centre), np.array(self.scale)) - self.mean
        along = np.array(self.directions) @ offset
        squared = float((along**2 / np.maximum(self.variances, 1e-9)).sum())
        squared += max(float(offset @ offset - along @ along), 0.0) / max(self.rest, 1e-9)
        return float(np.sqrt(squared / len(offset)))


def _scaled(vectors: Array, centre: Array, scale: Array) -> Array:
    """Put features on their scale; one that never changed in training counts its change in units of 1."""
    return np.clip((vectors - centre) / np.where(scale > 0, scale, 1.0), -_FURTHEST, _FURTHEST)


def _shrinkage(centred: Array, variances: Array) -> float:
    """Estimate rho = min(b^2, d^2) / d^2 (Ledoit and Wolf, section 3.3) from the norms of the vectors and of S."""
    count, size = centred.shape
    squared_norm = float((variances**2).sum())  # |S|_F^2
    mu = variances.sum() / size
    spread = squared_norm - size * mu**2  # |S - mu I|_F^2
    fourth = float((np.square(centred).sum(axis=1) ** 2).mean())  # mean |x x^T|_F^2
    error = (fourth - squared_norm) / count
    return float(np.clip(error / spread, 0, 1)) if spread > 1e-12 * squared_norm else 1.0
