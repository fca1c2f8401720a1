"""Simulated raters whose disagreement has a closed form.

A rater draws the border of a structure where d(x) + sigma * g(x) = 0: d is the signed distance to the true border in
mm, sigma the raters' spread in mm, g a smooth Gaussian field of zero mean and unit variance, new for every rater and
structure. Hence P(rater calls x inside) = P(g > -d / sigma) = Phi(d / sigma) at every voxel, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from medmargin.datasets.phantoms.organs import Organ

Field = NDArray[np.float32]

CORRELATION_MM = 6.0
"""Distance over which one rater's displacement of a border keeps its sign: raters err in stretches, not in voxels."""

_KNOTS_PER_CORRELATION = 1.5
_REACH_IN_CORRELATIONS = 2.5


def unit_field(
    rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float], *, correlation_mm: float
) -> Field:
    """Draw a smooth Gaussian field whose value at every voxel has mean 0 and variance exactly 1.

    Each voxel is a sum of independent normal knots with Gaussian weights of unit square sum, axis by axis.

    Args:
        rng: source of the knots.
        shape: voxels along each axis; spacing: voxel size along each axis in mm.
        correlation_mm: standard deviation of the weights in mm.

    Returns:
        [*shape] float32.
    """
    weights = [_knot_weights(n, step, correlation_mm) for n, step in zip(shape, spacing, strict=True)]
    field = rng.standard_normal([matrix.shape[1] for matrix in weights])
    for matrix in weights:  # each pass consumes the first axis and appends the voxels' axis
        field = np.tensordot(field, matrix, axes=(0, 1))
    return field.astype(np.float32)


def inside_probability(organ: Organ) -> Field:
    """Compute Phi(d / sigma), the probability that a rater counts a voxel to this organ alone: [I, J, K] in [0, 1]."""
    return ndtr(organ.distance_mm / organ.rater_sd_mm).astype(np.float32)


def label_probabilities(organs: Sequence[Organ]) -> dict[int, Field]:
    """Compute the probability of every label value when later organs cover earlier ones.

    p_k = q_k * prod_{j > k} (1 - q_j) with q = Phi(d / sigma), since the raters' fields are independent.

    Returns:
        label value -> [I, J, K] float32; what is missing to a sum of 1 is background.
    """
    uncovered = np.ones(organs[0].distance_mm.shape, np.float32)
    probabilities = {}
    for organ in reversed(organs):
        inside = inside_probability(organ)
        probabilities[organ.label] = inside * uncovered
        uncovered = uncovered * (1 - inside)
    return probabilities


def draw_rater(organs: Sequence[Organ], rng: np.random.Generator, spacing: Sequence[float]) -> NDArray[np.uint8]:
    """Draw one rater's label map; later organs cover earlier ones.

    Returns:
        [I, J, K] uint8, 0 where no organ is.
    """
    labels = np.zeros(organs[0].distance_mm.shape, np.uint8)
    for organ in organs:
        displacement = unit_field(rng, labels.shape, spacing, correlation_mm=CORRELATION_MM)
        labels[organ.distance_mm + organ.rater_sd_mm * displacement > 0] = organ.label
    return labels


def _knot_weights(voxels: int, spacing: float, correlation: float) -> NDArray[np.float64]:
    """Weights [voxels, knots] of the knots along one axis; the squares of each row sum to 1."""
    step, reach = correlation / _KNOTS_PER_CORRELATION, _REACH_IN_CORRELATIONS * correlation
    positions = np.arange(voxels) * spacing
    knots = np.arange(-reach, positions[-1] + reach + step, step)
    weights = np.exp(-0.5 * ((positions[:, None] - knots[None, :]) / correlation) ** 2)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)
