"""From a map of tissues to grey values: textures, gradients, rims, and edges of random sharpness."""

from __future__ import annotations

import cv2
import numpy as np

from medmargin.datasets.phantoms.canvas import Canvas
from medmargin.datasets.phantoms.noise import Picture, between, blur, fractal_noise, resample, smooth_noise, stripes


def render(canvas: Canvas, rng: np.random.Generator, *, invent_levels: float) -> Picture:
    """Give every tissue its grey value and texture, then soften the edges.

    Args:
        canvas: tissues with grey levels.
        rng: source of every random choice.
        invent_levels: probability to replace the scene's grey levels by random ones: any contrast, either sign.

    Returns:
        [size, size] float32, roughly in [0, 1].
    """
    levels = np.asarray(canvas.levels, np.float32)
    if rng.random() < invent_levels:
        levels = rng.uniform(0, 1, len(levels)).astype(np.float32)
    contrast = between(rng, 0.4, 1.0)
    levels = levels.mean() + contrast * (levels - levels.mean())
    picture = canvas.per_tissue(levels)
    if rng.random() < 0.5:
        picture = picture + _gradients(canvas, rng) * np.float32(contrast)
    if rng.random() < 0.2:
        picture = picture + _rims(canvas, rng) * np.float32(contrast)
    picture = fade_edges(soften(picture, rng), rng)
    return picture + _textures(canvas, rng) * np.float32(contrast)


def soften(picture: Picture, rng: np.random.Generator) -> Picture:
    """Blur edges as partial volume does: one width everywhere, or sharp in one place and soft in another."""
    width = between(rng, 0.4, 2.5) * picture.shape[0] / 128
    sharp = blur(picture, width)
    if rng.random() < 0.6:
        return sharp
    soft = blur(picture, width * rng.uniform(2, 4))
    weight = np.clip(smooth_noise(rng, len(picture), cells=rng.uniform(2, 5)) + np.float32(0.3), 0, 1)
    return sharp + weight * (soft - sharp)


def fade_edges(picture: Picture, rng: np.random.Generator) -> Picture:
    """Let contrast vanish in places: parts of a boundary that nobody can see."""
    if rng.random() < 0.6:
        return picture
    size = len(picture)
    coarse = resample(picture, 12, 12, interpolation=cv2.INTER_AREA)
    blurred = resample(coarse, size, size, interpolation=cv2.INTER_LINEAR)
    weight = smooth_noise(rng, size, cells=rng.uniform(2, 7)) - np.float32(rng.uniform(0.0, 1.2))
    return picture + np.clip(2 * weight, 0, rng.uniform(0.6, 1)).astype(np.float32) * (blurred - picture)


def _textures(canvas: Canvas, rng: np.random.Generator) -> Picture:
    """Mix one to three fields, each with its own strength in every tissue; some tissues stay flat."""
    size, tissues = canvas.size, len(canvas.levels)
    total = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        kind = rng.random()
        if kind < 0.5:
            field = smooth_noise(rng, size, cells=between(rng, 4, size), stretch=between(rng, 0.3, 3))
        elif kind < 0.85:
            field = fractal_noise(rng, size, cells=between(rng, 2, 12), octaves=4, roughness=rng.uniform(0.5, 0.9))
        else:
            field = stripes(rng, size, period=between(rng, 3, size / 4), waviness=rng.uniform(0, 0.6))
        strength = between(rng, 0.004, 0.12) * rng.gamma(1.0, 1.0, tissues) * (rng.random(tissues) < 0.8)
        total += field * canvas.per_tissue(strength)
    return total


def _gradients(canvas: Canvas, rng: np.random.Generator) -> Picture:
    """Let the grey level drift across each tissue, in a direction of its own."""
    size, tissues = canvas.size, len(canvas.levels)
    ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    strength = between(rng, 0.05, 0.6)
    across = canvas.per_tissue(rng.normal(0, strength, tissues))
    return across * ramp[None, :] + canvas.per_tissue(rng.normal(0, strength, tissues)) * ramp[:, None]


def _rims(canvas: Canvas, rng: np.random.Generator) -> Picture:
    """Draw a bright or dark line along some borders: capsules, membranes, chemical shift."""
    kernel = np.ones((3, 3), np.uint8)
    border = (cv2.dilate(canvas.tissue, kernel) != cv2.erode(canvas.tissue, kernel)).astype(np.float32)
    if rng.random() < 0.5:
        border *= (smooth_noise(rng, canvas.size, cells=5) > 0).astype(np.float32)
    return border * np.float32(rng.choice([-1, 1]) * between(rng, 0.05, 0.5))
