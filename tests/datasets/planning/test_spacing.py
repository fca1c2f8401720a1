"""Target spacing, order of the axes, median shape."""

from __future__ import annotations

import numpy as np
import pytest

from medmargin.datasets.planning.spacing import axis_order, is_anisotropic, median_shape, target_spacing


def test_the_median_is_taken_axis_by_axis():
    spacings, shapes = [(1, 2, 3), (1, 1, 1), (2, 2, 2)], [(100, 100, 100)] * 3
    assert target_spacing(spacings, shapes)[0] == (1, 2, 2)


def test_thick_slices_follow_the_finer_cases():
    spacings = [(0.5, 0.5, thickness) for thickness in np.linspace(2, 8, 11)]
    target, reason = target_spacing(spacings, [(400, 400, 30)] * 11)
    assert target == pytest.approx((0.5, 0.5, np.percentile(np.linspace(2, 8, 11), 10)))
    assert "10th percentile" in reason


def test_thick_slices_never_become_finer_than_the_pixels():
    spacings = [(1.0, 1.0, 0.5)] * 2 + [(1.0, 1.0, 5.0)] * 9
    assert target_spacing(spacings, [(400, 400, 30)] * 11)[0] == (1.0, 1.0, 1.0)


def test_many_thick_slices_keep_the_median():
    spacings = [(0.5, 0.5, thickness) for thickness in np.linspace(2, 8, 11)]
    assert target_spacing(spacings, [(400, 400, 300)] * 11)[0][2] == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("spacing", "shape", "order"),
    [
        ((1, 1, 1), (9, 9, 9), (2, 1, 0)),
        ((1, 1, 3), (9, 9, 9), (2, 1, 0)),
        ((1, 3, 1), (9, 9, 9), (1, 2, 0)),
        ((3, 1, 1), (9, 9, 9), (0, 2, 1)),
        ((1, 1, 3), (9, 1, 9), (1, 2, 0)),
    ],
)
def test_slices_come_first(spacing, shape, order):
    assert axis_order(spacing, shape)[0] == order


def test_shapes_are_those_after_resampling():
    assert median_shape([(1, 1), (2, 2), (4, 4)], [(100, 50)] * 3, (2, 2)) == (100, 50)
    assert median_shape([(0.1, 1)], [(2, 50)], (5, 1)) == (1, 50)  # never less than one voxel


def test_three_times_is_not_yet_anisotropic():
    assert not is_anisotropic((3, 1, 1))
    assert is_anisotropic((3.1, 1, 1))
