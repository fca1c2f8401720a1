"""Geometry of the embedded data set's organs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from medmargin.datasets.phantoms.acquisition import positions
from medmargin.datasets.phantoms.organs import (
    SOFTNESS,
    STRUCTURES,
    corrected_distance,
    curved_tube,
    ellipsoid,
    labelled_organs,
    random_anatomy,
    scenery,
)
from medmargin.imaging.volume import Grid

_SPACING = (1.0, 1.5, 2.0)


def _grid(shape: tuple[int, int, int] = (61, 41, 31), spacing: tuple[float, float, float] = _SPACING) -> Grid:
    return Grid(shape, np.diag([*spacing, 1.0]))


def test_the_distance_to_a_sphere_is_exact_everywhere() -> None:
    where = positions(_grid())
    np.testing.assert_allclose(ellipsoid(where, (9.0, 9.0, 9.0)), 9 - np.linalg.norm(where, axis=0), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    radii=st.tuples(*[st.floats(2, 20)] * 3),
    axis=st.integers(0, 2),
    along=st.floats(-30, 30).filter(lambda value: abs(value) > 1e-3),
)
def test_the_distance_to_an_ellipsoid_is_exact_along_its_axes(
    radii: tuple[float, float, float], axis: int, along: float
) -> None:
    point = np.zeros((3, 1, 1, 1))
    point[axis] = along
    assert ellipsoid(point, radii).item() == pytest.approx(radii[axis] - abs(along), abs=1e-6)


def test_the_middle_of_an_ellipsoid_is_its_shortest_half_axis_from_the_border() -> None:
    assert ellipsoid(np.zeros((3, 1, 1, 1)), (5.0, 3.0, 8.0)).item() == pytest.approx(3.0)


def test_a_straight_tube_is_a_capsule() -> None:
    control = np.array([[0.0, -10, 0], [0, 0, 0], [0, 10, 0]])
    where = positions(_grid())
    x, y, z = where
    beyond = np.maximum(np.abs(y) - 10, 0)
    exact = 4 - np.sqrt(x**2 + z**2 + beyond**2)
    off_axis = exact < 3  # on the axis itself the 40 points of the curve can be told apart
    np.testing.assert_allclose(curved_tube(where, control, 4.0)[off_axis], exact[off_axis], atol=0.05)


@pytest.mark.parametrize("stretch", [0.7, 1.0, 1.6])
def test_a_stretched_distance_is_corrected_at_the_border(stretch: float) -> None:
    where = positions(_grid())
    distance = 10 - np.linalg.norm(where, axis=0)
    corrected = corrected_distance(stretch * distance, _SPACING)
    near = np.abs(distance) < 3
    np.testing.assert_allclose(corrected[near], distance[near], atol=0.12)


def test_a_picture_of_one_slice_is_corrected_too() -> None:
    where = positions(_grid((80, 80, 1), (0.5, 0.5, 1.0)))
    distance = 10 - np.linalg.norm(where, axis=0)
    corrected = corrected_distance(1.5 * distance, (0.5, 0.5, 1.0))
    near = np.abs(distance) < 2
    np.testing.assert_allclose(corrected[near], distance[near], atol=0.05)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dims", [2, 3])
def test_organs_are_given_by_their_distance_in_mm(seed: int, dims: int) -> None:
    spacing = (0.5, 0.5, 1.0) if dims == 2 else (0.8, 0.8, 0.8)
    grid = _grid((130, 140, 1) if dims == 2 else (76, 84, 76), spacing)
    anatomy = random_anatomy(np.random.default_rng(seed), scale=1.0, has_lesion=True, dims=dims)
    for organ in labelled_organs(anatomy, positions(grid), spacing, edge_sd_mm=1.0, rater_sd_mm=1.0):
        inside = organ.distance_mm > 0
        assert inside.any()
        exact = distance_transform_edt(inside, sampling=spacing) - distance_transform_edt(~inside, sampling=spacing)
        near = np.abs(organ.distance_mm) < 1.5
        # The transform counts to voxel centres, hence half a voxel of doubt on either side.
        assert np.quantile(np.abs(exact - organ.distance_mm)[near], 0.95) < spacing[0]


def test_structures_come_in_the_order_of_painting_with_their_softness() -> None:
    anatomy = random_anatomy(np.random.default_rng(0), scale=1.0, has_lesion=True, dims=3)
    organs = labelled_organs(anatomy, positions(_grid()), _SPACING, edge_sd_mm=2.0, rater_sd_mm=0.5)
    assert [organ.name for organ in organs] == ["organ", "tube", "lesion"]
    for organ in organs:
        assert organ.label == STRUCTURES[organ.name]
        assert organ.edge_sd_mm == 2.0 * SOFTNESS[organ.name]
        assert organ.rater_sd_mm == 0.5 * SOFTNESS[organ.name]


def test_the_lesion_lies_in_the_organ_and_may_be_absent() -> None:
    where = positions(_grid((60, 68, 60), (1.0, 1.0, 1.0)))
    for seed in range(10):
        anatomy = random_anatomy(np.random.default_rng(seed), scale=1.0, has_lesion=True, dims=3)
        organs = labelled_organs(anatomy, where, (1.0, 1.0, 1.0), edge_sd_mm=1.0, rater_sd_mm=1.0)
        inside = {organ.name: organ.distance_mm > 0 for organ in organs}
        assert (inside["lesion"] & inside["organ"]).sum() > 0.7 * inside["lesion"].sum()
        assert not (inside["tube"] & inside["organ"]).any()
    healthy = random_anatomy(np.random.default_rng(0), scale=1.0, has_lesion=False, dims=3)
    organs = labelled_organs(healthy, where, (1.0, 1.0, 1.0), edge_sd_mm=1.0, rater_sd_mm=1.0)
    assert "lesion" not in [organ.name for organ in organs]


def test_scenery_is_never_labelled() -> None:
    anatomy = random_anatomy(np.random.default_rng(0), scale=1.0, has_lesion=True, dims=3)
    bodies = scenery(anatomy, positions(_grid()), _SPACING, edge_sd_mm=1.0, rater_sd_mm=1.0)
    assert len(bodies) == 2 + len(anatomy.loops)
    assert {organ.label for organ in bodies} == {0}
