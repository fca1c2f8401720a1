"""To the working grid and exactly back, for every way a file can lie in space."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medmargin.errors import GeometryError
from medmargin.imaging import from_array, read_image, read_label, to_working, write_labels, write_map
from medmargin.imaging.working import orthogonalised

AXIS_CODES = ["".join(letters) for order in permutations(("LR", "AP", "SI")) for letters in product(*order)]
SPACING = (0.75, 1.5, 4.0)  # anisotropic, exact in binary


def affine_of(codes: str, *, tilt: float = 0.0) -> np.ndarray:
    affine = np.eye(4)
    for axis, letter in enumerate(codes):
        row = next(row for row, pair in enumerate(("LR", "PA", "IS")) if letter in pair)
        affine[:3, axis] = 0.0
        affine[row, axis] = SPACING[axis] * (1 if letter in "RAS" else -1)
    affine[:3, :3] = Rotation.from_euler("xyz", (tilt, -tilt / 2, tilt / 3)).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = -12.5, 30.25, 7.0
    return affine.astype(np.float32).astype(np.float64)  # what a NIfTI header can hold


def gantry_tilt(degrees: float) -> np.ndarray:
    affine = np.diag([-0.75, -0.75, 2.5, 1.0])
    affine[1, 2] = -2.5 * np.tan(np.radians(degrees))
    return affine


@pytest.mark.parametrize("tilt", [0.0, 0.2], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", AXIS_CODES)
def test_round_trip_over_all_axis_codes_is_identical(tmp_path, rng, codes, tilt):
    labels = rng.integers(0, 7, (5, 4, 3)).astype(np.uint8)
    original = from_array(labels, affine=affine_of(codes, tilt=tilt))
    write_labels(tmp_path / "first.nii.gz", labels, original, names={})
    read = read_label(tmp_path / "first.nii.gz")
    working = to_working(read)
    assert working.volume.grid.axis_codes == "RAS"
    assert np.shares_memory(working.volume.voxels, read.voxels)
    restored = working.restore_labels(working.volume.voxels[0])
    write_labels(tmp_path / "second.nii.gz", restored, read, names={})
    again = read_label(tmp_path / "second.nii.gz")
    assert np.array_equal(again.voxels[0], labels)
    assert np.array_equal(again.affine, original.affine)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("codes", ["LPS", "SAR", "AIL"])
def test_round_trip_of_maps_in_every_volume_format(tmp_path, rng, codes, suffix):
    values = rng.random((5, 4, 3)).astype(np.float32)
    original = from_array(values, affine=affine_of(codes, tilt=0.2))
    [path] = write_map(tmp_path / f"map{suffix}", values, original, description="probability")
    read = read_image(path)
    working = to_working(read)
    assert np.array_equal(working.restore_map(working.volume.voxels[0]), values)
    assert np.allclose(read.affine, original.affine, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 5, 1), (1, 5, 4), (6, 1, 1)])
def test_single_slices_in_any_direction_come_back(rng, shape):
    values = rng.random(shape)
    working = to_working(from_array(values, affine=affine_of("SLP")))
    assert np.array_equal(working.restore_map(working.volume.voxels[0]), values)


def test_pictures_are_never_turned(rng):
    picture = from_array(rng.random((4, 5)), affine=np.diag([-1.0, -1.0, 1.0, 1.0]))
    working = to_working(picture)
    assert working.volume is picture
    assert np.array_equal(working.restore_map(picture.voxels[0]), picture.voxels[0])
    assert np.array_equal(working.point_to_working((3.0, 2.0)), (3.0, 2.0))


def test_arrays_of_another_shape_are_refused(brain):
    with pytest.raises(GeometryError, match="not on the working grid"):
        to_working(brain).restore_labels(np.zeros((1, 2, 3), np.uint8))


@given(
    codes=st.sampled_from(AXIS_CODES),
    point=st.tuples(*[st.floats(-3, 8)] * 3),
    angle=st.floats(-0.3, 0.3),
    shear=st.sampled_from([0.0, 0.15]),
)
@settings(max_examples=60, deadline=None)
def test_points_keep_their_place_in_the_world_and_come_back(codes, point, angle, shear):
    affine = affine_of(codes, tilt=angle)
    affine[:3, 2] += shear * SPACING[2] / SPACING[1] * affine[:3, 1]
    volume = from_array(np.zeros((5, 4, 3), np.float32), affine=affine)
    working = to_working(volume)
    moved = working.point_to_working(point)
    assert np.allclose(working.volume.affine @ (*moved, 1), affine @ (*point, 1), atol=1e-9)
    assert np.allclose(working.point_from_working(moved), point, atol=1e-9)


@given(
    codes=st.sampled_from(AXIS_CODES),
    corners=st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 3),
)
@settings(max_examples=60, deadline=None)
def test_boxes_hold_the_same_voxels_on_both_grids(codes, corners):
    low, high = (tuple(choose(pair) for pair in corners) for choose in (min, max))
    mask = np.zeros((5, 5, 5), np.uint8)
    mask[tuple(slice(start, stop + 1) for start, stop in zip(low, high, strict=True))] = 1
    working = to_working(from_array(mask, affine=affine_of(codes)))
    minimum, maximum = working.box_to_working(low, high)
    inside = np.argwhere(working.volume.voxels[0])
    assert np.array_equal(inside.min(axis=0), minimum)
    assert np.array_equal(inside.max(axis=0), maximum)


def test_row_04_sheared_grid_is_resampled_with_a_warning_and_restored(rng):
    i, j, k = np.meshgrid(*map(np.arange, (12, 16, 10)), indexing="ij")
    affine = gantry_tilt(15)
    world = affine @ np.stack([i.ravel(), j.ravel(), k.ravel(), np.ones(i.size)])
    ramp = (world[1] + 0.5 * world[0]).reshape(i.shape).astype(np.float32)  # linear in space: interpolation is exact
    working = to_working(from_array(ramp, affine=affine))
    assert working.volume.grid.shear < 1e-9
    assert working.volume.grid.axis_codes == "RAS"
    assert "sheared" in working.volume.warnings[0]
    restored = working.restore_map(working.volume.voxels[0])
    inner = (slice(1, -1), slice(1, -1), slice(None))
    assert np.allclose(restored[inner], ramp[inner], atol=1e-3)


def test_row_04_labels_of_a_sheared_grid_keep_their_values(rng):
    labels = np.zeros((20, 24, 10), np.uint8)
    labels[4:16, 4:20, 2:8] = 3
    labels[7:12, 8:16, 3:7] = 9
    volume = from_array(labels, affine=gantry_tilt(12))
    working = to_working(volume, nearest=True)
    assert set(np.unique(working.volume.voxels)) == {0, 3, 9}
    restored = working.restore_labels(working.volume.voxels[0])
    assert restored.dtype == np.uint8
    assert (restored != labels).mean() < 0.01


def test_slices_of_a_tilted_gantry_stay_slices():
    affine = gantry_tilt(20)
    grid = from_array(np.zeros((8, 8, 6)), affine=affine).grid
    straight = orthogonalised(grid)
    assert straight.spacing == pytest.approx((0.75, 0.75, 2.5))
    assert straight.shape[2] == 6  # no slice between slices
    assert np.allclose(np.linalg.solve(straight.affine, affine)[2], [0, 0, 1, 0])


def test_every_voxel_of_a_sheared_grid_lies_inside_the_orthogonal_one():
    affine = affine_of("PIR")
    affine[:3, 0] += 0.3 * affine[:3, 1]
    grid = from_array(np.zeros((7, 6, 5)), affine=affine).grid
    straight = orthogonalised(grid)
    corners = np.array([(*corner, 1) for corner in product(*[(0, size - 1) for size in grid.shape])])
    inside = (np.linalg.solve(straight.affine, affine) @ corners.T)[:3]
    assert inside.min() > -1e-6
    assert (inside.max(axis=1) < np.array(straight.shape) - 1 + 1e-6).all()


def test_whole_numbers_stay_whole_when_resampled(rng):
    working = to_working(from_array(rng.integers(0, 99, (6, 7, 8)).astype(np.int16), affine=gantry_tilt(10)))
    assert working.volume.voxels.dtype == np.int16
