"""Paired tests and rankings against closed forms, enumeration and independent implementations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from medmargin.evaluation.paired_statistics import FEWEST_PAIRS, holm, paired_difference, signed_rank
from medmargin.evaluation.rank_stability import kendall_tau, rank_stability

VALUES = st.integers(2, 12).flatmap(
    lambda n: st.tuples(*[arrays(np.float64, n, elements=st.floats(-1, 1).map(lambda v: round(v, 3)))] * 2)
)


def enumerated_p(differences: np.ndarray) -> float:
    """Two-sided p over all 2^n signs of the ranks of what differs."""
    nonzero = differences[differences != 0]
    ranks = stats.rankdata(np.abs(nonzero))
    sums = np.array([ranks[np.array(signs)].sum() for signs in itertools.product([False, True], repeat=nonzero.size)])
    found = ranks[nonzero > 0].sum()
    return min(1.0, 2 * min((sums <= found + 1e-9).mean(), (sums >= found - 1e-9).mean()))


@pytest.mark.parametrize(
    "differences",
    [
        [0.1, -0.2, 0.3, 0.4, 0.5, 0.6, -0.05],
        [0.1, 0.1, 0.1, -0.1, 0.2, 0.2, 0.3, 0.3],
        [0.0, 0.0, 1.0, -2.0, 2.0, 3.0, 3.0, 4.0, -5.0],
        [1.0] * 6,
    ],
)
def test_p_is_exact_with_ties_and_zeros(differences: list[float]) -> None:
    found = signed_rank(np.array(differences))
    assert found["test"] == "exact"
    assert found["n_zero"] == differences.count(0.0)
    assert found["p"] == pytest.approx(enumerated_p(np.array(differences)))
    assert found["p"] >= found["smallest_p"]


def test_the_clearest_result_reaches_the_smallest_p() -> None:
    for n in range(FEWEST_PAIRS, 12):
        found = signed_rank(np.arange(1.0, n + 1))
        assert found["p"] == pytest.approx(found["smallest_p"]) == 2.0 ** (1 - n)


@pytest.mark.parametrize("n", range(1, FEWEST_PAIRS))
def test_no_p_of_fewer_than_six_patients(n: int) -> None:
    found = paired_difference(np.arange(1.0, n + 1), np.zeros(n))
    assert found["p"] is None
    assert f"{2.0 ** (1 - n):.4g}" in found["p_reason"]
    assert found["rank_biserial"] == 1.0
    assert (found["difference"]["ci95"] is None) == (n == 1)


def test_many_patients_of_whom_few_differ_have_no_p() -> None:
    differences = np.zeros(40)
    differences[:5] = 1.0
    assert signed_rank(differences)["p"] is None
    assert "5 patients differ" in signed_rank(differences)["p_reason"]


def test_rounding_is_no_difference() -> None:
    first = np.full(10, 0.1 + 0.2)
    found = paired_difference(first, np.full(10, 0.3))
    assert (found["n_zero"], found["p"], found["rank_biserial"], found["cohens_dz"]) == (10, None, None, None)
    assert found["difference"]["mean"] == 0.0


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_exchanging_the_results_turns_every_sign(values: tuple[np.ndarray, np.ndarray]) -> None:
    forward, backward = paired_difference(*values), paired_difference(*values[::-1])
    for name in ("p", "n_zero", "smallest_p", "test"):
        assert forward[name] == pytest.approx(backward[name]) if name == "p" else forward[name] == backward[name]
    for name in ("rank_biserial", "cohens_dz"):
        assert (forward[name] is None) == (backward[name] is None)
        if forward[name] is not None:
            assert forward[name] == pytest.approx(-backward[name])
    low, high = forward["difference"]["ci95"]
    assert backward["difference"]["ci95"] == pytest.approx([-high, -low], abs=1e-9)
    assert low - 1e-12 <= forward["difference"]["mean"] <= high + 1e-12 or values[0].size < 6


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_effect_sizes_follow_their_definitions(values: tuple[np.ndarray, np.ndarray]) -> None:
    differences = np.round(values[0] - values[1], 12)
    nonzero = differences[differences != 0]
    found = paired_difference(*values)
    if nonzero.size:
        ranks = stats.rankdata(np.abs(nonzero))
        share = ranks[nonzero > 0].sum() / ranks.sum()
        assert found["rank_biserial"] == pytest.approx(2 * share - 1)
    if found["cohens_dz"] is not None:  # t = d_z sqrt(n)
        t = stats.ttest_rel(*values).statistic
        assert found["cohens_dz"] * np.sqrt(differences.size) == pytest.approx(t, rel=1e-6, abs=1e-6)


def test_false_findings_stay_at_their_level() -> None:
    rng = np.random.default_rng(0)
    p = np.array([signed_rank(rng.normal(size=12))["p"] for _ in range(1500)])
    assert (p <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1500)
    assert (p <= 0.05).mean() > 0.03


def test_holm_equals_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    adjusted = np.array(holm(p))
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(1.0, len(p) * np.array(p)) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_kendall_tau_equals_scipy_without_ties() -> None:
    rng = np.random.default_rng(0)
    scores, reference = rng.random((20, 6)), rng.random(6)
    np.testing.assert_allclose(kendall_tau(scores, reference), [stats.kendalltau(s, reference)[0] for s in scores])


def test_ranking_is_certain_where_one_always_wins_and_shared_where_two_are_equal() -> None:
    worst = np.random.default_rng(0).random(15)
    values = np.stack([worst, worst + 1, worst + 1], axis=1)
    found = rank_stability(values, ["a", "b", "c"], higher_is_better=True)
    assert found["order"] == ["b", "c", "a"]
    assert found["first"] == {"a": 0.0, "b": 0.5, "c": 0.5}
    lower = rank_stability(values[:, :2], ["a", "b"], higher_is_better=False)
    assert (lower["order"], lower["first"]["a"], lower["kendall_tau"]["p5"]) == (["a", "b"], 1.0, 1.0)


def test_ranking_of_chance_is_unstable_and_needs_patients() -> None:
    values = np.random.default_rng(1).normal(size=(20, 2))
    values -= values.mean(axis=0)
    found = rank_stability(values + np.array([0, 1e-3]), ["a", "b"], higher_is_better=True)
    assert 0.3 < found["first"]["a"] < 0.7
    assert rank_stability(values[:1], ["a", "b"], higher_is_better=True)["first"] is None
    assert rank_stability(np.ones((4, 2)), ["a", "b"], higher_is_better=True)["kendall_tau"] is None
