from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medmargin.evaluation.overlap import iou
from medmargin.evaluation.raters import (
    disagreement,
    generalised_energy_distance,
    hungarian_iou,
    normalised_cross_correlation,
    pairwise_iou,
    sample_diversity,
)

STACKS = arrays(np.uint8, (3, 3, 4), elements=st.integers(0, 1))
LABELS = arrays(np.uint8, (3, 3, 4), elements=st.integers(0, 2))


def test_energy_distance_of_the_published_cases(golden: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    content = numpy.load_file(golden / "pulaski.safetensors")
    for part, output in (("ged", "ged"), ("ged_empty", "empty_is_perfect")):
        found = generalised_energy_distance(content[f"{part}.input.samples"], content[f"{part}.input.labels"])
        assert found == pytest.approx(float(content[f"{part}.output.{output}"][0]), abs=1e-6)


@given(STACKS)
def test_equal_stacks_are_at_distance_zero(stack: np.ndarray) -> None:
    assert generalised_energy_distance(stack, stack) == pytest.approx(0, abs=1e-12)
    assert hungarian_iou(stack, stack) == pytest.approx(1)


@settings(max_examples=50)
@given(LABELS, LABELS, st.permutations(range(3)))
def test_order_of_samples_and_names_of_classes_do_not_matter(
    samples: np.ndarray, raters: np.ndarray, order: list[int]
) -> None:
    plain = generalised_energy_distance(samples, raters)
    assert generalised_energy_distance(samples[order], raters) == pytest.approx(plain)
    assert generalised_energy_distance(raters, samples) == pytest.approx(plain)
    swapped = np.array([0, 2, 1])
    assert generalised_energy_distance(swapped[samples], swapped[raters]) == pytest.approx(plain)
    assert plain >= -1e-12


@given(STACKS, STACKS)
def test_pairs_equal_the_plain_iou(first: np.ndarray, second: np.ndarray) -> None:
    expected = [[iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(pairwise_iou(first, second), expected)


def test_classes_present_in_either_mask_are_averaged() -> None:
    first, second = np.array([[1, 1, 2, 0]]), np.array([[1, 0, 3, 0]])
    assert pairwise_iou(first, second)[0, 0] == pytest.approx((0.5 + 0 + 0) / 3)


@pytest.mark.parametrize(("a", "b", "distance"), [(1, 1, 0.0), (0, 0, 0.0), (1, 0, 2.0), (0, 1, 2.0)])
def test_empty_mask_matrix(a: int, b: int, distance: float) -> None:
    samples, raters = np.full((2, 3, 3), a), np.full((2, 3, 3), b)
    assert generalised_energy_distance(samples, raters) == distance
    assert hungarian_iou(samples, raters) == 1 - distance / 2


def test_self_pairs_make_another_number() -> None:
    rng = np.random.default_rng(0)
    samples, raters = rng.integers(0, 2, (4, 6, 6)), rng.integers(0, 2, (3, 6, 6))
    with_self = generalised_energy_distance(samples, raters)
    without = generalised_energy_distance(samples, raters, self_pairs=False)
    between = 2 * (1 - pairwise_iou(samples, raters)).mean()
    within = sum(np.mean([1 - iou(a, b) for a, b in itertools.permutations(stack, 2)]) for stack in (samples, raters))
    assert without == pytest.approx(between - within)
    assert without < with_self


def test_hungarian_match_equals_brute_force_over_all_assignments() -> None:
    rng = np.random.default_rng(1)
    samples, raters = rng.integers(0, 2, (2, 5, 5)), rng.integers(0, 2, (3, 5, 5))
    matrix = pairwise_iou(np.tile(samples, (3, 1, 1)), np.tile(raters, (2, 1, 1)))
    best = max(sum(matrix[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(6)))
    assert hungarian_iou(samples, raters) == pytest.approx(best / 6)


def test_diversity_is_zero_for_equal_samples_only() -> None:
    stack = np.zeros((3, 4, 4))
    assert sample_diversity(stack) == 0
    stack[0, 0, 0] = 1
    assert sample_diversity(stack) > 0


def test_correlation_is_pearsons_with_the_sample_deviation() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((5, 6)), rng.random((5, 6))
    pearson = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert normalised_cross_correlation(a, b) == pytest.approx(pearson * 29 / 30)
    assert normalised_cross_correlation(a, np.ones((5, 6))) is None


def test_disagreement_is_largest_where_raters_are_split() -> None:
    masks = np.array([[1, 1, 0], [1, 0, 0]])
    assert disagreement(masks).tolist() == [0.0, 0.25, 0.0]
