"""Calibration: does a confidence of 0.8 mean right in 8 of 10 voxels?

Guo et al. 2017, arXiv:1706.04599 (ECE); Nixon et al. 2019, arXiv:1904.01685 (static and adaptive error); Jungo et al.
2020, doi:10.3389/fnins.2020.00282 (binary foreground, bin weights); Ding et al. 2021, arXiv:2008.05105 (predicted-class
split). One name covers many numbers, so the edges of the bins (`Binning`), the weights of the bins and the items are
chosen explicitly. "ACE" alone means three things: `adaptive_error` (Nixon), `average_error` (mean over the filled bins;
ValUES, MONAI) and `predicted_class_error` with `percentile_binning` (Ding).

Items are voxels or images: `confidence` [N] in [0, 1], `outcome` [N] in {0, 1}, `probabilities` [N, K], `labels` [N] in
0..K-1. Binned errors grow for small N: never compare numbers from different amounts of items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
Weights = Literal["proportion", "log_proportion", "mean_proportion"]
FINE_BINS = 3840  # a multiple of 15; 0.03 % wide


@dataclass(frozen=True)
class Binning:
    """Edges of the bins, and which of its two edges a bin owns; values outside all bins are left out.

    Attributes:
        edges: [B + 1] ascending.
        closed: "lower" for [low, high), "upper" for (low, high].
    """

    edges: NDArray[np.float64]
    closed: Literal["lower", "upper"] = "lower"

    def index(self, values: Values) -> NDArray[np.int64]:
        """Number of the bin of each value, -1 where it lies in none."""
        side: Literal["left", "right"] = "right" if self.closed == "lower" else "left"
        found = np.searchsorted(self.edges, values, side=side) - 1
        return np.where(found < len(self.edges) - 1, found, -1)


def equal_width(bins: int) -> Binning:
    """The toolkit's bins: [low, high), and 1 belongs to the last bin."""
    return Binning(np.append(np.linspace(0.0, 1.0, bins + 1)[:-1], np.nextafter(1.0, 2.0)))


def torchmetrics_binning(bins: int) -> Binning:
    """[low, high), and exactly 1 is a bin of its own."""
    return Binning(np.append(np.linspace(0.0, 1.0, bins + 1), np.inf))


def jungo_binning(bins: int) -> Binning:
    """[low, high) with the last edge at 1 + 1e-8, as Jungo et al."""
    return Binning(np.linspace(0.0, 1.0 + 1e-8, bins + 1))


def monai_binning(bins: int) -> Binning:
    """(low, high], the first bin with 0, the last edge at 1 + the float32 epsilon, as MONAI's default."""
    edges = np.linspace(0.0, 1.0 + np.finfo(np.float32).eps, bins + 1)
    return Binning(np.append(-np.inf, edges[1:]), "upper")


def open_at_zero(bins: int) -> Binning:
    """(low, high] with exactly 0 in no bin, as MetricsReloaded and local temperature scaling."""
    return Binning(np.linspace(0.0, 1.0, bins + 1), "upper")


def percentile_binning(confidence: Values, bins: int) -> Binning:
    """(low, high] between the percentiles of `confidence`, from 0 to 1, as local temperature scaling."""
    inner = np.percentile(confidence, np.arange(1, bins) * 100.0 / bins)
    return Binning(np.concatenate([[0.0], inner, [1.0]]), "upper")


@dataclass(frozen=True)
class Reliability:
    """Sums over the items of each bin; those of several cases add up, so nothing but [B] numbers needs to be kept.

    Attributes:
        counts: [B] items per bin.
        confidences, outcomes: [B] sums of the confidence and of the outcome.
        items: number of items offered, with those that fell into no bin.
    """

    counts: NDArray[np.float64]
    confidences: NDArray[np.float64]
    outcomes: NDArray[np.float64]
    items: int

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            self.counts + other.counts,
            self.confidences + other.confidences,
            self.outcomes + other.outcomes,
            self.items + other.items,
        )

    @property
    def filled(self) -> NDArray[np.bool_]:
        """[B] bins with at least one item."""
        return self.counts > 0

    @property
    def gaps(self) -> NDArray[np.float64]:
        """Observed frequency minus mean confidence of each filled bin; negative where the confidence is too high."""
        counts = self.counts[self.filled]
        return (self.outcomes[self.filled] - self.confidences[self.filled]) / counts


def reliability(confidence: Values, outcome: Values, binning: Binning) -> Reliability:
    """Sum confidences and outcomes per bin."""
    values = np.asarray(confidence, np.float64).ravel()
    index = binning.index(values)
    inside = slice(None) if index.min(initial=0) >= 0 else index >= 0
    bins = len(binning.edges) - 1
    index = index[inside]
    counts, confidences, outcomes = (
        np.bincount(index, weights=weights, minlength=bins).astype(np.float64)
        for weights in (None, values[inside], np.asarray(outcome).ravel()[inside])
    )
    return Reliability(counts, confidences, outcomes, values.size)


def expected_error(bins: Reliability, weights: Weights = "proportion", *, of_all_items: bool = False) -> float | None:
    """Compute ECE: the weighted mean over the filled bins of abs(observed frequency - mean confidence).

    Args:
        bins: `top_label` pairs for the usual ECE, (foreground probability, truth) for the binary one.
        weights: share of the items, its logarithm, or the same for every filled bin ("mean_proportion").
        of_all_items: divide by all items offered, not only those in a bin.

    Returns:
        A number in [0, 1], or None where no item fell into a bin.
    """
    counts = bins.counts[bins.filled]
    if not counts.size:
        return None
    if weights == "mean_proportion":
        return float(np.abs(bins.gaps).mean())
    if weights == "log_proportion":
        counts = np.log(counts)
    whole = bins.items if of_all_items else counts.sum()
    return float((np.abs(bins.gaps) * counts).sum() / whole) if whole else None


def average_error(bins: Reliability) -> float | None:
    """Compute the unweighted mean over the filled bins, "ACE" of ValUES and MONAI."""
    return expected_error(bins, "mean_proportion")


def maximum_error(bins: Reliability, *, minimum_count: int = 1) -> float | None:
    """Compute MCE: the largest gap among bins with at least `minimum_count` items; with 1 it is mostly noise."""
    gaps = np.abs(bins.gaps[bins.counts[bins.filled] >= minimum_count])
    return float(gaps.max()) if gaps.size else None


def root_mean_square_error(bins: Reliability) -> float | None:
    """Compute RMSCE: the root of the squared gaps weighted by the share of the items."""
    counts = bins.counts[bins.filled]
    return float(np.sqrt((bins.gaps**2 * counts).sum() / counts.sum())) if counts.size else None


def top_label(probabilities: Values, labels: Values) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Take the confidence of the most probable class and whether it is right: two arrays [N]."""
    chosen = probabilities.argmax(axis=1)
    confidence = np.take_along_axis(probabilities, chosen[:, None], axis=1)[:, 0]
    return confidence.astype(np.float64), chosen == labels


def classwise_error(probabilities: Values, labels: Values, binning: Binning) -> float:
    """Compute the class-wise (static) ECE: the mean over all K classes of the ECE of that class's probability.

    Items that fall into no bin count as free of error (Kumar et al. 2019, as MetricsReloaded).
    """
    classes = probabilities.shape[1]
    return mean_over_classes([reliability(probabilities[:, k], labels == k, binning) for k in range(classes)])


def mean_over_classes(per_class: Sequence[Reliability]) -> float:
    """Average the ECE of each class's own probability, items in no bin counting as free of error."""
    return sum(expected_error(bins, of_all_items=True) or 0.0 for bins in per_class) / len(per_class)


def adaptive_error(probabilities: Values, labels: Values, ranges: int) -> float:
    """Compute the adaptive error of Nixon et al. eq. 3: `ranges` bins of equal mass for every class, all weighing 1.

    Equation: 1 / (K R) sum_k sum_r abs(observed_rk - confidence_rk).
    """
    classes = probabilities.shape[1]
    return sum(equal_mass_error(_by_value(probabilities[:, k], labels == k), ranges) for k in range(classes)) / classes


def equal_mass_error(bins: Reliability, ranges: int) -> float:
    """Compute the adaptive error of one class from bins in the order of its probability.

    A bin that lies over the edge of a range gives each side its share of items, outcome and confidence, so that items
    with equal probabilities count alike in any order. With bins of width w it is at most w above or below that of the
    items themselves as long as the gap has one sign within a bin.
    """
    if not bins.counts.sum():
        return 0.0
    items = np.append(0.0, np.cumsum(bins.counts))
    surplus = np.append(0.0, np.cumsum(bins.outcomes - bins.confidences))
    edges = np.linspace(0.0, items[-1], ranges + 1)
    return float(np.abs(np.diff(np.interp(edges, items, surplus))).sum() / items[-1])


def fine_reliability(probability: Values, outcome: NDArray[np.bool_]) -> Reliability:
    """Sum probabilities and outcomes in `FINE_BINS` bins of equal width, from which coarser and adaptive bins follow.

    Nearly all voxels lie in the two outermost bins, which are counted without looking at each.
    """
    bins, values = np.zeros((3, FINE_BINS)), np.asarray(probability).ravel()
    high = values >= 1.0 - 1.0 / FINE_BINS
    between = np.flatnonzero((values >= 1.0 / FINE_BINS) & ~high)
    chosen = values[between].astype(np.float64)
    index = (chosen * FINE_BINS).astype(np.intp)
    for row, weights in zip(bins, (None, chosen, outcome[between]), strict=True):
        row += np.bincount(index, weights, minlength=FINE_BINS)
    bins[:, -1] += np.count_nonzero(high), values[high].sum(dtype=np.float64), np.count_nonzero(high & outcome)
    bins[:, 0] += np.array([values.size, values.sum(dtype=np.float64), np.count_nonzero(outcome)]) - bins.sum(axis=1)
    return Reliability(bins[0], bins[1], bins[2], values.size)


def coarsened(bins: Reliability, number: int) -> Reliability:
    """Join neighbouring bins to `number` bins, which divides theirs."""
    counts, confidences, outcomes = (
        values.reshape(number, -1).sum(axis=1) for values in (bins.counts, bins.confidences, bins.outcomes)
    )
    return Reliability(counts, confidences, outcomes, bins.items)


def _by_value(probability: Values, outcome: Values) -> Reliability:
    """Sums over the items of each distinct probability, in rising order."""
    values, group = np.unique(np.asarray(probability, np.float64), return_inverse=True)
    counts = np.bincount(group).astype(np.float64)
    return Reliability(counts, counts * values, np.bincount(group, outcome).astype(np.float64), group.size)


def predicted_class_error(confidence: Values, predicted: Values, labels: Values, binning: Binning) -> float:
    """Compute the SCE of Ding et al.: bins of the top-label confidence, split by predicted class, summed over classes.

    With `percentile_binning` it is their ACE. All items share one denominator, and nothing is divided by K.
    """
    total = 0.0
    for k in np.unique(predicted):
        chosen = predicted == k
        bins = reliability(confidence[chosen], labels[chosen] == k, binning)
        total += float((np.abs(bins.gaps) * bins.counts[bins.filled]).sum())
    return total / confidence.size
