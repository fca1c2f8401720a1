from __future__ import annotations

import numpy as np
import pytest

from medmargin.evaluation.statistics import patient_interval


def test_interval_is_near_the_normal_one_for_independent_cases() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, 400)
    low, high = patient_interval(values.tolist(), [str(index) for index in range(400)]) or (0, 0)
    error = values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)


def test_cases_of_one_patient_do_not_count_as_independent() -> None:
    means = np.random.default_rng(1).normal(0.8, 0.1, 20)
    values = np.repeat(means, 10).tolist()
    patients = np.repeat(np.arange(20), 10).astype(str).tolist()
    together = patient_interval(values, patients) or (0, 0)
    apart = patient_interval(values, [str(index) for index in range(200)]) or (0, 0)
    single = patient_interval(means.tolist(), [str(index) for index in range(20)]) or (0, 0)
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])
    np.testing.assert_allclose(together, single, atol=0.02)


def test_same_seed_same_interval_and_wider_at_a_higher_level() -> None:
    values, patients = np.random.default_rng(2).random(30).tolist(), [str(index) for index in range(30)]
    narrow, wide = patient_interval(values, patients, level=0.5), patient_interval(values, patients, level=0.99)
    assert narrow == patient_interval(values, patients, level=0.5)
    assert narrow is not None
    assert wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_one_patient_has_no_interval() -> None:
    assert patient_interval([0.7, 0.8], ["a", "a"]) is None
