"""Volume intervals: coverage over 200 random splits, adaptive width, degenerate and missing intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.errors import DataError
from medmargin.uncertainty.calibration import PredictedVolume, VolumeScale, conformal_volumes


def simulated(number: int, width: str, seed: int = 0) -> list[PredictedVolume]:
    """Patients whose error has a spread of its own; the model's interval knows it, is too narrow, or has no width."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(number):
        true, spread = rng.lognormal(3, 0.6), rng.uniform(0.02, 0.3)
        estimate = true * np.exp(rng.normal(0.05, spread))
        known = {"honest": 1.64 * spread, "narrow": 0.3 * spread, "none": 0.0}[width] * estimate
        low = max(0.0, estimate - known)
        found.append(PredictedVolume(low, estimate, estimate if width == "one-sided" else estimate + known, true))
    return found


def coverage(volumes: list[PredictedVolume], level: float, calibration: int, splits: int = 200) -> np.ndarray:
    rng, covered = np.random.default_rng(1), []
    for _ in range(splits):
        order = rng.permutation(len(volumes))
        scale = conformal_volumes([volumes[i] for i in order[:calibration]], [str(i) for i in range(calibration)],
                                  level=level, structure="x")  # fmt: skip
        ends = [(scale.interval(*volumes[i][:3]), volumes[i].true) for i in order[calibration:]]
        covered.append(np.mean([low <= true <= high for (low, high), true in ends]))
    return np.array(covered)


@pytest.mark.parametrize("width", ["honest", "narrow", "none"])
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_new_patients_are_covered_over_200_splits(width: str, level: float) -> None:
    covered = coverage(simulated(150, width), level, calibration=50)
    error = np.std(covered, ddof=1) / np.sqrt(covered.size)
    assert covered.mean() >= level - 3 * error
    assert covered.mean() <= level + 1 / 51 + 3 * error, "not wider than the number of patients asks for"


def test_an_honest_interval_is_left_nearly_alone_and_a_narrow_one_is_stretched() -> None:
    names = [str(index) for index in range(400)]
    honest, narrow = (conformal_volumes(simulated(400, kind), names, level=0.9, structure="x") for kind in
                      ("honest", "narrow"))  # fmt: skip
    assert abs(honest.stretch) < 0.4
    assert narrow.stretch > 1


def test_a_doubtful_patient_gets_a_wider_interval_than_a_clear_one() -> None:
    volumes = simulated(400, "narrow")
    scale = conformal_volumes(volumes, [str(index) for index in range(400)], level=0.9, structure="x")
    doubt = np.array([(volume.high - volume.low) / volume.estimate for volume in volumes])
    ends = np.array([scale.interval(*volume[:3]) for volume in volumes])
    inside = np.array([low <= volume.true <= high for (low, high), volume in zip(ends, volumes, strict=True)])
    clear, doubtful = doubt < np.quantile(doubt, 0.3), doubt > np.quantile(doubt, 0.7)
    width = (ends[:, 1] - ends[:, 0]) / [volume.estimate for volume in volumes]
    assert width[doubtful].mean() > 1.8 * width[clear].mean()
    assert inside[doubtful].mean() > 0.8, "a single width for all would fail the doubtful ones"


@given(st.floats(-20, 20), st.lists(st.floats(0, 1e6), min_size=3, max_size=3))
def test_an_interval_holds_its_estimate_and_is_not_negative(stretch: float, volumes: list[float]) -> None:
    low, estimate, high = sorted(volumes)
    found = VolumeScale(level=0.9, stretch=stretch, patients=9).interval(low, estimate, high)
    assert 0 <= found[0] <= estimate <= found[1]


def test_stretching_has_its_closed_form() -> None:
    # half width 10 + 1 % of 100 = 11
    assert VolumeScale(level=0.9, stretch=2, patients=9).interval(90, 100, 110) == pytest.approx((68, 132))
    assert PredictedVolume(90, 100, 110, 132).score == pytest.approx(2)
    assert PredictedVolume(90, 100, 110, 100).score == pytest.approx(-10 / 11)
    assert PredictedVolume(100, 100, 100, 107).score == pytest.approx(7)
    assert PredictedVolume(0, 0, 0, 5).score == np.inf
    assert PredictedVolume(0, 0, 0, 0).score == 0


def test_a_patient_counts_with_the_worst_image() -> None:
    volumes = [PredictedVolume(90, 100, 110, 100)] * 9 + [PredictedVolume(90, 100, 110, 165)]
    names = [str(index) for index in range(9)]
    assert conformal_volumes(volumes, [*names, "0"], level=0.9, structure="x").stretch == pytest.approx(5)
    assert conformal_volumes(volumes[:9], names, level=0.9, structure="x").stretch < 0


def test_refusals() -> None:
    good = [PredictedVolume(90, 100, 110, 100)] * 30
    with pytest.raises(DataError, match=r"volume interval of liver: 8 patients.*at least 9 are needed"):
        conformal_volumes(good, [str(i % 8) for i in range(30)], level=0.9, structure="liver")
    with pytest.raises(DataError, match="0 patients"):
        conformal_volumes([], [], level=0.9, structure="liver")
    missed = [*good[:17], *[PredictedVolume(0, 0, 0, 5)] * 3]
    with pytest.raises(DataError, match="missed altogether"):
        conformal_volumes(missed, [str(i) for i in range(20)], level=0.9, structure="liver")
    with pytest.raises(DataError, match=r"patient 0.*low <= estimate"):
        conformal_volumes([PredictedVolume(120, 100, 110, 100)], ["0"], level=0.9, structure="liver")
