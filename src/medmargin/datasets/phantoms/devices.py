"""What an imaging device does to a clean picture: noise, shading, shadows, blur, compression.

Every device takes a picture [size, size] float32 roughly in [0, 1], the labels [size, size] uint8 and a generator, and
returns a picture.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.phantoms.noise import Picture, between, blur, fractal_noise, resample, smooth_noise, stripes
from medmargin.datasets.phantoms.shapes import stroke

Device = Callable[[Picture, NDArray[np.uint8], np.random.Generator], Picture]


def magnetic_resonance(picture: Picture, labels: NDArray[np.uint8], rng: np.random.Generator) -> Picture:
    """Add a bias field, k-space truncation, ghosts and Rician noise."""
    picture = bias_field(np.maximum(picture, 0), rng, strength=between(rng, 0.03, 0.5))
    if rng.random() < 0.5:
        picture = coarse_grid(picture, rng)
    if rng.random() < 0.12:
        shift = int(rng.integers(len(picture) // 8, len(picture) // 2))
        picture = picture + np.float32(rng.uniform(0.03, 0.15)) * np.roll(picture, shift, axis=int(rng.integers(2)))
    sigma = between(rng, 0.004, 0.07)
    real, imaginary = _correlated(rng, len(picture)), rng.standard_normal(picture.shape, np.float32)
    return np.hypot(picture + np.float32(sigma) * real, np.float32(sigma) * imaginary)


def computed_tomography(picture: Picture, labels: NDArray[np.uint8], rng: np.random.Generator) -> Picture:
    """Add correlated noise and streaks, then cut to a grey-level window."""
    picture = picture + np.float32(between(rng, 0.005, 0.1)) * _correlated(rng, len(picture))
    if rng.random() < 0.25:
        strength, period = np.float32(rng.uniform(0.01, 0.08)), between(rng, 3, 20)
        picture = picture + strength * stripes(rng, len(picture), period=period, waviness=0.1)
    middle, half = rng.uniform(0.3, 0.7), between(rng, 0.15, 0.8)
    return np.clip(picture, middle - half, middle + half)


def ultrasound(picture: Picture, labels: NDArray[np.uint8], rng: np.random.Generator) -> Picture:
    """Turn echogenicity into speckle, with shadows, enhancement behind objects and attenuation.

    Fully developed speckle has a Rayleigh amplitude; the display takes its logarithm.
    """
    size = len(picture)
    lateral, axial = between(rng, 0.5, 2.0), between(rng, 0.3, 0.9)
    waves = rng.standard_normal((2, size, size), np.float32)
    real, imaginary = (blur(wave, lateral, height=axial) for wave in waves)
    speckle = np.hypot(real, imaginary)
    speckle /= speckle.mean()
    echo = np.maximum(picture, 0.0) ** np.float32(rng.uniform(0.8, 2)) * _columns_behind_objects(labels, rng)
    depth = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    echo = echo * np.exp(-np.float32(rng.uniform(-0.5, 2.0)) * depth)
    mix = np.float32(rng.uniform(0.1, 0.75))
    amplitude = (echo + np.float32(0.02)) * (1 - mix + mix * speckle)
    compression = between(rng, 1, 60)
    return np.log1p(np.float32(compression) * amplitude) / np.float32(np.log1p(compression))


def radiograph(picture: Picture, labels: NDArray[np.uint8], rng: np.random.Generator) -> Picture:
    """Add the shadows of overlapping bones and soft tissue, and quantum noise."""
    size = len(picture)
    overlap = np.zeros((size, size), np.float32)
    slope, spacing, width = rng.uniform(-0.4, 0.4), size * rng.uniform(0.06, 0.13), size * rng.uniform(0.015, 0.04)
    x = np.linspace(0, size, 20)
    if rng.random() < 0.7:
        for start in np.arange(-0.2 * size, 1.2 * size, spacing):
            arch = start + slope * np.abs(x - size / 2) + 0.002 * rng.uniform(0, 2) * (x - size / 2) ** 2
            overlap += stroke(np.stack([x, arch], 1), size, width=width) * np.float32(rng.uniform(0.03, 0.2))
    if rng.random() < 0.6:
        column = np.abs(np.arange(size, dtype=np.float32) / size - np.float32(rng.uniform(0.35, 0.65)))
        strength, width_of_spine = rng.uniform(0.1, 0.5), rng.uniform(0.04, 0.1)
        overlap += np.float32(strength) * np.exp(-((column / np.float32(width_of_spine)) ** 2))[None, :]
    picture = picture + blur(overlap, size * rng.uniform(0.004, 0.012))
    picture = picture + np.float32(rng.uniform(0.02, 0.2)) * smooth_noise(rng, size, cells=rng.uniform(2, 5))
    return photon_noise(picture, rng, photons=between(rng, 100, 5000))


def microscope(picture: Picture, labels: NDArray[np.uint8], rng: np.random.Generator) -> Picture:
    """Add out-of-focus haze, uneven illumination and photon noise."""
    size = len(picture)
    haze = blur(picture, size * between(rng, 0.02, 0.1))
    picture = bias_field(picture + np.float32(rng.uniform(0, 0.5)) * haze, rng, strength=between(rng, 0.02, 0.3))
    return photon_noise(picture, rng, photons=between(rng, 15, 3000))


def endoscope(picture: Picture, labels: NDArray[np.uint8], rng: np.random.Generator) -> Picture:
    """Light the objects as bumps from the camera: shading, specular highlights and vignetting."""
    size = len(picture)
    bumps = blur((labels > 0).astype(np.float32), size * between(rng, 0.02, 0.08))
    folds = blur(picture, size * 0.02) * np.float32(size * rng.uniform(0, 0.3))
    mucosa = fractal_noise(rng, size, cells=4, octaves=3, roughness=0.4) * np.float32(size * rng.uniform(0, 0.01))
    height = bumps * np.float32(size * rng.uniform(0.0, 0.35)) + folds + mucosa
    slope_y, slope_x = np.gradient(height)
    steepness = np.sqrt(1 + slope_x**2 + slope_y**2)
    light_x, light_y = rng.uniform(-0.6, 0.6, 2)
    cosine = (1 - np.float32(light_x) * slope_x - np.float32(light_y) * slope_y) / steepness
    shaded = picture * np.clip(cosine, 0.1, 1.6)
    glint = cosine + np.float32(0.1) * smooth_noise(rng, size, cells=size / rng.uniform(3, 10))
    shine = (glint > np.quantile(glint[::2, ::2], 1 - between(rng, 0.0005, 0.015))).astype(np.float32)
    shaded = shaded + blur(shine, 0.5) * np.float32(rng.uniform(0.2, 0.8))
    radius = _radius(size, rng)
    shaded = shaded * (1 - np.float32(rng.uniform(0, 0.7)) * np.clip(radius, 0, 1.3) ** 2)
    return shaded + np.float32(between(rng, 0.003, 0.03)) * _correlated(rng, size)


def plain(picture: Picture, labels: NDArray[np.uint8], rng: np.random.Generator) -> Picture:
    """Add any mixture of shading, coarse sampling and noise that belongs to no device in particular."""
    if rng.random() < 0.5:
        picture = bias_field(picture, rng, strength=between(rng, 0.03, 0.6))
    if rng.random() < 0.4:
        picture = coarse_grid(picture, rng)
    sigma = np.float32(between(rng, 0.003, 0.12))
    noise = _correlated(rng, len(picture)) if rng.random() < 0.5 else rng.standard_normal(picture.shape, np.float32)
    if rng.random() < 0.3:
        return picture * (1 + 2 * sigma * noise)
    return picture + sigma * noise


def bias_field(picture: Picture, rng: np.random.Generator, *, strength: float) -> Picture:
    """Multiply by exp(strength * smooth field), the slow shading of coils and lamps."""
    return picture * np.exp(np.float32(strength) * smooth_noise(rng, len(picture), cells=rng.uniform(2, 4)))


def photon_noise(picture: Picture, rng: np.random.Generator, *, photons: float) -> Picture:
    """Add Poisson noise in its normal approximation: `photons` per pixel at grey level 1."""
    signal = np.maximum(picture, 0)
    spread = np.sqrt((signal + np.float32(0.01)) / np.float32(photons))
    return signal + spread * rng.standard_normal(picture.shape, np.float32)


def coarse_grid(picture: Picture, rng: np.random.Generator) -> Picture:
    """Sample on a coarser, perhaps anisotropic grid and interpolate back, as thick voxels are shown."""
    size = len(picture)
    columns, rows = (max(int(size / between(rng, 1.1, 3.5)), 8) for _ in range(2))
    small = resample(picture, columns, rows, interpolation=cv2.INTER_AREA)
    way = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[int(rng.choice(3, p=[0.5, 0.35, 0.15]))]
    return resample(small, size, size, interpolation=way)


def display(picture: Picture, rng: np.random.Generator) -> Picture:
    """Apply what happens on the way to a file: gamma, inversion, clipping, burned-in marks, compression.

    Returns:
        [size, size] float32 in [0, 1].
    """
    low, high = np.quantile(picture[::3, ::3], [rng.choice([0, 0.01, 0.05]), rng.choice([1, 0.99, 0.95])])
    if high - low < 0.05 * np.ptp(picture):  # a few bright pixels on a flat ground: clipping would leave nothing
        low, high = picture.min(), picture.max()
    picture = np.clip((picture - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    if rng.random() < 0.5:
        picture = picture ** np.float32(between(rng, 0.5, 2.0))
    if rng.random() < 0.12:
        picture = 1 - picture
    if rng.random() < 0.12:
        picture = _burned_in(picture, rng)
    if rng.random() < 0.15:
        picture = _compressed(picture, quality=int(rng.integers(8, 70)))
    return picture


def _correlated(rng: np.random.Generator, size: int) -> Picture:
    """Draw noise that is correlated over up to a few pixels, with about unit variance."""
    return smooth_noise(rng, size, cells=size / between(rng, 1, 3))


def _columns_behind_objects(labels: NDArray[np.uint8], rng: np.random.Generator) -> Picture:
    """Compute the gain below every object: darker behind what absorbs, brighter behind fluid; plus random shadows."""
    size = len(labels)
    gain = np.ones((size, size), np.float32)
    count = int(labels.max())
    if count and rng.random() < 0.6:
        strengths = rng.normal(rng.choice([-0.6, 0.4]), 0.3, count + 1)
        strengths[0] = 0
        absorbed = np.cumsum(strengths.astype(np.float32)[labels], axis=0) / np.float32(0.2 * size)
        reach = absorbed if rng.random() < 0.5 else absorbed * (labels == 0)
        gain = np.exp(np.clip(reach, -3, 1))
    if rng.random() < 0.4:
        start = rng.uniform(0, 0.5)
        coarse = rng.standard_normal((1, int(rng.integers(4, 20))), np.float32)
        lines = np.clip(resample(coarse, size, 1, interpolation=cv2.INTER_LINEAR), -2, 0)
        ramp = np.clip((np.arange(size, dtype=np.float32) / size - np.float32(start)) * 5, 0, 1)
        gain = gain * np.exp(np.float32(rng.uniform(0.3, 1.2)) * lines * ramp[:, None])
    return blur(gain, size * 0.012)


def _radius(size: int, rng: np.random.Generator) -> Picture:
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = rng.uniform(-0.2, 0.2, 2).astype(np.float32)
    return np.hypot(axis[None, :] - x, axis[:, None] - y)


def _burned_in(picture: Picture, rng: np.random.Generator) -> Picture:
    """Draw letters and crosses over the picture."""
    size = len(picture)
    marks = np.zeros((size, size), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        spot = tuple(int(value) for value in rng.uniform(0, size, 2))
        letters = "".join(rng.choice(list("ABLRT0123456789+x"), rng.integers(1, 6)))
        cv2.putText(marks, letters, spot, cv2.FONT_HERSHEY_SIMPLEX, size / 128 * rng.uniform(0.2, 0.4), 255, 1)
    return np.where(marks > 0, np.float32(rng.choice([0.0, 1.0])), picture)


def _compressed(picture: Picture, *, quality: int) -> Picture:
    """Pass the picture through JPEG."""
    _, stream = cv2.imencode(".jpg", np.round(picture * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(stream, cv2.IMREAD_GRAYSCALE), np.float32) / np.float32(255)
