"""Resampling: exact on the same grid, linear functions stay linear, labels never mix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medmargin.imaging import Grid
from medmargin.imaging.resampling import resample


def _grid(shape, spacing, origin):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)


arrays = hnp.arrays(np.int16, (4, 5, 3), elements=st.integers(0, 900))


@given(arrays, st.tuples(*[st.sampled_from([0.3, 1.0, 2.7])] * 3), st.sampled_from([0, 1]))
def test_the_same_grid_changes_nothing(values, spacing, order):
    grid = _grid((4, 5, 3), spacing, (-31.3, 7.7, 0.1))
    np.testing.assert_array_equal(resample(values, source=grid, target=grid, order=order), values)


@given(st.tuples(*[st.floats(0.4, 2.0)] * 3), st.tuples(*[st.floats(-3, 3)] * 3), st.tuples(*[st.floats(-1, 1)] * 3))
def test_a_linear_field_is_sampled_exactly_inside(spacing, origin, slope):
    source, target = _grid((9, 9, 9), (1, 1, 1), (-4, -4, -4)), _grid((5, 5, 5), spacing, origin)
    where = np.moveaxis(np.indices(source.shape), 0, -1) - 4.0
    sampled = resample(where @ np.array(slope), source=source, target=target, order=1, fill=np.nan)
    positions = np.moveaxis(np.indices(target.shape), 0, -1) * np.array(spacing) + np.array(origin)
    inside = (np.abs(positions) <= 4 - 1e-6).all(axis=-1)
    np.testing.assert_allclose(sampled[inside], (positions @ np.array(slope))[inside], atol=1e-7)
    assert np.isnan(sampled[(np.abs(positions) > 4 + 1e-6).any(axis=-1)]).all()


@given(hnp.arrays(np.uint8, (4, 5, 3), elements=st.sampled_from([0, 3, 7])), st.floats(0.3, 2.5))
def test_nearest_neighbour_invents_no_label(values, size):
    source, target = _grid((4, 5, 3), (1, 1, 1), (0, 0, 0)), _grid((6, 6, 6), (size,) * 3, (0.2,) * 3)
    sampled = resample(values, source=source, target=target, order=0)
    assert set(np.unique(sampled)) <= {0, *np.unique(values)}
    assert sampled.dtype == np.uint8


@pytest.mark.parametrize("fill", [0, -1024])
def test_voxels_outside_get_the_fill_value(fill):
    grid, elsewhere = _grid((3, 3, 3), (1, 1, 1), (0, 0, 0)), _grid((2, 2, 2), (1, 1, 1), (50, 0, 0))
    sampled = resample(np.ones((3, 3, 3), np.int16), source=grid, target=elsewhere, order=1, fill=fill)
    assert (sampled == fill).all()
