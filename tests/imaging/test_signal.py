"""Images that hold nothing to segment."""

from __future__ import annotations

import numpy as np
import pytest

from medmargin.errors import DataError
from medmargin.imaging import finite_image, from_array, require_signal


def image_with(count: int, value: float) -> np.ndarray:
    values = np.arange(1000, dtype=np.float32).reshape(10, 10, 10) + 5
    values.flat[:count] = value
    return values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_row_01_few_voxels_that_are_not_finite_are_replaced_with_a_warning(value):
    repaired = finite_image(from_array(image_with(9, value)))
    assert np.isfinite(repaired.voxels).all()
    assert (repaired.voxels.flat[:9] == 14).all()  # the smallest of the others
    assert "9 of 1000 voxels" in repaired.warnings[0]


def test_row_01_one_percent_is_too_many():
    with pytest.raises(DataError, match="10 of 1000 voxels"):
        finite_image(from_array(image_with(10, np.nan)))


def test_row_01_nothing_but_nan_is_refused():
    with pytest.raises(DataError, match="8 of 8"):
        finite_image(from_array(np.full((2, 2, 2), np.nan)))


def test_finite_images_pass_untouched(brain):
    volume = from_array(image_with(0, 0))
    assert finite_image(volume) is volume
    assert finite_image(brain) is brain


def test_row_02_constant_and_empty_images_have_no_signal():
    for values in (np.full((3, 3, 3), 7.0), np.zeros((0, 3, 3)), np.zeros((0, 3))):
        with pytest.raises(DataError, match="no signal"):
            require_signal(from_array(values))


def test_one_channel_with_signal_is_enough(rng):
    require_signal(from_array(np.stack([np.zeros((3, 3, 3)), rng.random((3, 3, 3))])))
