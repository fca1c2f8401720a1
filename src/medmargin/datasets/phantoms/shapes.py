"""Outlines of single objects, from smooth ellipses to spiculated blobs, rings, crescents and branching tubes.

Every shape is a mask [size, size] uint8 of 0 and 1, drawn around a centre (x, y) with a typical radius, all in pixels;
parts outside the canvas are cut off, as organs at the border of an image are.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.phantoms.noise import between, smooth_noise

Mask = NDArray[np.uint8]
Points = NDArray[np.float64]  # [N, 2] (x, y) in pixels
Centre = tuple[float, float] | NDArray[np.float64]  # (x, y) in pixels

_SUBPIXEL_BITS = 4


def fill(points: Points, size: int) -> Mask:
    """Fill the polygon `points` [N, 2] on an empty canvas."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [_fixed_point(points)], 1, shift=_SUBPIXEL_BITS)
    return mask


def stroke(points: Points, size: int, *, width: float) -> Mask:
    """Draw an open line of `width` pixels along `points` [N, 2]."""
    mask = np.zeros((size, size), np.uint8)
    cv2.polylines(mask, [_fixed_point(points)], False, 1, thickness=max(round(width), 1), shift=_SUBPIXEL_BITS)
    return mask


def outline(
    rng: np.random.Generator, *, roughness: float, decay: float, aspect: float = 1.0, vertices: int = 120
) -> Points:
    """Draw a star-shaped outline of unit radius with random Fourier coefficients.

    r(t) = 1 + roughness * sum_k k^-decay * n_k(t) over the harmonics k = 2..12, then stretched by `aspect` and turned.

    Returns:
        [vertices, 2] points around the origin.
    """
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    harmonics = np.arange(2, 13)
    weights = rng.standard_normal((2, len(harmonics))) * harmonics**-decay
    waves = np.outer(harmonics, angle)
    radius = 1 + roughness * (weights[0] @ np.cos(waves) + weights[1] @ np.sin(waves))
    radius = np.maximum(radius, 0.15)
    x, y = radius * np.cos(angle) * aspect**0.5, radius * np.sin(angle) / aspect**0.5
    return turn(np.stack([x, y], 1), rng.uniform(0, 2 * np.pi))


def turn(points: Points, angle: float) -> Points:
    """Turn points [N, 2] around the origin by `angle` radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def ellipse(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Draw a plain ellipse with an axis ratio of up to 3."""
    return fill(centre + radius * outline(rng, roughness=0.0, decay=1.0, aspect=between(rng, 0.35, 2.8)), size)


def blob(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Draw a star-shaped blob, from nearly round to strongly indented."""
    points = outline(
        rng, roughness=between(rng, 0.05, 0.8), decay=rng.uniform(0.8, 2.2), aspect=between(rng, 0.45, 2.2)
    )
    return fill(centre + radius * points, size)


def smooth_blob(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Draw a slightly dented ellipse, as most lesions, polyps and nuclei are."""
    points = outline(rng, roughness=between(rng, 0.02, 0.2), decay=rng.uniform(1.4, 2.2), aspect=between(rng, 0.4, 2.5))
    return fill(centre + radius * points, size)


def spiculated(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Draw a blob with thin spikes, like an invasive tumour."""
    points = outline(rng, roughness=between(rng, 0.1, 0.4), decay=1.5, aspect=between(rng, 0.6, 1.7))
    spikes = np.maximum(np.convolve(rng.standard_normal(len(points)), [0.5, 1.0, 0.5], "same"), 0) ** 2
    return fill(centre + radius * points * (1 + rng.uniform(0.05, 0.2) * spikes[:, None]), size)


def superellipse(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Draw |x/a|^p + |y/b|^p = 1: a diamond, a pillow or nearly a rectangle."""
    angle, power, aspect = np.linspace(0, 2 * np.pi, 90, endpoint=False), between(rng, 0.8, 5), between(rng, 0.4, 2.5)
    cosine, sine = np.cos(angle), np.sin(angle)
    x = np.sign(cosine) * np.abs(cosine) ** (2 / power) * aspect**0.5
    y = np.sign(sine) * np.abs(sine) ** (2 / power) / aspect**0.5
    angle_of_axes = 0.0 if rng.random() < 0.3 else rng.uniform(0, np.pi)
    return fill(centre + radius * turn(np.stack([x, y], 1), angle_of_axes), size)


def polygon(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Draw an irregular polygon whose corners are cut round (Chaikin's corner cutting)."""
    corners = int(rng.integers(3, 9))
    angle = np.sort((np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * 2 * np.pi / corners)
    points = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.6, 1.3, (corners, 1))
    for _ in range(int(rng.integers(0, 4))):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1).reshape(-1, 2)
    return fill(centre + radius * turn(points, rng.uniform(0, 2 * np.pi)), size)


def lobed(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Draw the union of three to seven overlapping lobes."""
    mask = np.zeros((size, size), np.uint8)
    for angle in rng.uniform(0, 2 * np.pi, rng.integers(3, 8)):
        offset = radius * rng.uniform(0.3, 0.7) * np.array([np.cos(angle), np.sin(angle)])
        lobe = outline(rng, roughness=0.1, decay=1.5, aspect=between(rng, 0.6, 1.7), vertices=48)
        mask |= fill(centre + offset + radius * rng.uniform(0.3, 0.65) * lobe, size)
    return mask


def level_set(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Threshold smooth noise inside a soft disc and keep the largest piece."""
    x = np.arange(size, dtype=np.float32)
    distance = ((x[None, :] - centre[0]) ** 2 + (x[:, None] - centre[1]) ** 2) / radius**2
    noise = smooth_noise(rng, size, cells=rng.uniform(1.0, 3.5) * size / (2 * radius))
    return largest_piece((rng.uniform(0.2, 0.9) * noise + 0.7 - distance > 0).astype(np.uint8))


def crescent(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Cut a shifted disc out of a blob: a sickle or half-moon."""
    body = outline(rng, roughness=0.12, decay=1.5, aspect=between(rng, 0.7, 1.5))
    angle, shift = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.9) * radius
    bite = outline(rng, roughness=0.08, decay=1.5, aspect=between(rng, 0.8, 1.25)) * rng.uniform(0.7, 1.1)
    offset = np.array([np.cos(angle), np.sin(angle)]) * shift
    return fill(centre + radius * body, size) & (1 - fill(centre + offset + radius * bite, size))


def ring(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Draw a wall around a cavity, closed or with a gap; the cavity does not belong to the object."""
    body = outline(rng, roughness=between(rng, 0.03, 0.25), decay=1.5, aspect=between(rng, 0.7, 1.4))
    hole = body * rng.uniform(0.4, 0.85) + rng.uniform(-0.1, 0.1, 2)
    mask = fill(centre + radius * body, size) & (1 - fill(centre + radius * hole, size))
    if rng.random() < 0.35:
        gap = rng.uniform(0, 2 * np.pi) + np.array([0.0, rng.uniform(0.3, 2.2)])
        wedge = np.concatenate([[[0.0, 0.0]], 3 * np.stack([np.cos(gap), np.sin(gap)], 1)])
        mask &= 1 - fill(centre + radius * wedge, size)
    return mask


def banana(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Draw a bent tube that is thicker at one end, like a hippocampus or a pancreas."""
    spine, widths = bent_tube(rng, bend=rng.uniform(-1.8, 1.8), width=between(rng, 0.18, 0.5))
    return fill(centre + radius * turn(tube_outline(spine, widths), rng.uniform(0, 2 * np.pi)), size)


def tube(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Draw a thin winding tube."""
    spine = _winding(rng, steps=24, turn_per_step=rng.uniform(0.05, 0.35))
    return stroke(centre + radius * spine, size, width=max(radius * rng.uniform(0.06, 0.3), 1.5))


def branches(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Draw a small tree of tubes that thin out, like vessels or airways."""
    mask = np.zeros((size, size), np.uint8)
    trunk, width = centre + radius * _winding(rng, steps=24, turn_per_step=0.12), radius * rng.uniform(0.08, 0.25)
    mask |= stroke(trunk, size, width=max(width, 2))
    for _ in range(int(rng.integers(2, 6))):
        start = trunk[rng.integers(len(trunk))]
        twig = radius * rng.uniform(0.3, 0.8) * _winding(rng, steps=16, turn_per_step=0.15)
        mask |= stroke(start + twig - twig[0], size, width=max(width * rng.uniform(0.4, 0.8), 1))
    return mask


def bent_tube(rng: np.random.Generator, *, bend: float, width: float) -> tuple[Points, NDArray[np.float64]]:
    """Compute the centre line of a tube of length 2 that turns by `bend` radians, and its half width along the line.

    Returns:
        spine [40, 2] around the origin; half widths [40], zero at both ends.
    """
    along = np.linspace(-1, 1, 40)
    heading = along * bend / 2
    spine = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0) * (2 / len(along))
    taper = (1 - along**2) ** rng.uniform(0.3, 0.6) * (1 + rng.uniform(-0.6, 0.6) * along)
    return spine - spine.mean(0), width * taper * (1 + 0.12 * np.sin(along * rng.uniform(2, 9) + rng.uniform(0, 6)))


def tube_outline(spine: Points, half_widths: NDArray[np.float64]) -> Points:
    """Walk around a tube: the points at its half width on both sides of `spine` [N, 2] -> [2 N, 2]."""
    along = np.gradient(spine, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True)
    left, right = spine + normal * half_widths[:, None], spine - normal * half_widths[:, None]
    return np.concatenate([left, right[::-1]])


def field_of_view(rng: np.random.Generator, size: int) -> Mask:
    """Draw what a device sees: the fan of a curved probe, a disc, an octagon, or all but a black bar."""
    kind = rng.integers(4)
    if kind == 0:
        apex, half = np.array([size * rng.uniform(0.45, 0.55), -size * rng.uniform(0.05, 0.6)]), rng.uniform(0.35, 0.8)
        angle = np.linspace(-half, half, 24)
        arc = apex + size * rng.uniform(1.15, 1.6) * np.stack([np.sin(angle), np.cos(angle)], 1)
        return fill(np.concatenate([apex[None], arc]), size)
    if kind == 3:
        bar = np.ones((size, size), np.uint8)
        np.rot90(bar, int(rng.integers(4)))[: int(size * rng.uniform(0.03, 0.3))] = 0
        return bar
    angle = np.linspace(0, 2 * np.pi, 64 if kind == 1 else 8, endpoint=False) + np.pi / 8
    disc = np.stack([np.cos(angle), np.sin(angle)], 1) * size * rng.uniform(0.46, 0.62, 2)
    return fill(size * rng.uniform(0.45, 0.55, 2) + disc, size)


def largest_piece(mask: Mask) -> Mask:
    """Keep the largest connected piece of a mask; an empty mask stays empty."""
    count, pieces, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count <= 2:
        return mask
    return (pieces == 1 + int(facts[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)


Shape = Callable[[np.random.Generator, int, Centre, float], Mask]

SHAPES: dict[Shape, float] = {
    ellipse: 2.0, smooth_blob: 4.0, blob: 3.0, spiculated: 1.0, superellipse: 1.0, polygon: 1.0, lobed: 1.5,
    level_set: 2.0, crescent: 1.2, ring: 2.0, banana: 2.0, tube: 0.7, branches: 0.4,
}  # fmt: skip
"""Every shape and how often `random_shape` draws it."""

_CHOICES, _PROBABILITIES = list(SHAPES), np.array(list(SHAPES.values())) / sum(SHAPES.values())


def random_shape(rng: np.random.Generator, size: int, centre: Centre, radius: float) -> Mask:
    """Draw one of `SHAPES`."""
    return _CHOICES[rng.choice(len(_CHOICES), p=_PROBABILITIES)](rng, size, centre, radius)


def _winding(rng: np.random.Generator, *, steps: int, turn_per_step: float) -> Points:
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.standard_normal(steps)) * turn_per_step
    line = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0) * (2 / steps)
    return line - line.mean(0)


def _fixed_point(points: Points) -> NDArray[np.int32]:
    return np.round(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)
