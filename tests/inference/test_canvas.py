"""Who gets a voxel, and who speaks for its uncertainty."""

from __future__ import annotations

import numpy as np
import pytest

from medmargin.inference.canvas import Canvas, Region
from medmargin.uncertainty.decomposition import decompose_binary

EVERYWHERE = Region(0, slice(0, 1), slice(0, 4))


def _draw(canvas: Canvas, structure: int, *members: list[float]) -> None:
    samples = np.array(members, np.float32)[:, None]
    canvas.draw(structure, EVERYWHERE, samples.mean(axis=0), decompose_binary(samples))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_more_probable_structure_gets_the_voxel(order: tuple[int, int]) -> None:
    canvas = Canvas((1, 1, 4), structures=2, members=1)
    probabilities = {0: [0.9, 0.6, 0.4, 0.2], 1: [0.1, 0.8, 0.3, 0.9]}
    for structure in order:
        _draw(canvas, structure, probabilities[structure])
    assert canvas.labels.ravel().tolist() == [0, 1, -1, 1]
    assert canvas.probability_inside(1) == (2, pytest.approx(1.7))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_structure_inside_another_keeps_its_voxels(order: tuple[int, int]) -> None:
    canvas = Canvas((1, 1, 4), structures=2, members=1)
    organ_and_lesion = {0: [0.9, 0.9, 0.9, 0.9], 1: [0.1, 0.7, 0.6, 0.1]}
    for structure in order:
        _draw(canvas, structure, organ_and_lesion[structure])
    assert canvas.labels.ravel().tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_later_structure_gets_the_voxel_where_the_challenge_says_so(order: tuple[int, int]) -> None:
    canvas = Canvas((1, 1, 4), structures=2, members=1, later_overwrites=True)
    probabilities = {0: [0.9, 0.6, 0.4, 0.8], 1: [0.7, 0.8, 0.3, 0.2]}
    for structure in order:
        _draw(canvas, structure, probabilities[structure])
    assert canvas.labels.ravel().tolist() == [1, 1, -1, 0]
    assert canvas.probability_inside(1) == (2, pytest.approx(1.5))


def test_the_most_uncertain_structure_speaks_and_the_parts_still_add_up() -> None:
    canvas = Canvas((1, 1, 4), structures=2, members=2)
    _draw(canvas, 0, [0.5, 1.0, 0.0, 0.9], [0.5, 0.0, 0.0, 0.9])
    _draw(canvas, 1, [0.9, 0.6, 0.1, 0.5], [0.9, 0.6, 0.1, 0.5])
    ln2 = np.log(2)
    assert canvas.total.ravel()[[0, 1, 3]] == pytest.approx([ln2, ln2, ln2])
    assert canvas.aleatoric.ravel()[[0, 1, 3]] == pytest.approx([ln2, 0, ln2], abs=1e-6)


def test_objects_of_one_structure_are_joined() -> None:
    canvas = Canvas((1, 1, 4), structures=1, members=1)
    _draw(canvas, 0, [0.9, 0.1, 0.0, 0.0])
    _draw(canvas, 0, [0.2, 0.2, 0.0, 0.8])
    assert canvas.labels.ravel().tolist() == [0, -1, -1, 0]
    assert canvas.probabilities is not None
    assert canvas.probabilities[0].ravel() == pytest.approx([0.9, 0.2, 0, 0.8])


def test_probability_maps_are_kept_only_when_asked_for() -> None:
    assert Canvas((2, 3, 4), structures=9, members=1, keep_probabilities=False).probabilities is None
