"""`Canvas`: a picture as a map of tissues, each with a grey level, some of them labelled objects."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.phantoms.noise import Picture, between, smooth_noise
from medmargin.datasets.phantoms.shapes import Mask, largest_piece

_MOST_TISSUES = 250


class Canvas:
    """Tissues painted over one another; what is painted later covers what was there.

    A canvas holds 250 tissues, so that their numbers fit a byte; what is painted after that is left out.

    Attributes:
        tissue: [size, size] uint8, index into `levels`; 0 is the ground.
        labels: [size, size] uint8, 0 where no object is labelled.
        levels: grey level of every tissue, roughly in [0, 1].
    """

    def __init__(self, size: int, *, ground: float) -> None:
        self.size = size
        self.tissue = np.zeros((size, size), np.uint8)
        self.labels = np.zeros((size, size), np.uint8)
        self.levels: list[float] = [ground]
        self.objects = 0

    def paint(self, mask: Mask, level: float, *, labelled: bool = False, inside: Mask | None = None) -> None:
        """Paint a tissue of its own grey level; a tissue that is not labelled covers the labels below it.

        Args:
            mask: [size, size] 0 and 1.
            level: grey level, roughly in [0, 1].
            labelled: give the region a label value of its own.
            inside: paint only where this mask is 1.
        """
        if len(self.levels) >= _MOST_TISSUES:
            return
        chosen = (mask if inside is None else mask & inside) > 0
        self.levels.append(level)
        self.tissue[chosen] = len(self.levels) - 1
        if labelled:
            self.objects += 1
        self.labels[chosen] = self.objects if labelled else 0

    def speck(self, mask: Mask, level: float) -> None:
        """Paint a tissue that keeps the label it lies in, such as papillary muscles or calcifications."""
        if len(self.levels) < _MOST_TISSUES:
            self.levels.append(level)
            self.tissue[mask > 0] = len(self.levels) - 1

    def level_under(self, mask: Mask) -> float:
        """Compute the mean grey level of what lies under a mask (of the whole canvas for an empty one)."""
        under = self.tissue[mask > 0]
        return float(np.asarray(self.levels)[under if under.size else self.tissue.ravel()].mean())

    def mosaic(
        self,
        rng: np.random.Generator,
        *,
        tissues: int,
        cells: float,
        labelled: float = 0.0,
        inside: Mask | None = None,
    ) -> None:
        """Divide the canvas into touching tissues, each where its own smooth field is the largest.

        Args:
            tissues: number of tissues; cells: coarse cells of their fields along a side.
            labelled: probability of each tissue to hold a labelled object, its largest piece.
            inside: divide only this part of the canvas.
        """
        fields = np.stack([smooth_noise(rng, self.size, cells=cells) for _ in range(tissues)])
        winner = fields.argmax(0)
        for index in range(tissues):
            part, level = (winner == index).astype(np.uint8), rng.uniform(0, 1)
            self.paint(part, level, inside=inside)
            if rng.random() < labelled:
                self.paint(largest_piece(part), level, labelled=True, inside=inside)

    def pose(self, rng: np.random.Generator, *, turn: float, zoom: float, bend: float) -> None:
        """Turn, scale, shift, mirror and bend the canvas; the border is continued.

        Args:
            turn: largest rotation in radians.
            zoom: largest magnification factor (and reduction by its square root).
            bend: standard deviation of the smooth displacement as a fraction of the side.
        """
        size, angle = self.size, rng.uniform(-turn, turn)
        scale = 1 / between(rng, zoom**-0.5, zoom)
        anisotropy = between(rng, 0.85, 1 / 0.85)
        axis = np.arange(size, dtype=np.float32) - np.float32(size / 2)
        x, y = axis[None, :] * np.float32(scale * anisotropy), axis[:, None] * np.float32(scale / anisotropy)
        if rng.random() < 0.5:
            x = -x
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        middle = size / 2 + rng.uniform(-0.06, 0.06, 2) * size
        source_x = cosine * x - sine * y + np.float32(middle[0])
        source_y = sine * x + cosine * y + np.float32(middle[1])
        if bend > 0:
            cells = rng.uniform(2, 5)
            source_x += np.float32(bend * size) * smooth_noise(rng, size, cells=cells)
            source_y += np.float32(bend * size) * smooth_noise(rng, size, cells=cells)
        self.tissue, self.labels = (
            cv2.remap(plane, source_x, source_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)
            for plane in (self.tissue, self.labels)
        )

    def per_tissue(self, values: NDArray) -> Picture:
        """Look up one value per tissue: [number of tissues] -> [size, size] float32."""
        return np.asarray(values, np.float32)[self.tissue]
