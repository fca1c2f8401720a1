from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from medmargin.evaluation.calibration import (
    FINE_BINS,
    adaptive_error,
    average_error,
    classwise_error,
    coarsened,
    equal_mass_error,
    equal_width,
    expected_error,
    fine_reliability,
    jungo_binning,
    maximum_error,
    monai_binning,
    open_at_zero,
    percentile_binning,
    predicted_class_error,
    reliability,
    root_mean_square_error,
    top_label,
    torchmetrics_binning,
)

BINNINGS = [equal_width, torchmetrics_binning, jungo_binning, monai_binning, open_at_zero]


def random_items(seed: int, classes: int = 3, items: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = softmax(2 * rng.normal(size=(items, classes)), axis=1).astype(np.float32)
    return probabilities, rng.integers(0, classes, items)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bins", [10, 15])
def test_top_label_errors_equal_torchmetrics(seed: int, bins: int) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    probabilities, labels = random_items(seed)
    probabilities[:20] = np.eye(3, dtype=np.float32)[labels[:20]]  # saturated: on the last edge
    confidence, right = top_label(probabilities, labels)
    counted = reliability(confidence, right, torchmetrics_binning(bins))
    for norm, found in (
        ("l1", expected_error(counted)),
        ("max", maximum_error(counted)),
        ("l2", root_mean_square_error(counted)),
    ):
        expected = functional.multiclass_calibration_error(
            torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=3, n_bins=bins, norm=norm
        )
        assert found == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_binary_errors_equal_monai(seed: int) -> None:
    torch = pytest.importorskip("torch")
    calibration = pytest.importorskip("monai.metrics.calibration")
    rng = np.random.default_rng(seed)
    probability = rng.random((1, 1, 20, 20)).astype(np.float32)
    probability[..., :3] = 0
    truth = (rng.random(probability.shape) < probability**2).astype(np.float32)
    counted = reliability(probability, truth, monai_binning(20))
    for kind, error in (("expected", expected_error), ("average", average_error), ("maximum", maximum_error)):
        metric = calibration.CalibrationErrorMetric(num_bins=20, calibration_reduction=kind)
        metric(torch.from_numpy(probability), torch.from_numpy(truth))
        assert error(counted) == pytest.approx(float(metric.aggregate()), abs=1e-6)


@pytest.mark.parametrize("binning", BINNINGS)
def test_perfect_prediction_has_no_error(binning) -> None:  # type: ignore[no-untyped-def]
    labels = np.random.default_rng(0).integers(0, 4, 100)
    probabilities = np.eye(4)[labels]
    counted = reliability(*top_label(probabilities, labels), binning(10))
    assert expected_error(counted) == maximum_error(counted) == average_error(counted) == 0
    assert root_mean_square_error(counted) == 0
    assert classwise_error(probabilities, labels, binning(10)) == 0
    assert adaptive_error(probabilities, labels, 10) == 0


@pytest.mark.parametrize(
    ("binning", "bins_of_0_half_1"),
    [
        (equal_width, [0, 5, 9]),
        (torchmetrics_binning, [0, 5, 10]),
        (monai_binning, [0, 4, 9]),
        (open_at_zero, [-1, 4, 9]),
    ],
)
def test_values_on_the_edges_go_where_the_convention_says(binning, bins_of_0_half_1: list[int]) -> None:  # type: ignore[no-untyped-def]
    assert binning(10).index(np.array([0.0, 0.5, 1.0])).tolist() == bins_of_0_half_1


@given(st.integers(0, 50), st.randoms(use_true_random=False))
def test_order_of_items_does_not_matter(seed: int, random) -> None:  # type: ignore[no-untyped-def]
    probabilities, labels = random_items(seed, items=60)
    order = np.array(random.sample(range(60), 60))
    for error in (
        lambda p, y: expected_error(reliability(*top_label(p, y), equal_width(15))),
        lambda p, y: classwise_error(p, y, open_at_zero(10)),
        lambda p, y: adaptive_error(p, y, 6),
    ):
        assert error(probabilities, labels) == pytest.approx(error(probabilities[order], labels[order]))


@given(st.integers(0, 50), st.permutations(range(3)))
def test_renaming_classes_does_not_matter(seed: int, names: list[int]) -> None:
    probabilities, labels = random_items(seed, items=60)
    renamed = np.empty_like(probabilities)
    renamed[:, names] = probabilities
    new_labels = np.array(names)[labels]
    assert classwise_error(renamed, new_labels, equal_width(10)) == pytest.approx(
        classwise_error(probabilities, labels, equal_width(10))
    )


def test_sums_of_parts_add_up_to_the_whole() -> None:
    probabilities, labels = random_items(1)
    confidence, right = top_label(probabilities, labels)
    whole = reliability(confidence, right, equal_width(15))
    parts = reliability(confidence[:150], right[:150], equal_width(15)) + reliability(
        confidence[150:], right[150:], equal_width(15)
    )
    assert expected_error(parts) == pytest.approx(expected_error(whole))
    assert parts.items == whole.items == 400


def test_known_errors_of_two_bins() -> None:
    confidence = np.array([0.2, 0.2, 0.2, 0.2, 0.9, 0.9])
    outcome = np.array([1, 0, 0, 0, 1, 1])
    counted = reliability(confidence, outcome, equal_width(10))
    assert expected_error(counted) == pytest.approx((4 * 0.05 + 2 * 0.1) / 6)
    assert average_error(counted) == pytest.approx((0.05 + 0.1) / 2)
    assert expected_error(counted, "log_proportion") == pytest.approx((0.05 * np.log(4) + 0.1 * np.log(2)) / np.log(8))
    assert maximum_error(counted) == pytest.approx(0.1)
    assert maximum_error(counted, minimum_count=3) == pytest.approx(0.05)
    assert root_mean_square_error(counted) == pytest.approx(np.sqrt((4 * 0.05**2 + 2 * 0.1**2) / 6))


def test_sure_background_left_out_of_the_count_raises_the_error() -> None:
    probability = np.concatenate([np.zeros(90), np.full(10, 0.6)])
    truth = np.concatenate([np.zeros(90), np.ones(10)])
    with_zero = expected_error(reliability(probability, truth, equal_width(10)))
    without = expected_error(reliability(probability, truth, open_at_zero(10)))
    assert with_zero == pytest.approx(0.04)
    assert without == pytest.approx(0.4)


def test_adaptive_error_of_one_range_is_the_gap_of_the_class_frequencies() -> None:
    probabilities, labels = random_items(2)
    frequency = np.bincount(labels, minlength=3) / labels.size
    gaps = np.abs(frequency - probabilities.astype(float).mean(axis=0))
    assert adaptive_error(probabilities, labels, 1) == pytest.approx(gaps.mean())


def test_adaptive_error_of_distinct_probabilities_is_that_of_equal_parts() -> None:
    probabilities, labels = random_items(4)
    total = 0.0
    for k in range(3):
        order = np.argsort(probabilities[:, k])
        gaps = (labels == k)[order] - probabilities[order, k].astype(float)
        total += sum(abs(part.mean()) for part in np.split(gaps, 8)) / 8
    assert adaptive_error(probabilities, labels, 8) == pytest.approx(total / 3)


@given(st.integers(0, 1000), st.sampled_from([0.02, 0.3, 4.0]))
def test_fine_bins_give_the_coarse_and_the_adaptive_error(seed: int, crowding: float) -> None:
    """Beta(a, a) crowds at 0 and 1 where a is small, as voxels do."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(crowding, crowding, 3000).astype(np.float32)
    probability[:50], probability[50:100] = 0, 1
    outcome = rng.random(3000) < probability**1.5
    fine, plain = fine_reliability(probability, outcome), reliability(probability, outcome, equal_width(15))
    assert fine.counts.sum() == 3000
    assert fine.outcomes.sum() == np.count_nonzero(outcome)
    assert expected_error(coarsened(fine, 15)) == pytest.approx(expected_error(plain), abs=1e-4)
    both = np.stack([1 - probability, probability], axis=1)
    exact = adaptive_error(both[:, 1:], np.where(outcome, 0, 1), 15)
    assert equal_mass_error(fine, 15) == pytest.approx(exact, abs=0.02 if crowding < 1 else 4 / FINE_BINS + 0.01)


def test_percentile_bins_hold_equally_many_items() -> None:
    confidence = np.random.default_rng(0).random(1000)
    counted = reliability(confidence, np.ones(1000), percentile_binning(confidence, 10))
    assert set(counted.counts.tolist()) == {100.0}


def test_predicted_class_split_is_at_least_the_plain_error() -> None:
    probabilities, labels = random_items(3)
    confidence, right = top_label(probabilities, labels)
    plain = expected_error(reliability(confidence, right, open_at_zero(10)))
    split = predicted_class_error(confidence, probabilities.argmax(axis=1), labels, open_at_zero(10))
    assert plain is not None
    assert split >= plain


def test_no_items_have_no_error() -> None:
    counted = reliability(np.zeros(0), np.zeros(0), equal_width(10))
    assert expected_error(counted) is average_error(counted) is maximum_error(counted) is None
    assert root_mean_square_error(counted) is None
