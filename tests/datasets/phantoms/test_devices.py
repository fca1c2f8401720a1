"""Marks of imaging devices on random pictures."""

import numpy as np
import pytest

from medmargin.datasets.phantoms import devices

_EVERY_DEVICE = pytest.mark.parametrize(
    "device",
    [
        devices.magnetic_resonance,
        devices.computed_tomography,
        devices.ultrasound,
        devices.radiograph,
        devices.microscope,
        devices.endoscope,
        devices.plain,
    ],
    ids=lambda device: device.__name__,
)


def _disc(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    axis = np.arange(size) - size / 2
    labels = (np.hypot(axis[None], axis[:, None]) < size / 4).astype(np.uint8)
    return np.where(labels > 0, 0.9, 0.2).astype(np.float32), labels


@_EVERY_DEVICE
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_even_a_constant_picture_stays_finite(device: devices.Device, level: float) -> None:
    empty = np.zeros((48, 48), np.uint8)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        shown = devices.display(device(np.full((48, 48), level, np.float32), empty, rng), rng)
        assert shown.dtype == np.float32
        assert np.isfinite(shown).all()
        assert shown.min() >= 0
        assert shown.max() <= 1


@_EVERY_DEVICE
def test_an_object_of_strong_contrast_stays_visible_in_most_pictures(device: devices.Device) -> None:
    picture, labels = _disc()
    separations = []
    for seed in range(30):
        seen = device(picture, labels, np.random.default_rng(seed))
        inside, outside = seen[labels > 0], seen[labels == 0]
        separations.append(abs(inside.mean() - outside.mean()) / (inside.std() + outside.std() + 1e-6))
    assert np.median(separations) > 0.4


def test_photon_noise_has_the_variance_of_a_poisson_count() -> None:
    noisy = devices.photon_noise(np.full((256, 256), 0.5, np.float32), np.random.default_rng(0), photons=100)
    assert noisy.var() == pytest.approx(0.51 / 100, rel=0.03)
    assert noisy.mean() == pytest.approx(0.5, abs=0.002)


def test_a_bias_field_changes_a_flat_picture_slowly() -> None:
    shaded = devices.bias_field(np.ones((64, 64), np.float32), np.random.default_rng(0), strength=0.3)
    assert shaded.std() > 0.05
    assert np.abs(np.diff(shaded)).max() < 0.1


def test_a_coarse_grid_keeps_the_mean_and_loses_detail() -> None:
    picture = np.random.default_rng(0).random((64, 64), np.float32)
    coarse = devices.coarse_grid(picture, np.random.default_rng(1))
    assert coarse.mean() == pytest.approx(picture.mean(), abs=0.02)
    assert coarse.std() < 0.9 * picture.std()
