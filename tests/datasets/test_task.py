"""Masks of structures and overlapping regions, and what systems may refuse."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medmargin.datasets.task import Task, mask_of
from medmargin.errors import ConfigError, DataError

PLAIN = Task("toy", ("MRI",), {"organ": 1, "cyst": 2})
NESTED = Task(
    "tumours", ("MRI",), {"whole": 1, "core": 2, "enhancing": 3},
    regions={"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}, ignore=4,
)  # fmt: skip


@given(arrays.arrays(np.uint8, (3, 4, 2), elements=st.integers(0, 4)), st.sets(st.integers(0, 4), min_size=1))
def test_a_mask_is_where_any_of_the_values_is(labels, values):
    np.testing.assert_array_equal(mask_of(labels, sorted(values)), np.isin(labels, list(values)))


@given(arrays.arrays(np.bool_, (3, 4, 5)))
def test_nested_regions_written_one_over_the_other_are_read_back(draws):
    whole = draws[0]
    masks = {"whole": whole, "core": whole & draws[1], "enhancing": whole & draws[1] & draws[2]}
    labels = np.zeros((4, 5), np.uint8)
    for name, value in NESTED.structures.items():
        labels[masks[name]] = value
    for name, mask in masks.items():
        np.testing.assert_array_equal(NESTED.mask(labels, name), mask)


def test_structures_that_exclude_each_other_are_their_own_value():
    labels = np.array([0, 1, 2, 1])
    assert PLAIN.mask(labels, "organ").tolist() == [False, True, False, True]
    assert PLAIN.members == {"organ": (1,), "cyst": (2,)}


def test_ignored_voxels_are_in_no_structure():
    assert not any(NESTED.mask(np.array([0, 4]), name).any() for name in NESTED.structures)


def test_a_task_read_from_json_has_the_same_masks():
    read = Task(**json.loads(json.dumps(asdict(NESTED))))
    labels = np.arange(5)
    assert all((read.mask(labels, name) == NESTED.mask(labels, name)).all() for name in NESTED.structures)
    assert read.values_of_files == NESTED.values_of_files == {1: 1, 2: 2, 3: 3, 4: 4}


def test_systems_that_cannot_learn_from_overlap_or_gaps_refuse_them():
    PLAIN.require_plain("foo-net")
    with pytest.raises(ConfigError, match=r"'tumours' are overlapping regions, which 'foo-net' .*; train 'plain-unet'"):
        NESTED.require_plain("foo-net")
    with pytest.raises(DataError, match="'toy' has an 'ignore' label"):
        Task("toy", ("MRI",), {"organ": 1}, ignore=2).require_plain("foo-net")
