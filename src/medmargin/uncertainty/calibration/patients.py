"""Patients as the items of a guarantee: one number each, enough of them, and the conformal quantile.

A guarantee for "the next patient" holds when patients are exchangeable: images of one patient are not. So a
patient with several images counts once, with the mean of their losses (risk of an image drawn from that patient) or the
largest of their scores (every image of the patient is covered).
Vovk et al. 2005, Algorithmic Learning in a Random World (split conformal quantile).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import ConfigError, DataError


def mean_per_patient(values: Sequence[Any], patients: Sequence[str]) -> NDArray[np.float64]:
    """Average the values (numbers or arrays [L]) of each patient's images: [patients] or [patients, L]."""
    _, group, counts = np.unique(np.asarray(patients), return_inverse=True, return_counts=True)
    sums = np.zeros((counts.size, *np.shape(values)[1:]))
    np.add.at(sums, group, np.asarray(values, np.float64))
    return sums / counts.reshape(-1, *[1] * (sums.ndim - 1))


def largest_per_patient(values: Sequence[float], patients: Sequence[str]) -> NDArray[np.float64]:
    """Take the largest value of each patient's images: [patients]."""
    _, group = np.unique(np.asarray(patients), return_inverse=True)
    largest = np.full(group.max(initial=-1) + 1, -np.inf)
    np.maximum.at(largest, group, np.asarray(values, np.float64))
    return largest


def patients_needed(risk: float, *, bound: float = 1.0) -> int:
    """Count the patients below which no guarantee at this risk exists: n >= B / risk - 1.

    Raises:
        ConfigError: a risk outside (0, 1).
    """
    if not 0 < risk < 1:
        raise ConfigError(f"risk {risk}: expected a number between 0 and 1, for example 0.1")
    return math.ceil(bound / risk - 1 - 1e-9)  # 1 - 0.9 is a little below 0.1


def require_patients(found: int, risk: float, *, what: str) -> None:
    """Refuse a guarantee that the number of patients cannot carry.

    Raises:
        DataError: too few patients; the message names the number needed.
    """
    needed = patients_needed(risk)
    if found < needed:
        raise DataError(
            f"{what}: {found} patients cannot carry a guarantee at risk {risk:g} (level {1 - risk:g}); at least "
            f"{needed} are needed. Calibrate on more patients, or ask for a lower level."
        )


def conformal_quantile(scores: NDArray[np.float64], risk: float, *, what: str) -> float:
    """Find the score that the next patient's exceeds with a probability of at most `risk`.

    The ceil((n + 1) (1 - risk))-th smallest of n scores, one per patient; it may be infinite.

    Raises:
        DataError: too few patients. ConfigError: a risk outside (0, 1).
    """
    require_patients(scores.size, risk, what=what)
    rank = math.ceil((scores.size + 1) * (1 - risk) - 1e-9)
    return float(np.sort(scores)[rank - 1])
