"""Margins in mm: scores by brute force, coverage over 200 splits, nested regions, missed structures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.errors import ConfigError, DataError
from medmargin.uncertainty.calibration import DistanceMargins, conformal_margins, margin_scores


def by_definition(start: np.ndarray, target: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Largest distance of a voxel of `start` to the nearest of `target`, by comparing all pairs."""
    if not start.any():
        return 0.0
    if not target.any():
        return np.inf
    size = np.asarray(spacing)
    apart = (np.argwhere(start)[:, None] - np.argwhere(target)[None]) * size
    return float(np.sqrt((apart**2).sum(axis=-1)).min(axis=1).max())


def disc(radius: float, centre: tuple[float, float] = (16, 16)) -> np.ndarray:
    rows, columns = np.mgrid[:32, :32]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1.0, 1.0, 1.0), (3.0, 0.7, 1.2)]))
def test_scores_are_directed_distances(seed: int, spacing: tuple[float, ...]) -> None:
    rng = np.random.default_rng(seed)
    mask, truth = (rng.random((4, 6, 5)) < rng.random() for _ in range(2))
    outer, inner = margin_scores(mask, truth, spacing)
    assert outer == pytest.approx(by_definition(truth, mask, spacing), rel=1e-5)
    assert inner == pytest.approx(by_definition(mask & ~truth, ~mask, spacing), rel=1e-5)


def test_scores_are_the_least_distances_that_hold() -> None:
    mask, truth, spacing = disc(7, (16, 14)), disc(8), (2.0, 1.0)
    outer, inner = margin_scores(mask, truth, spacing)
    regions = DistanceMargins(level=0.9, outer=outer, inner=inner, tolerated=0, patients=9).regions(mask, spacing)
    assert (regions[truth] > 0).all()
    assert (regions[~truth] < 2).all()
    tighter = DistanceMargins(level=0.9, outer=outer * 0.999, inner=inner * 0.999, tolerated=0, patients=9)
    assert (tighter.regions(mask, spacing)[truth] == 0).any()
    assert (tighter.regions(mask, spacing)[~truth] == 2).any() or inner == 0


def test_a_tolerated_share_forgives_an_outlier() -> None:
    mask, truth = disc(8), disc(8)
    truth[0, 0] = True
    assert margin_scores(mask, truth, (1, 1))[0] > 14
    assert margin_scores(mask, truth, (1, 1), tolerated=0.01) == (0, 0)


def test_missed_absent_and_filling_structures() -> None:
    empty, full = np.zeros((5, 5), bool), np.ones((5, 5), bool)
    assert margin_scores(empty, empty, (1, 1)) == (0, 0)
    assert margin_scores(empty, ~empty, (1, 1)) == (np.inf, 0)
    assert margin_scores(full, empty, (1, 1)) == (0, np.inf)
    assert not DistanceMargins(level=0.9, outer=3, inner=1, tolerated=0, patients=9).regions(empty, (1, 1)).any()
    assert (DistanceMargins(level=0.9, outer=3, inner=1, tolerated=0, patients=9).regions(full, (1, 1)) == 2).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 4), st.floats(0, 4))
def test_regions_are_the_dilated_and_eroded_mask(seed: int, outer: float, inner: float) -> None:
    mask, spacing = np.random.default_rng(seed).random((6, 7)) < 0.3, (1.0, 1.5)
    regions = DistanceMargins(level=0.9, outer=outer, inner=inner, tolerated=0, patients=9).regions(mask, spacing)
    for position in np.ndindex(mask.shape):
        here = np.zeros_like(mask)
        here[position] = True
        reached = mask.any() and by_definition(here, mask, spacing) <= outer
        deep = bool(mask[position]) and by_definition(here, ~mask, spacing) > inner
        assert regions[position] == (2 if deep else 1 if reached else 0)


def test_each_side_covers_new_patients_over_200_splits() -> None:
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(120):
        truth = disc(rng.uniform(6, 9))
        mask = disc(rng.uniform(6, 9), (16 + rng.normal(0, 1), 16 + rng.normal(0, 1)))
        scores.append(margin_scores(mask, truth, (1.3, 0.8)))
    values, covered = np.array(scores), []
    for _ in range(200):
        order = rng.permutation(120)
        margins = conformal_margins([scores[i] for i in order[:40]], [str(i) for i in range(40)], level=0.9,
                                    structure="x")  # fmt: skip
        test = values[order[40:]]
        covered.append([(test[:, 0] <= margins.outer).mean(), (test[:, 1] <= margins.inner).mean()])
    error = np.std(covered, axis=0, ddof=1) / np.sqrt(200)
    assert (np.mean(covered, axis=0) >= 0.9 - 3 * error).all()


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"outer margin of liver: 8 patients.*at least 9 are needed"):
        conformal_margins([(1.0, 1.0)] * 20, [str(i % 8) for i in range(20)], level=0.9, structure="liver")
    with pytest.raises(DataError, match="0 patients"):
        conformal_margins([], [], level=0.9, structure="liver")
    missed = [(np.inf, 0.0)] * 3 + [(1.0, 1.0)] * 17
    with pytest.raises(DataError, match="missed altogether"):
        conformal_margins(missed, [str(i) for i in range(20)], level=0.9, structure="liver")
    assert conformal_margins(missed, [str(i) for i in range(20)], level=0.8, structure="liver").outer == 1
    with pytest.raises(ConfigError, match="spacing"):
        margin_scores(disc(3), disc(4), (1, 1, 1))
