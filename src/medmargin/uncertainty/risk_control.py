"""Conformal risk control: Angelopoulos et al. 2022, arXiv:2208.02814.

A mask gets a safety parameter lambda, for example C = {voxels with p >= 1 - lambda}, and every patient i a loss
l_i(lambda) in [0, B], for example the share of the structure outside C. The least safe lambda whose corrected mean loss
is at most alpha bounds the expected loss of the next patient by alpha, provided that patients are exchangeable and that
the grid of lambdas was fixed beforehand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import ConfigError, DataError

Values = NDArray[Any]


def controlled_lambda(
    losses: Values, lambdas: Values, alpha: float, *, bound: float = 1.0, released: bool = False
) -> float:
    """Choose the least safe lambda with n/(n+1) mean loss + B/(n+1) <= alpha (eq. 4).

    Args:
        losses: [n, L] loss of each calibration patient at each lambda, in [0, `bound`], not falling along L.
        lambdas: [L] from the safest to the least safe.
        alpha: risk to allow.
        bound: B, the largest possible loss.
        released: answer as the released code, which returns the first lambda both where even that one breaks the bound
            (no guarantee) and where none breaks it (far too safe).

    Raises:
        ConfigError: sizes do not fit.
        DataError: no lambda of the grid keeps the bound; n >= B / alpha - 1 patients are needed at the least.
    """
    if losses.ndim != 2 or losses.shape[1] != len(lambdas) or not len(losses):
        raise ConfigError(f"losses {losses.shape} do not fit {len(lambdas)} lambdas: expected [patients, lambdas]")
    patients = len(losses)
    corrected = patients / (patients + 1) * losses.mean(axis=0) + bound / (patients + 1)
    broken = corrected > alpha
    first_broken = int(np.argmax(broken)) if broken.any() else len(lambdas)
    if released:
        return float(lambdas[max(first_broken - 1, 0) if broken.any() else 0])
    if first_broken == 0:
        raise DataError(
            f"risk {alpha} cannot be kept: the safest lambda has a corrected loss of {corrected[0]:.3g} on {patients} "
            f"patients. Allow more risk, or calibrate on at least {int(np.ceil(bound / alpha - 1))} patients."
        )
    return float(lambdas[first_broken - 1])


def false_negative_losses(probabilities: Values, truth: Values, lambdas: Values) -> NDArray[np.float64]:
    """Compute the share of a structure outside C = {p >= 1 - lambda} for every lambda.

    Args:
        probabilities: [..] of the structure in one patient.
        truth: [..] its mask.
        lambdas: [L] in [0, 1], falling: a large lambda is safe.

    Returns:
        [L] in [0, 1]; 0 everywhere where the truth is empty.
    """
    inside = np.sort(probabilities[np.asarray(truth, bool)])
    if not inside.size:
        return np.zeros(len(lambdas))
    return np.searchsorted(inside, 1.0 - np.asarray(lambdas), side="left") / inside.size
