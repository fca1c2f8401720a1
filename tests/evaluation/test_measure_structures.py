"""All structures of a label map at once: the same figures as one by one on the whole masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medmargin.evaluation.structures import measure_structure, measure_structures
from medmargin.imaging.volume import Grid

STRUCTURES = {"a": 1, "b": 2, "c": 7}
SHAPES = st.sampled_from([(7, 6, 5), (9, 8, 1), (6, 1, 1)])
VALUES = st.sampled_from([0, 0, 0, 1, 2, 7])
MAPS = SHAPES.flatmap(lambda shape: st.tuples(*[arrays(np.uint8, shape, elements=VALUES, fill=st.just(0))] * 2))


def one_by_one(truth: np.ndarray, labels: np.ndarray, grid: Grid) -> dict[str, Any]:
    return {name: measure_structure(truth == value, labels == value, grid, 1.0) for name, value in STRUCTURES.items()}


@settings(max_examples=80, deadline=None)
@given(MAPS, st.sampled_from(["mm", "px"]))
def test_equals_whole_masks_one_by_one(maps: tuple[np.ndarray, np.ndarray], unit: str) -> None:
    truth, labels = maps
    grid = Grid(truth.shape, np.diag([1.0, 0.5, 2.0, 1.0]), unit)
    assert measure_structures(truth, labels, STRUCTURES, grid, 1.0) == one_by_one(truth, labels, grid)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_integer_map_in_any_layout(dtype: Any, order: Any) -> None:
    rng = np.random.default_rng(0)
    truth = np.asarray(rng.choice([0, 1, 2, 7], (8, 9, 6)), dtype=dtype, order=order)
    labels = np.asarray(np.roll(truth, 1, axis=0), dtype=dtype, order=order)
    grid = Grid(truth.shape, np.eye(4))
    assert measure_structures(truth, labels, STRUCTURES, grid, 1.0) == one_by_one(truth, labels, grid)


def test_a_missed_structure_gets_the_diagonal_of_the_whole_image() -> None:
    truth, labels = np.zeros((30, 40, 1), np.uint8), np.zeros((30, 40, 1), np.uint8)
    truth[3:5, 3:5] = 1
    found = measure_structures(truth, labels, STRUCTURES, Grid(truth.shape, np.eye(4)), 1.0)
    assert (found["a"]["state"], found["a"]["hd95_mm"]) == ("missed", 50.0)
    assert (found["b"]["state"], found["b"]["dice"], found["b"]["hd95_mm"]) == ("absent", 1.0, None)


def test_no_structure_no_figures() -> None:
    empty = np.zeros((3, 3, 3), np.uint8)
    assert measure_structures(empty, empty, {}, Grid(empty.shape, np.eye(4)), 1.0) == {}
