"""Scenes that belong to no particular organ: loose objects, touching parts, mosaics, cells, vessels."""

from __future__ import annotations

import numpy as np

from medmargin.datasets.phantoms.canvas import Canvas
from medmargin.datasets.phantoms.noise import between, smooth_noise
from medmargin.datasets.phantoms.shapes import (
    Mask,
    branches,
    fill,
    level_set,
    outline,
    random_shape,
    stroke,
    tube,
)


def loose_objects(rng: np.random.Generator, size: int) -> Canvas:
    """Scatter one to six labelled objects and a few unlabelled distractors over a mosaic or an empty ground."""
    canvas = Canvas(size, ground=rng.uniform(0, 1))
    if rng.random() < 0.7:
        canvas.mosaic(rng, tissues=int(rng.integers(2, 7)), cells=between(rng, 2, 12))
        squeeze_levels(canvas, rng)
    for _ in range(int(rng.integers(0, 6))):
        mask = random_shape(rng, size, _anywhere(rng, size), size * between(rng, 0.02, 0.3))
        canvas.paint(mask, near_level(rng, canvas, mask))
    for _ in range(int(rng.integers(1, 7))):
        _one_object(canvas, rng)
    return canvas


def touching_parts(rng: np.random.Generator, size: int) -> Canvas:
    """Divide one body into labelled parts of almost the same grey level by a straight cut or a wavy one."""
    canvas = Canvas(size, ground=rng.uniform(0, 1))
    canvas.mosaic(rng, tissues=int(rng.integers(2, 8)), cells=between(rng, 2, 10))
    squeeze_levels(canvas, rng)
    body = random_shape(rng, size, _near_middle(rng, size), size * rng.uniform(0.12, 0.4))
    level, step = near_level(rng, canvas, body), rng.choice([0.0, between(rng, 0.01, 0.3)])
    first = body & cut(rng, body, size)
    canvas.paint(first, level, labelled=True)
    canvas.paint(body & (1 - first), level + step, labelled=rng.random() < 0.8)
    return canvas


def mosaic(rng: np.random.Generator, size: int) -> Canvas:
    """Divide the whole picture into tissues and label half of them."""
    canvas = Canvas(size, ground=0.0)
    canvas.mosaic(rng, tissues=int(rng.integers(3, 14)), cells=between(rng, 2, 9), labelled=0.5)
    squeeze_levels(canvas, rng)
    return canvas


def cells(rng: np.random.Generator, size: int) -> Canvas:
    """Scatter up to sixty nuclei, partly touching, with cytoplasm around some of them."""
    bright = rng.random() < 0.6
    darker, brighter = ((0, 0.15), (0.4, 1)) if bright else ((0, 0.5), (0.7, 1))
    ground, level = (rng.uniform(*span) for span in ((darker, brighter) if bright else (brighter, darker)))
    canvas = Canvas(size, ground=ground)
    if rng.random() < 0.5:
        haze = (smooth_noise(rng, size, cells=between(rng, 3, 12)) > rng.uniform(-0.5, 0.8)).astype(np.uint8)
        canvas.paint(haze, ground + rng.uniform(0.1, 0.5) * (level - ground))
    radius, count = size * between(rng, 0.02, 0.13), int(between(rng, 1, 60))
    has_cytoplasm, roughness, aspect = rng.random() < 0.5, between(rng, 0.02, 0.15), rng.uniform(1, 2.2)
    for _ in range(count):
        centre, own_radius = _anywhere(rng, size), radius * rng.uniform(0.7, 1.4)
        points = outline(rng, roughness=roughness, decay=1.4, aspect=aspect * rng.uniform(0.8, 1.2), vertices=40)
        if has_cytoplasm and rng.random() < 0.3:
            halo = fill(np.asarray(centre) + own_radius * rng.uniform(1.3, 2) * points, size)
            canvas.speck(halo & (canvas.labels == 0), ground + rng.uniform(0.2, 0.7) * (level - ground))
        nucleus = fill(np.asarray(centre) + own_radius * points, size)
        canvas.paint(nucleus, ground + (level - ground) * rng.uniform(0.4, 1.2), labelled=True)
    return canvas


def vessels(rng: np.random.Generator, size: int) -> Canvas:
    """Draw a tree of vessels as one labelled object, on a ground with a bright or dark disc."""
    canvas = Canvas(size, ground=rng.uniform(0.3, 0.7))
    for _ in range(int(rng.integers(0, 4))):
        mask = random_shape(rng, size, _anywhere(rng, size), size * between(rng, 0.04, 0.25))
        canvas.paint(mask, near_level(rng, canvas, mask))
    tree = np.zeros((size, size), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        draw = branches if rng.random() < 0.6 else tube
        tree |= draw(rng, size, _anywhere(rng, size), size * rng.uniform(0.3, 0.8))
    canvas.paint(tree, near_level(rng, canvas, tree), labelled=True)
    return canvas


def near_level(rng: np.random.Generator, canvas: Canvas, mask: Mask) -> float:
    """Choose a grey level that differs from what lies under `mask` by 0.03 to 0.7, to either side."""
    return canvas.level_under(mask) + float(rng.choice([-1, 1])) * between(rng, 0.03, 0.7)


def squeeze_levels(canvas: Canvas, rng: np.random.Generator) -> None:
    """Bring all grey levels closer to their mean by a random factor, so that objects are not the only faint edges."""
    levels = np.asarray(canvas.levels)
    canvas.levels = list(levels.mean() + between(rng, 0.15, 1) * (levels - levels.mean()))


def cut(rng: np.random.Generator, body: Mask, size: int) -> Mask:
    """Draw one side of a line through a random pixel of `body`: along an axis (as the planes in which an anatomist
    divides an organ), in any direction, or wavy."""
    rows, columns = np.nonzero(body)
    pick = int(rng.integers(len(rows))) if len(rows) else 0
    x, y = (float(columns[pick]), float(rows[pick])) if len(rows) else (size / 2, size / 2)
    kind = rng.random()
    angle = float(rng.integers(4)) * np.pi / 2 if kind < 0.6 else rng.uniform(0, 2 * np.pi)
    axis = np.arange(size, dtype=np.float32)
    side = np.cos(angle) * (axis[None, :] - x) + np.sin(angle) * (axis[:, None] - y)
    if kind > 0.8:
        side = side + smooth_noise(rng, size, cells=6) * (0.04 * size)
    return (side > 0).astype(np.uint8)


def _one_object(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint one labelled object; sometimes with a rim, a core of its own label, holes, or a satellite of its label."""
    size, radius = canvas.size, canvas.size * between(rng, 0.03, 0.42)
    mask = random_shape(rng, size, _near_middle(rng, size) if radius > size / 5 else _anywhere(rng, size), radius)
    level = near_level(rng, canvas, mask)
    canvas.paint(mask, level, labelled=True)
    extra = rng.random()
    rows, columns = np.nonzero(mask)
    if extra > 0.45 or len(rows) < 30:
        return
    pick = int(rng.integers(len(rows)))
    core = level_set(rng, size, (float(columns[pick]), float(rows[pick])), max(radius * rng.uniform(0.2, 0.7), 2))
    if extra < 0.15:
        canvas.paint(core, near_level(rng, canvas, core), labelled=True, inside=mask)
    elif extra < 0.35:
        canvas.speck(core & mask, near_level(rng, canvas, core))
    else:
        line = stroke(np.stack([columns[:: len(rows) // 8 + 1], rows[:: len(rows) // 8 + 1]], 1), size, width=1)
        canvas.speck(line & mask, near_level(rng, canvas, line))


def _anywhere(rng: np.random.Generator, size: int) -> tuple[float, float]:
    x, y = rng.uniform(0.02, 0.98, 2) * size
    return float(x), float(y)


def _near_middle(rng: np.random.Generator, size: int) -> tuple[float, float]:
    x, y = (0.5 + rng.uniform(-0.25, 0.25, 2)) * size
    return float(x), float(y)
