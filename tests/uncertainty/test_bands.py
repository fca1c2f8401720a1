from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from medmargin.uncertainty.bands import band

LABELS = arrays(np.uint8, (6, 7, 5), elements=st.integers(0, 2), fill=st.just(0))


def by_definition(labels: np.ndarray, width: float) -> np.ndarray:
    marked = np.zeros(labels.shape, bool)
    for value in np.unique(labels):
        inside = labels == value
        if not inside.all():
            marked |= inside & (ndimage.distance_transform_edt(inside) <= width)
    return marked


@settings(max_examples=50, deadline=None)
@given(LABELS, st.sampled_from([1, 2, 3]))
def test_equals_the_definition(labels: np.ndarray, width: int) -> None:
    np.testing.assert_array_equal(band(labels, width=width), by_definition(labels, width))


@settings(max_examples=25, deadline=None)
@given(LABELS, LABELS)
def test_two_maps_give_the_union_of_their_bands(truth: np.ndarray, labels: np.ndarray) -> None:
    np.testing.assert_array_equal(band(truth, labels), band(truth) | band(labels))


@settings(max_examples=25, deadline=None)
@given(LABELS)
def test_names_of_labels_do_not_matter(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(band(labels), band(np.array([7, 0, 3])[labels]))


def test_reaches_three_voxels_to_both_sides_of_a_border() -> None:
    labels = np.zeros((1, 20, 1), np.uint8)
    labels[:, 10:] = 1
    assert np.flatnonzero(band(labels)).tolist() == list(range(7, 13))


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("shape", [(4, 4, 4), (5, 5, 1)])
def test_map_without_a_border_has_no_band(value: int, shape: tuple[int, ...]) -> None:
    assert not band(np.full(shape, value)).any()
