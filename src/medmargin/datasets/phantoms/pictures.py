"""`random_picture`: generated images with labelled objects, as different from one another as medical images are.

They teach a promptable network to turn a box into an outline without any patient's image: scenes (loose shapes,
mosaics, caricatures of organs) x grey levels and textures x the marks of an imaging device.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.phantoms import anatomy, devices, scenes
from medmargin.datasets.phantoms.appearance import render
from medmargin.datasets.phantoms.canvas import Canvas
from medmargin.datasets.phantoms.noise import Picture
from medmargin.datasets.phantoms.shapes import field_of_view
from medmargin.errors import ConfigError

_Scene = Callable[[np.random.Generator, int], Canvas]

_SCENES: tuple[tuple[_Scene, float, devices.Device], ...] = (
    (scenes.loose_objects, 5.0, devices.plain),
    (scenes.touching_parts, 2.0, devices.plain),
    (scenes.mosaic, 1.0, devices.magnetic_resonance),
    (scenes.cells, 1.2, devices.microscope),
    (scenes.vessels, 0.4, devices.plain),
    (anatomy.heart, 2.0, devices.magnetic_resonance),
    (anatomy.hippocampus, 2.0, devices.magnetic_resonance),
    (anatomy.brain, 1.0, devices.magnetic_resonance),
    (anatomy.chest, 0.7, devices.radiograph),
    (anatomy.abdomen, 1.2, devices.computed_tomography),
    (anatomy.breast, 1.5, devices.ultrasound),
    (anatomy.colon, 1.2, devices.endoscope),
    (anatomy.echo, 0.6, devices.ultrasound),
)
"""Scene, how often it is drawn, and the device that usually looks at it."""

_DEVICES: tuple[devices.Device, ...] = (
    devices.magnetic_resonance, devices.computed_tomography, devices.ultrasound, devices.radiograph,
    devices.microscope, devices.endoscope, devices.plain,
)  # fmt: skip

_WEIGHTS = np.array([weight for _, weight, _ in _SCENES]) / sum(weight for _, weight, _ in _SCENES)
_SMALLEST_SIZE = 32  # pixels: below it no scene fits
_SMALLEST_OBJECT = 12  # pixels at 128 x 128


def random_picture(rng: np.random.Generator, *, size: int = 128) -> tuple[Picture, NDArray[np.uint8]]:
    """Generate one picture with at least one labelled object.

    Args:
        rng: source of every random choice; the same state gives the same picture.
        size: side of the picture in pixels, at least 32.

    Returns:
        picture [size, size] float32 in arbitrary units, and labels [size, size] uint8: 0 background, 1..n the objects.
        The value of a ring leaves out its cavity; where objects overlap the later one wins.

    Raises:
        ConfigError: `size` is below 32.
    """
    if size < _SMALLEST_SIZE:
        raise ConfigError(f"size of a random picture is {size} pixels; expected at least {_SMALLEST_SIZE}")
    while True:
        scene, _, usual_device = _SCENES[rng.choice(len(_SCENES), p=_WEIGHTS)]
        canvas = scene(rng, size)
        canvas.pose(rng, turn=np.pi if rng.random() < 0.3 else 0.3, zoom=1.6, bend=rng.choice([0.0, 0.01, 0.03]))
        if rng.random() < 0.15:
            canvas.paint(1 - field_of_view(rng, size), 0.0)
        labels = _contiguous(canvas.labels, smallest=_SMALLEST_OBJECT * size**2 // 128**2)
        if labels.any():
            break
    device = usual_device if rng.random() < 0.7 else _DEVICES[rng.integers(len(_DEVICES))]
    picture = device(render(canvas, rng, invent_levels=0.15), labels, rng)
    return devices.display(picture, rng), labels


def _contiguous(labels: NDArray[np.uint8], *, smallest: int) -> NDArray[np.uint8]:
    """Number the objects 1..n without gaps; what is smaller than `smallest` pixels becomes background."""
    counts = np.bincount(labels.ravel(), minlength=256)
    kept = np.flatnonzero(counts[1:] >= max(smallest, 1)) + 1
    values = np.zeros(256, np.uint8)
    values[kept] = np.arange(1, len(kept) + 1)
    return values[labels]
