"""Geometry of grids, against closed forms."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medmargin.errors import GeometryError
from medmargin.imaging import Grid, Volume, from_array
from medmargin.imaging.volume import checked_grid

AXIS_CODES = [
    "".join(letters)
    for order in permutations(("LR", "AP", "SI"))
    for letters in product(*order)
]  # fmt: skip


def rotated(angles: tuple[float, float, float], spacing: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix() * np.asarray(spacing)
    affine[:3, 3] = 3.0, -40.0, 17.5
    return affine


@given(angles=st.tuples(*[st.floats(-3, 3)] * 3), spacing=st.tuples(*[st.floats(0.05, 40)] * 3))
@settings(max_examples=60, deadline=None)
def test_spacing_volume_and_shear_of_any_oblique_grid(angles, spacing):
    grid = Grid((4, 5, 6), rotated(angles, spacing))
    assert grid.spacing == pytest.approx(spacing, rel=1e-9)
    assert grid.voxel_volume_ml == pytest.approx(np.prod(spacing) / 1000, rel=1e-9)
    assert grid.shear == pytest.approx(0, abs=1e-9)


def test_a_grid_in_pixels_refuses_millilitres():
    assert Grid((4, 5, 1), np.eye(4), "px").voxel_volume_ml is None


def test_shear_is_the_cosine_between_axes():
    affine = np.eye(4)
    affine[:3, 2] = 0, np.sin(0.3), np.cos(0.3)
    assert Grid((3, 3, 3), affine).shear == pytest.approx(np.sin(0.3))


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_reoriented_puts_every_voxel_at_the_same_place_in_the_world(codes):
    volume = from_array(np.arange(24.0).reshape(2, 3, 4), affine=rotated((0.1, -0.2, 0.15), (1.0, 2.0, 3.0)))
    turned = volume.reoriented(codes)
    assert turned.grid.axis_codes == codes
    for index in np.ndindex(turned.grid.shape):
        world = turned.affine @ (*index, 1)
        before = np.linalg.solve(volume.affine, world)[:3]
        assert np.allclose(before, np.rint(before))
        assert volume.voxels[0][tuple(np.rint(before).astype(int))] == turned.voxels[0][index]
    back = turned.reoriented(volume.grid.axis_codes)
    assert np.array_equal(back.voxels, volume.voxels)
    assert np.allclose(back.affine, volume.affine, atol=1e-12)


def test_there_are_48_axis_codes():
    assert len(set(AXIS_CODES)) == 48


@pytest.mark.parametrize("codes", ["RA", "RRS", "RAX", "RLS", ""])
def test_unknown_orientations_are_refused(codes):
    with pytest.raises(GeometryError, match="three letters"):
        from_array(np.zeros((2, 2, 2))).reoriented(codes)


def test_reorienting_copies_no_voxel():
    volume = from_array(np.zeros((3, 4, 5)), affine=np.diag([-1.0, -1, 1, 1]))
    assert np.shares_memory(volume.reoriented("RAS").voxels, volume.voxels)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda a: a @ np.diag([2.0, 1, 1, 1]), "spacing"),
        (lambda a: a + np.eye(4)[:, [3]] @ [[0, 0, 0, 0.0]] + 0, ""),
        (lambda a: np.block([[a[:3, :3], a[:3, 3:] + [[0], [12], [0]]], [a[3:]]]), "origin"),
        (lambda a: np.diag([-1.0, 1, 1, 1]) @ a, "orientation"),
        (lambda a: a + np.diag([5e-4, 0, 0, 0]), ""),
    ],
)
def test_difference_names_what_differs_and_agrees_with_matches(change, word):
    grid = Grid((5, 6, 7), np.eye(4))
    other = Grid((5, 6, 7), change(np.eye(4)))
    assert (word in grid.difference(other)) if word else not grid.difference(other)
    assert grid.matches(other) == (not word)


def test_difference_names_both_shapes():
    text = Grid((5, 6, 7), np.eye(4)).difference(Grid((5, 6, 8), np.eye(4)))
    assert "(5, 6, 7)" in text
    assert "(5, 6, 8)" in text


@pytest.mark.parametrize(
    "affine",
    [np.zeros((4, 4)), np.diag([1.0, 1, 0, 1]), np.array([[1.0, 2, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])],
)
def test_row_03_zero_or_singular_affine_is_refused(affine):
    with pytest.raises(GeometryError, match="singular"):
        checked_grid((3, 3, 3), affine)


def test_row_03_affine_that_is_not_finite_is_refused():
    with pytest.raises(GeometryError, match="not finite"):
        checked_grid((3, 3, 3), np.diag([1.0, np.nan, 1, 1]))


def test_row_07_spacing_above_50_mm_is_refused_in_mm_only():
    with pytest.raises(GeometryError, match=r"larger than 50 mm"):
        checked_grid((3, 3, 3), np.diag([1.0, 1, 50.5, 1]), source="scan.nii")
    assert checked_grid((3, 3, 3), np.diag([1.0, 1, 50.5, 1]), unit="px").spacing[2] == 50.5


def test_tiny_and_huge_voxels_are_no_singular_grids():
    assert checked_grid((3, 3, 3), np.diag([3e-4, 3e-4, 40.0, 1])).spacing == pytest.approx((3e-4, 3e-4, 40.0))


def test_voxels_must_fit_their_grid():
    with pytest.raises(GeometryError, match="do not fit the grid"):
        Volume(np.zeros((1, 2, 3, 4)), Grid((2, 3, 5), np.eye(4)))


def test_with_voxels_keeps_the_grid(brain):
    other = brain.with_voxels(np.zeros(brain.grid.shape))
    assert other.grid is brain.grid
    assert other.voxels.shape == (1, *brain.grid.shape)
