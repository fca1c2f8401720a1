"""Patients, not images, carry guarantees; the number needed is named."""

from __future__ import annotations

import numpy as np
import pytest

from medmargin.errors import ConfigError, DataError
from medmargin.uncertainty.calibration.patients import (
    conformal_quantile,
    largest_per_patient,
    mean_per_patient,
    patients_needed,
)


@pytest.mark.parametrize(("level", "needed"), [(0.9, 9), (0.95, 19), (0.8, 4), (0.99, 99), (0.7, 3)])
def test_patients_needed(level: float, needed: int) -> None:
    assert patients_needed(1 - level) == needed
    assert conformal_quantile(np.arange(float(needed)), 1 - level, what="x") == needed - 1
    with pytest.raises(DataError, match=f"interval of liver.*at least {needed} are needed"):
        conformal_quantile(np.arange(needed - 1.0), 1 - level, what="interval of liver")


def test_quantile_is_the_corrected_rank() -> None:
    scores = np.random.default_rng(0).permutation(99.0 + np.arange(99))
    assert conformal_quantile(scores, 0.1, what="x") == 99 + 89  # the 90th of 99
    assert conformal_quantile(np.append(scores, np.inf), 0.005 + 1 / 101, what="x") == np.inf


def test_images_of_a_patient_count_once() -> None:
    patients = ["b", "a", "b", "b"]
    np.testing.assert_allclose(mean_per_patient([1.0, 10.0, 2.0, 6.0], patients), [10, 3])
    np.testing.assert_allclose(mean_per_patient([np.array([1.0, 0]), np.array([0, 4.0])], ["a", "a"]), [[0.5, 2]])
    np.testing.assert_allclose(largest_per_patient([1.0, 10.0, 2.0, np.inf], patients), [10, np.inf])


@pytest.mark.parametrize("risk", [0.0, 1.0, -0.1, 1.5])
def test_impossible_risks_are_refused(risk: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        patients_needed(risk)
