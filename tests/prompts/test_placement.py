"""Millimetres to voxels, and the check against the image's size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel import eulerangles

from medmargin.errors import PromptError
from medmargin.imaging.volume import Grid
from medmargin.prompts.placement import check_inside, to_voxels
from medmargin.prompts.types import Box, Point, Prompt


def _grid(shape=(20, 30, 10), spacing=(1.0, 1.0, 1.0), unit="mm", signs=(1, 1, 1), origin=(0, 0, 0)):
    affine = np.diag([*(np.array(spacing) * signs), 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine, unit)


voxels = st.tuples(st.integers(0, 19), st.integers(0, 29), st.integers(0, 9))
grids = st.builds(
    _grid,
    spacing=st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 3.3])] * 3),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    origin=st.tuples(*[st.floats(-200, 200)] * 3),
)


@given(grids, voxels, voxels)
def test_millimetres_of_voxel_boxes_and_points_come_back_as_those_voxels(grid, one, other):
    minimum, maximum = np.minimum(one, other), np.maximum(one, other)
    corners = np.array([grid.affine @ (*corner, 1) for corner in (minimum, maximum)])[:, :3]
    box = Box(tuple(corners.min(axis=0)), tuple(corners.max(axis=0)))
    point = Point(tuple((grid.affine @ (*one, 1))[:3]), positive=False)
    prompt = to_voxels(Prompt(structure="organ", box=box, points=(point,)), grid)
    assert prompt.box == Box(tuple(map(float, minimum)), tuple(map(float, maximum)))
    assert prompt.points == (Point(tuple(map(float, one)), positive=False),)
    check_inside(prompt, grid, case="a")


def test_an_oblique_box_becomes_the_smallest_voxel_box_around_it():
    affine = np.eye(4)
    affine[:3, :3] = eulerangles.euler2mat(z=np.pi / 4)
    prompt = to_voxels(Prompt(structure="organ", box=Box((-1, -1, 0), (1, 1, 2))), Grid((9, 9, 9), affine))
    assert prompt.box is not None
    np.testing.assert_allclose(prompt.box.minimum, (-np.sqrt(2), -np.sqrt(2), 0), atol=1e-6)
    np.testing.assert_allclose(prompt.box.maximum, (np.sqrt(2), np.sqrt(2), 2), atol=1e-6)


def test_a_picture_with_spacing_takes_millimetres_without_z():
    prompt = to_voxels(Prompt(structure="lesion", box=Box((1, 2), (3, 4))), _grid((9, 9, 1), spacing=(0.5, 0.5, 1)))
    assert prompt.box == Box((2, 4), (6, 8))


def test_millimetres_are_refused_where_the_spacing_is_unknown():
    with pytest.raises(PromptError, match="does not state its spacing"):
        to_voxels(Prompt(structure="organ", box=Box((0, 0, 0), (1, 1, 1))), _grid(unit="px"))


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(structure="organ", box=Box((-1, 0, 0), (5, 5, 5))),
        Prompt(structure="organ", box=Box((0, 0, 0), (5, 5, 10))),
        Prompt(structure="organ", points=(Point((3, 30, 3)),)),
    ],
)
def test_prompts_outside_the_image_are_refused_with_its_size(prompt):
    with pytest.raises(PromptError, match=r"case_7: structure 'organ'.*\(20, 30, 10\) voxels"):
        check_inside(prompt, _grid(), case="case_7")


def test_the_outer_half_voxel_is_inside():
    check_inside(Prompt(structure="organ", box=Box((-0.5, 0, 0), (19.5, 29, 9))), _grid(), case="a")


def test_coordinates_without_z_fit_pictures_only():
    prompt = Prompt(structure="organ", box=Box((0, 0), (5, 5)))
    check_inside(prompt, _grid((20, 30, 1)), case="a")
    with pytest.raises(PromptError, match="10 slices"):
        check_inside(prompt, _grid(), case="a")
    with pytest.raises(PromptError, match="10 slices"):
        to_voxels(prompt, _grid())
