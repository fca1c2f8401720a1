"""Fields of the random pictures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.datasets.phantoms.noise import between, fractal_noise, smooth_noise, stripes


@pytest.mark.parametrize(("cells", "stretch"), [(3, 1.0), (16, 1.0), (16, 4.0), (64, 1.0)])
def test_smooth_noise_has_about_unit_variance(cells: float, stretch: float) -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([smooth_noise(rng, 64, cells=cells, stretch=stretch) for _ in range(60)])
    assert fields.shape == (60, 64, 64)
    assert fields.dtype == np.float32
    assert abs(fields.mean()) < 0.15
    assert 0.6 < fields.std() < 1.4


def test_stretched_noise_varies_more_slowly_along_the_columns_it_is_stretched_over() -> None:
    field = smooth_noise(np.random.default_rng(1), 128, cells=24, stretch=6.0)
    across, down = np.abs(np.diff(field, axis=1)).mean(), np.abs(np.diff(field, axis=0)).mean()
    assert down > 3 * across


def test_fractal_noise_with_more_octaves_is_rougher() -> None:
    def roughness(octaves: int) -> float:
        rng = np.random.default_rng(2)
        fields = [fractal_noise(rng, 64, cells=3, octaves=octaves, roughness=0.8) for _ in range(20)]
        return float(np.mean([np.abs(np.diff(field, axis=1)).mean() / field.std() for field in fields]))

    assert roughness(4) > 1.5 * roughness(1)


def test_straight_stripes_have_the_period_asked_for() -> None:
    field = stripes(np.random.default_rng(3), 128, period=16.0, waviness=0.0)
    spectrum = np.abs(np.fft.fft2(field))
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    frequency = np.hypot(np.fft.fftfreq(128)[row], np.fft.fftfreq(128)[column])
    assert 1 / frequency == pytest.approx(16.0, rel=0.15)
    assert np.abs(field).max() <= 1.0


@settings(max_examples=30, deadline=None)
@given(low=st.floats(1e-3, 10), factor=st.floats(1, 100), seed=st.integers(0, 99))
def test_between_stays_between(low: float, factor: float, seed: int) -> None:
    drawn = between(np.random.default_rng(seed), low, low * factor)
    assert low * (1 - 1e-9) <= drawn <= low * factor * (1 + 1e-9)
