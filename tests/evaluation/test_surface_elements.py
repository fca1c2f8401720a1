from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.evaluation.surface_elements import element_areas

SIZES = st.floats(0.1, 10.0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.8, 0.7), (0.3, 4.0, 2.0)])
def test_areas_equal_those_of_the_published_tables(spacing: tuple[float, ...]) -> None:
    metrics = pytest.importorskip("monai.metrics.utils")
    published, _ = metrics.get_code_to_measure_table(spacing)
    np.testing.assert_allclose(element_areas(spacing), published.numpy(), rtol=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 0.7)])
def test_lengths_equal_those_of_the_published_tables(spacing: tuple[float, ...]) -> None:
    metrics = pytest.importorskip("monai.metrics.utils")
    published, _ = metrics.get_code_to_measure_table(spacing)
    np.testing.assert_allclose(element_areas(spacing), published.numpy(), rtol=1e-6)


@given(SIZES, SIZES, SIZES)
def test_flat_pieces_have_the_area_of_a_voxel_face(a: float, b: float, c: float) -> None:
    areas = element_areas((a, b, c))
    faces = {0b11110000: b * c, 0b11001100: a * c, 0b10101010: a * b}
    for code, area in faces.items():
        assert areas[code] == pytest.approx(area)


@given(SIZES, SIZES, SIZES, SIZES)
def test_areas_grow_with_the_square_of_the_spacing(a: float, b: float, c: float, scale: float) -> None:
    np.testing.assert_allclose(
        element_areas((a * scale, b * scale, c * scale)), scale**2 * element_areas((a, b, c)), rtol=1e-9
    )


def test_complement_has_the_same_surface_and_uniform_neighbourhoods_have_none() -> None:
    areas = element_areas((1.0, 2.0, 3.0))
    np.testing.assert_array_equal(areas, areas[::-1])
    assert areas[0] == areas[255] == 0
    assert (areas[1:255] > 0).all()
