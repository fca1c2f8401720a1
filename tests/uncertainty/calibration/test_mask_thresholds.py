"""Threshold masks: counts and losses by definition, bounded risk over 200 splits, refusals with the number needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.errors import DataError
from medmargin.uncertainty.calibration import MaskCounts, ThresholdMargins, control_thresholds, count_mask
from medmargin.uncertainty.calibration.mask_thresholds import THRESHOLDS


def image(rng: np.random.Generator, voxels: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth = rng.random(voxels) < 0.4
    logits = rng.normal(0, 1.2, voxels) + rng.normal(0, 0.7) + np.where(truth, 1.5, -1.5)
    probabilities = (1 / (1 + np.exp(-2 * logits))).astype(np.float32)
    return probabilities, truth, probabilities > 0.5


def patients(number: int, seed: int = 0) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], list[MaskCounts]]:
    rng = np.random.default_rng(seed)
    images = [image(rng) for _ in range(number)]
    return images, [count_mask(*each) for each in images]


def outer_loss(regions: np.ndarray, truth: np.ndarray) -> float:
    return float((truth & (regions == 0)).sum() / truth.sum())


def inner_loss(regions: np.ndarray, truth: np.ndarray) -> float:
    return min(1.0, float((~truth & (regions == 2)).sum() / truth.sum()))


def editing_loss(regions: np.ndarray, truth: np.ndarray) -> float:
    best = (regions == 2) | (truth & (regions == 1))
    return 1 - 2 * float((best & truth).sum()) / float(best.sum() + truth.sum())


@pytest.mark.parametrize(("loss", "measured"), [("volume", outer_loss), ("volume", inner_loss), ("dice", editing_loss)])
@pytest.mark.parametrize("risk", [0.05, 0.15])
def test_risk_on_new_patients_is_kept_over_200_splits(
    loss: str, measured: Callable[[np.ndarray, np.ndarray], float], risk: float
) -> None:
    images, counts = patients(120)
    rng, risks = np.random.default_rng(1), []
    for _ in range(200):
        order = rng.permutation(120)
        fitted = [counts[index] for index in order[:60]]
        margins = control_thresholds(fitted, [str(index) for index in range(60)], risk=risk, structure="x", loss=loss)  # type: ignore[arg-type]
        test = [images[index] for index in order[60:]]
        risks.append(np.mean([measured(margins.regions(p, mask), truth) for p, truth, mask in test]))
    assert np.mean(risks) <= risk + 2 * np.std(risks, ddof=1) / np.sqrt(200)
    assert np.mean(risks) > risk / 3, "the bound is not wasted either"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_counts_and_losses_follow_their_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, mask = rng.random(80) < rng.random(), rng.random(80) < rng.random()
    probabilities = rng.choice(np.append(THRESHOLDS[:-1], rng.random(50)), 80)
    counts = count_mask(probabilities, truth, mask)
    for index in rng.integers(0, len(THRESHOLDS), 20):
        reached = probabilities >= THRESHOLDS[index]
        assert counts.held[index] == ((reached | mask) & truth).sum()
        assert counts.wrong[index] == (reached & mask & ~truth).sum()
    from_the_safe_end = [counts.false_positive_share()[::-1], counts.unreachable_dice()]
    if truth.any():
        from_the_safe_end.append(counts.false_negative_rate())
    for losses in from_the_safe_end:
        assert losses[0] == 0
        assert (np.diff(losses) >= -1e-12).all()
        assert 0 <= losses.min() <= losses.max() <= 1


def test_a_float32_map_reaches_a_threshold_as_it_was_counted() -> None:
    probabilities, truth = THRESHOLDS[1:-1].astype(np.float32), np.ones(261, bool)
    held = count_mask(probabilities, truth, ~truth).held
    for index, threshold in enumerate(THRESHOLDS[1:-1], start=1):
        margins = ThresholdMargins(loss="volume", risk=0.1, outer=float(threshold), inner=2.0, patients=9)
        assert (margins.regions(probabilities, ~truth) > 0).sum() == held[index]


def test_counts_of_slabs_add_up() -> None:
    maps = image(np.random.default_rng(3))
    whole = count_mask(*(values.reshape(3, 10, 10) for values in maps))
    parts = count_mask(*(values[:90] for values in maps)) + count_mask(*(values[90:] for values in maps))
    assert whole.volume == parts.volume
    assert np.array_equal(whole.held, parts.held)
    assert np.array_equal(whole.wrong, parts.wrong)


def test_zones_mirror_each_other_at_one_half() -> None:
    np.testing.assert_allclose(THRESHOLDS[1:-1] + THRESHOLDS[-2:0:-1], 1, atol=1e-7)
    assert THRESHOLDS[len(THRESHOLDS) // 2] == 0.5
    margins = control_thresholds(patients(40)[1], [str(i) for i in range(40)], risk=0.1, structure="x", loss="dice")
    assert margins.outer + margins.inner == pytest.approx(1)
    assert margins.outer < 0.5


def test_a_mask_that_is_right_enough_is_not_doubted() -> None:
    truth = np.arange(50) < 20
    counts = [count_mask(np.where(truth, 0.6, 0.4), truth, truth)] * 30
    margins = control_thresholds(counts, [str(i) for i in range(30)], risk=0.1, structure="x")
    assert np.array_equal(margins.regions(np.where(truth, 0.6, 0.4), truth), np.where(truth, 2, 0))


def test_regions_nest_around_the_mask_that_is_shown() -> None:
    margins = ThresholdMargins(loss="volume", risk=0.1, outer=0.2, inner=0.8, patients=9)
    probabilities = np.array([0.1, 0.1, 0.3, 0.3, 0.9, 0.9])
    mask = np.array([False, True, False, True, False, True])
    assert margins.regions(probabilities, mask).tolist() == [0, 1, 1, 1, 1, 2]
    assert margins.regions(probabilities, mask).dtype == np.uint8


def test_too_few_patients_are_refused_with_the_number_needed() -> None:
    counts = patients(30)[1]
    few = [str(index % 8) for index in range(30)]  # 30 images of 8 patients
    for loss in ("volume", "dice"):
        with pytest.raises(DataError, match=r"mask of liver: 8 patients.*at least 9 are needed"):
            control_thresholds(counts, few, risk=0.1, structure="liver", loss=loss)  # type: ignore[arg-type]
        with pytest.raises(DataError, match="0 patients"):
            control_thresholds([], [], risk=0.1, structure="liver", loss=loss)  # type: ignore[arg-type]
    assert control_thresholds(counts[:9], [str(i) for i in range(9)], risk=0.1, structure="liver").patients == 9


def test_patients_without_the_structure_do_not_carry_its_outer_guarantee() -> None:
    nothing = np.zeros(50, bool)
    absent = count_mask(np.full(50, 0.01), nothing, nothing)
    counts = [*patients(8)[1], *[absent] * 20]
    with pytest.raises(DataError, match="8 patients"):
        control_thresholds(counts, [str(i) for i in range(28)], risk=0.1, structure="liver")
    invented = count_mask(np.full(50, 0.99), nothing, ~nothing)
    assert invented.false_positive_share()[len(THRESHOLDS) // 2] == 1
