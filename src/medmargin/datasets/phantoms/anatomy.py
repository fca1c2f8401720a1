"""Scenes that resemble organs: heart, hippocampus, brain, chest, abdomen, breast, colon, echo chambers.

They are caricatures: enough of the neighbourhood of an organ (what touches it, what has its grey level, what does not)
to teach where its edge is, drawn with random sizes and then bent by `Canvas.pose`. No patient image was used.
"""

from __future__ import annotations

import cv2
import numpy as np

from medmargin.datasets.phantoms.canvas import Canvas
from medmargin.datasets.phantoms.noise import between, fractal_noise, smooth_noise
from medmargin.datasets.phantoms.scenes import cut, near_level
from medmargin.datasets.phantoms.shapes import (
    Mask,
    bent_tube,
    blob,
    ellipse,
    fill,
    lobed,
    outline,
    random_shape,
    smooth_blob,
    spiculated,
    stroke,
    tube,
    tube_outline,
    turn,
)

_ORGANS_OF_THE_ABDOMEN = (
    (0.3, 0.42, 0.24), (0.72, 0.4, 0.12), (0.36, 0.62, 0.09), (0.64, 0.62, 0.09), (0.52, 0.45, 0.08), (0.5, 0.57, 0.04),
)  # fmt: skip
"""Column, row and radius of liver, spleen, kidneys, pancreas and aorta, as fractions of the side."""


def heart(rng: np.random.Generator, size: int) -> Canvas:
    """Draw a short-axis slice: left ventricle in its wall, the right ventricle beside it, in a chest."""
    canvas = Canvas(size, ground=rng.uniform(0, 0.05))
    radius = size * between(rng, 0.07, 0.3)
    x, y = size * (0.5 + rng.uniform(-0.12, 0.12, 2))
    _chest_wall(canvas, rng)
    for _ in range(int(rng.integers(2, 10))):
        place = size * rng.uniform(0.1, 0.9, 2)
        canvas.paint(random_shape(rng, size, place, size * between(rng, 0.02, 0.15)), rng.choice([0.1, 0.35, 0.6, 0.9]))
    pool, muscle = rng.uniform(0.55, 1), rng.uniform(0.15, 0.45)
    wall = outline(rng, roughness=0.04, decay=1.6, aspect=between(rng, 0.8, 1.25))
    thickness = between(rng, 0.1, 0.5)
    centre, side = np.array([x, y]), rng.uniform(-0.8, 0.8) + np.pi
    if rng.random() < 0.85:
        away = np.array([np.cos(side), np.sin(side)]) * radius * rng.uniform(0.7, 1.15)
        right = outline(rng, roughness=0.15, decay=1.4, aspect=between(rng, 0.5, 1))
        right_radius = radius * rng.uniform(0.6, 1.25)
        canvas.paint(fill(centre + away + right_radius * 1.12 * right, size), muscle)
        canvas.paint(fill(centre + away + right_radius * right, size), pool * rng.uniform(0.85, 1.1), labelled=True)
    canvas.paint(fill(centre + radius * wall, size), muscle, labelled=True)
    cavity = fill(centre + radius * (1 - thickness) * wall + radius * thickness * rng.uniform(-0.2, 0.2, 2), size)
    canvas.paint(cavity, pool, labelled=True)
    for _ in range(int(rng.integers(0, 4))):
        angle = rng.uniform(0, 2 * np.pi)
        spot = centre + radius * (1 - thickness) * rng.uniform(0.4, 0.9) * np.array([np.cos(angle), np.sin(angle)])
        canvas.speck(ellipse(rng, size, spot, radius * rng.uniform(0.05, 0.18)) & cavity, muscle)
    return canvas


def hippocampus(rng: np.random.Generator, size: int) -> Canvas:
    """Draw a close crop of the temporal lobe: a bent grey body in two parts, its neighbours and the brain stem."""
    grey, white, fluid = rng.uniform(0.35, 0.55), rng.uniform(0.65, 1), rng.uniform(0.05, 0.3)
    canvas = Canvas(size, ground=rng.choice([grey, white]))
    folds = fractal_noise(rng, size, cells=rng.uniform(2.5, 6), octaves=2, roughness=0.6)
    canvas.paint((folds > rng.uniform(-0.3, 0.5)).astype(np.uint8), white if canvas.levels[0] == grey else grey)
    canvas.paint((folds < rng.uniform(-1.8, -0.9)).astype(np.uint8), fluid)
    length, middle = size * rng.uniform(0.2, 0.42), size * (0.5 + rng.uniform(-0.15, 0.15, 2))
    spine, widths = bent_tube(rng, bend=rng.uniform(-1.6, 1.6), width=rng.uniform(0.22, 0.55))
    spine = turn(spine, np.pi / 2 + rng.uniform(-0.5, 0.5))
    side = np.array([rng.choice([-1, 1]), 0.0])
    stem = size * rng.uniform(0.15, 0.35)
    canvas.paint(blob(rng, size, middle + side * (length * 0.6 + stem), stem), rng.uniform(0.8, 1.1) * white)
    tissues = [white, white, fluid, fluid, grey]
    for widen in (1.6, 1.35, 1.15):
        shell = fill(middle + length * tube_outline(spine, widths * widen) + length * rng.uniform(-0.12, 0.12, 2), size)
        partial = smooth_noise(rng, size, cells=rng.uniform(3, 7)) > rng.uniform(-0.8, 0.8)
        canvas.paint(shell & partial.astype(np.uint8), rng.choice(tissues))
    body = fill(middle + length * tube_outline(spine, widths), size)
    level = grey * rng.uniform(0.85, 1.1)
    if rng.random() < 0.5:
        head = blob(rng, size, middle + length * spine[0] * 1.3, length * rng.uniform(0.25, 0.5))
        canvas.paint(head, grey * rng.uniform(0.92, 1.08))
    ragged = _ragged(rng, body, depth=size * rng.uniform(0.0, 0.04))
    front = cut(rng, body, size)
    canvas.paint(ragged & front, level, labelled=True)
    canvas.paint(ragged & (1 - front), level * rng.uniform(0.95, 1.05), labelled=True)
    for _ in range(int(rng.integers(0, 5))):
        thin = tube(rng, size, tuple(middle + length * rng.uniform(-1, 1, 2)), length * rng.uniform(0.2, 0.5))
        canvas.speck(thin, rng.choice([fluid, white, grey]))
    return canvas


def brain(rng: np.random.Generator, size: int) -> Canvas:
    """Draw a slice of the head: scalp, skull, folded grey and white matter, ventricles, nuclei and a lesion."""
    canvas = Canvas(size, ground=rng.uniform(0, 0.05))
    grey, white, fluid = rng.permutation([rng.uniform(0.4, 0.55), rng.uniform(0.6, 0.85), rng.uniform(0.05, 0.3)])
    middle, radius = (size / 2, size / 2), size * rng.uniform(0.36, 0.46)
    head = outline(rng, roughness=0.03, decay=1.6, aspect=between(rng, 0.75, 1.3))
    for scale, level in ((1.0, rng.uniform(0.5, 1)), (0.93, rng.uniform(0, 0.3)), (0.88, fluid)):
        canvas.paint(fill(middle + radius * scale * head, size), level)
    inner = fill(middle + radius * 0.86 * head, size)
    folds = fractal_noise(rng, size, cells=rng.uniform(5, 9), octaves=2, roughness=0.7)
    depth = _distance_like(inner, reach=size * 0.16)
    whole = rng.random() < 0.4
    canvas.paint(inner & (depth + 0.35 * folds > -0.75).astype(np.uint8), grey, labelled=rng.random() < 0.3)
    canvas.paint(inner & (depth + 0.6 * folds > 0.0).astype(np.uint8), white, labelled=whole)
    for sign in (-1, 1):
        place = (size * (0.5 + sign * rng.uniform(0.03, 0.09)), size * rng.uniform(0.42, 0.58))
        horn = blob(rng, size, place, size * rng.uniform(0.04, 0.11))
        canvas.paint(horn, fluid, labelled=rng.random() < 0.6)
        nucleus = (place[0] + sign * size * rng.uniform(0.06, 0.14), place[1] + size * rng.uniform(-0.05, 0.08))
        canvas.paint(ellipse(rng, size, nucleus, size * rng.uniform(0.03, 0.08)), grey, labelled=rng.random() < 0.6)
    if rng.random() < 0.5:
        lesion = random_shape(rng, size, tuple(size * rng.uniform(0.3, 0.7, 2)), size * between(rng, 0.04, 0.18))
        canvas.paint(lesion, near_level(rng, canvas, lesion), labelled=True, inside=inner)
    return canvas


def chest(rng: np.random.Generator, size: int) -> Canvas:
    """Draw a frontal chest: two lungs, the heart over them, diaphragm, shoulders, sometimes a nodule."""
    canvas = Canvas(size, ground=rng.uniform(0.55, 0.8))
    lung, soft = rng.uniform(0.05, 0.4), rng.uniform(0.6, 1)
    for sign in (-1, 1):
        place = np.array([size * (0.5 + sign * rng.uniform(0.17, 0.24)), size * rng.uniform(0.42, 0.55)])
        form = outline(rng, roughness=0.12, decay=1.6, aspect=1.0)
        narrow, tall = size * rng.uniform(0.11, 0.19), size * rng.uniform(0.22, 0.38)
        canvas.paint(fill(place + form * (narrow, tall), size), lung * rng.uniform(0.9, 1.3), labelled=True)
    mediastinum = outline(rng, roughness=0.08, decay=1.5) * (0.07, 0.42) + (0.5, 0.45)
    middle = fill(size * mediastinum, size)
    canvas.speck(middle & (canvas.labels == 0), soft)
    centre = (size * rng.uniform(0.5, 0.6), size * rng.uniform(0.52, 0.66))
    canvas.paint(blob(rng, size, centre, size * rng.uniform(0.12, 0.2)), soft, labelled=rng.random() < 0.8)
    for _ in range(int(rng.integers(0, 3))):
        nodule = random_shape(rng, size, tuple(size * rng.uniform(0.2, 0.8, 2)), size * between(rng, 0.02, 0.09))
        canvas.paint(nodule, near_level(rng, canvas, nodule), labelled=True)
    return canvas


def abdomen(rng: np.random.Generator, size: int) -> Canvas:
    """Draw an axial slice of the trunk: large and small organs, spine, vessels, bowel and a lesion in an organ."""
    canvas = Canvas(size, ground=rng.uniform(0, 0.05))
    fat, soft = rng.uniform(0.25, 0.4), rng.uniform(0.45, 0.6)
    middle, radius = (size / 2, size / 2), size * rng.uniform(0.38, 0.5)
    trunk = outline(rng, roughness=0.04, decay=1.6)
    trunk = trunk * (1.15, 0.85)
    for scale, level in ((1.0, fat), (rng.uniform(0.8, 0.95), soft), (rng.uniform(0.7, 0.85), fat)):
        canvas.paint(fill(middle + radius * scale * trunk, size), level)
    inner = fill(middle + radius * 0.85 * trunk, size)
    for _ in range(int(rng.integers(3, 10))):
        loop = ellipse(rng, size, tuple(size * rng.uniform(0.25, 0.75, 2)), size * between(rng, 0.02, 0.08))
        canvas.paint(loop, rng.choice([soft, 0.05, 0.8, soft * 1.1]), inside=inner)
    canvas.paint(lobed(rng, size, (size * 0.5, size * 0.7), size * rng.uniform(0.05, 0.1)), rng.uniform(0.8, 1.1))
    for column, row, extent in _ORGANS_OF_THE_ABDOMEN:
        if rng.random() < 0.25:
            continue
        organ = random_shape(rng, size, (column * size, row * size), extent * size * rng.uniform(0.7, 1.3))
        level = soft + rng.uniform(-0.06, 0.3) * rng.choice([0.3, 1])
        canvas.paint(organ, level, labelled=rng.random() < 0.75, inside=inner)
        if rng.random() < 0.25 and organ.any():
            tumour = random_shape(rng, size, (column * size, row * size), extent * size * rng.uniform(0.15, 0.5))
            canvas.paint(tumour, near_level(rng, canvas, tumour), labelled=True, inside=organ)
    return canvas


def breast(rng: np.random.Generator, size: int) -> Canvas:
    """Draw layers of skin, fat, gland and muscle with one or two dark lesions, as in breast or thyroid ultrasound."""
    canvas = Canvas(size, ground=rng.uniform(0.3, 0.6))
    depth = np.arange(size, dtype=np.float32)[:, None] / size + np.zeros((1, size), np.float32)
    depth += 0.05 * smooth_noise(rng, size, cells=5, stretch=0.3)
    for start in np.sort(rng.uniform(0.05, 0.95, rng.integers(2, 6))):
        canvas.paint((depth > start).astype(np.uint8), rng.uniform(0.2, 0.75))
    for _ in range(int(rng.integers(0, 8))):
        sheet = size * np.stack([np.linspace(0, 1, 12), rng.uniform(0, 1) + 0.03 * rng.standard_normal(12).cumsum()], 1)
        canvas.speck(stroke(sheet, size, width=size * between(rng, 0.008, 0.03)), rng.uniform(0.5, 1))
    for _ in range(1 if rng.random() < 0.75 else 2):
        place = (size * rng.uniform(0.2, 0.8), size * rng.uniform(0.2, 0.7))
        draw = (smooth_blob, smooth_blob, smooth_blob, ellipse, blob, spiculated, lobed)[int(rng.integers(7))]
        mask = draw(rng, size, place, size * between(rng, 0.06, 0.3))
        canvas.paint(mask, canvas.level_under(mask) * rng.uniform(0.05, 0.85), labelled=True)
        if rng.random() < 0.4:
            spots = (smooth_noise(rng, size, cells=size / 6) > 1.5).astype(np.uint8)
            canvas.speck(spots & mask, rng.uniform(0.3, 0.8))
    return canvas


def colon(rng: np.random.Generator, size: int) -> Canvas:
    """Draw folds of mucosa around a dark lumen with one to three protruding polyps of nearly the same colour."""
    mucosa = rng.uniform(0.4, 0.7)
    canvas = Canvas(size, ground=mucosa)
    for _ in range(int(rng.integers(2, 8))):
        fold = random_shape(rng, size, tuple(size * rng.uniform(0, 1, 2)), size * rng.uniform(0.15, 0.5))
        canvas.paint(fold, mucosa * rng.uniform(0.8, 1.15))
    if rng.random() < 0.6:
        canvas.paint(blob(rng, size, tuple(size * rng.uniform(0.2, 0.8, 2)), size * between(rng, 0.05, 0.25)), 0.05)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        draw = (ellipse, smooth_blob, smooth_blob, smooth_blob, blob, lobed)[int(rng.integers(6))]
        mask = draw(rng, size, tuple(size * rng.uniform(0.25, 0.75, 2)), size * between(rng, 0.08, 0.38))
        canvas.paint(mask, mucosa * rng.uniform(0.85, 1.25), labelled=True)
    return canvas


def echo(rng: np.random.Generator, size: int) -> Canvas:
    """Draw long chambers with a wall of medium brightness, as in echocardiography."""
    canvas = Canvas(size, ground=rng.uniform(0.25, 0.5))
    for _ in range(int(rng.integers(1, 4))):
        place, radius = size * rng.uniform(0.3, 0.7, 2), size * rng.uniform(0.1, 0.28)
        form = turn(outline(rng, roughness=0.08, decay=1.5, aspect=between(rng, 1, 2)), rng.uniform(0, np.pi))
        wall = fill(place + radius * rng.uniform(1.15, 1.6) * form, size)
        canvas.paint(wall, rng.uniform(0.4, 0.9), labelled=rng.random() < 0.5)
        canvas.paint(fill(place + radius * form, size), rng.uniform(0.02, 0.25), labelled=True)
    return canvas


def _chest_wall(canvas: Canvas, rng: np.random.Generator) -> None:
    size = canvas.size
    middle, radius = (size / 2, size / 2), size * rng.uniform(0.42, 0.75)
    trunk = outline(rng, roughness=0.05, decay=1.6, aspect=between(rng, 0.8, 1.4))
    rim = rng.uniform(0.04, 0.14)
    fat, muscle, lung = rng.uniform(0.6, 1.1), rng.uniform(0.2, 0.45), rng.uniform(0.02, 0.3)
    for scale, level in ((1.0, fat), (1 - rim, muscle), (1 - 2 * rim, lung)):
        canvas.paint(fill(middle + radius * scale * trunk, size), level)
    if rng.random() < 0.6:
        inner = fill(middle + radius * (1 - 2 * rim) * trunk, size)
        canvas.mosaic(rng, tissues=4, cells=rng.uniform(3, 6), inside=inner)


def _ragged(rng: np.random.Generator, mask: Mask, *, depth: float) -> Mask:
    """Displace the border of a mask by a random field of about `depth` pixels, as a hurried annotator would."""
    field = np.clip(smooth_noise(rng, len(mask), cells=rng.uniform(8, 24)), -1.5, 1.5)
    return (_distance_like(mask, reach=3 * depth + 1) * np.float32(3 * depth + 1) + depth * field > 0).astype(np.uint8)


def _distance_like(mask: Mask, *, reach: float = 3.0) -> np.ndarray:
    """Compute a field that falls from +1 deep inside the mask to -1 outside, over about `reach` pixels."""
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
    return np.clip((inside - outside) / np.float32(reach), -1, 1)
