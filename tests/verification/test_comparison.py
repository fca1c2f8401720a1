"""The rule by which a recomputed output passes."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medmargin.verification.comparison import compare

FINITE = st.floats(-100, 100, width=32)


@given(values=st.lists(FINITE, min_size=1, max_size=8), error=st.floats(0, 1e-2))
def test_floats_pass_within_the_tolerance_times_the_largest_magnitude(values: list[float], error: float) -> None:
    reference = torch.tensor(values, dtype=torch.float64)
    found = compare("x", reference + error, reference, 1e-3)
    actual = float(((reference + error) - reference).abs().max())
    assert found.max_abs == actual
    assert found.passed == (actual <= 1e-3 * max(1.0, float(reference.abs().max())))
    assert (found.reason == "") == found.passed


def test_small_references_are_held_to_the_absolute_tolerance() -> None:
    assert not compare("x", torch.tensor([2e-5]), torch.tensor([1e-6]), 1e-5).passed


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers_must_be_equal(dtype: torch.dtype) -> None:
    reference = torch.tensor([0, 1], dtype=dtype)
    assert compare("x", np.array([0, 1]), reference, 10.0).passed
    off = compare("x", np.array([0.0, 0.999]), reference, 10.0)
    assert not off.passed
    assert off.tolerance == 0


def test_another_shape_never_passes() -> None:
    found = compare("x", torch.zeros(1, 3), torch.zeros(3), 1.0)
    assert not found.passed
    assert found.reason == "shape [1, 3] instead of [3]"


def test_nan_and_infinity_must_stand_at_the_same_places() -> None:
    reference = torch.tensor([float("nan"), float("inf"), 1.0])
    assert compare("x", reference.numpy(), reference, 1e-6).passed
    for wrong in ([float("nan"), -float("inf"), 1.0], [0.0, float("inf"), 1.0], [float("nan"), float("inf"), np.nan]):
        assert not compare("x", np.array(wrong), reference, 1e-6).passed


def test_an_empty_output_passes_by_its_shape() -> None:
    assert compare("x", torch.zeros(1, 0, 32), torch.zeros(1, 0, 32), 0.0).passed


def test_a_difference_from_an_all_zero_reference_has_no_relative_size() -> None:
    found = compare("x", torch.tensor([0.5]), torch.zeros(1), 1.0)
    assert (found.max_abs, found.max_rel) == (0.5, None)
    assert compare("x", torch.zeros(1), torch.zeros(1), 1.0).max_rel == 0


@pytest.mark.parametrize("found", [torch.zeros(2), torch.tensor([float("nan")]), torch.ones(1)])
def test_every_comparison_can_be_written_as_json(found: torch.Tensor) -> None:
    json.dumps(asdict(compare("x", found, torch.zeros(1), 1e-6)), allow_nan=False)
