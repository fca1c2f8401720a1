"""Augmentation of 2-D pictures with their labels: where things lie (`moved`) and how they look (`shaded`).

Every part is a switch; the defaults are LiteMedSAM's (flips only). All randomness comes from the generator passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from medmargin.errors import ConfigError


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a picture; 0 and False switch a part off.

    Attributes:
        flips: mirror left-right and up-down, each with probability 0.5.
        turns: turn by 0, 90, 180 or 270 degrees.
        rotation: turn by up to this many degrees either way.
        zoom: enlarge by a factor between 1 / (1 + zoom) and 1 + zoom.
        gamma: raise grey levels to a power between 1 / (1 + gamma) and 1 + gamma.
        contrast: stretch about the mean by a factor between 1 - contrast and 1 + contrast.
        brightness: add up to this much either way, of a range of 1.
        noise: largest standard deviation of Gaussian noise, of a range of 1.
        blur: largest standard deviation of Gaussian blur in pixels.
        alternating: flips and turns in one half of the cases, rotation and zoom in the other (SAMed's rule), instead
            of all of them in every case.

    Raises:
        ConfigError: an amplitude is negative, or contrast reaches 1.
    """

    flips: bool = True
    turns: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    alternating: bool = False

    def __post_init__(self) -> None:
        for name in ("rotation", "zoom", "gamma", "contrast", "brightness", "noise", "blur"):
            if getattr(self, name) < 0:
                raise ConfigError(f"augmentation {name} is {getattr(self, name)}: expected 0 (off) or more.")
        if self.contrast >= 1:
            raise ConfigError(f"augmentation contrast is {self.contrast}: expected less than 1.")

    def moved(self, picture: NDArray, labels: NDArray, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        """Move picture and labels alike.

        Args:
            picture: [H, W] or [H, W, C], any dtype OpenCV resamples; labels: [H, W], bool, uint8, uint16 or int16.
            rng: source of the random choices.

        Returns:
            picture (bilinear) and labels (nearest) of the same dtypes; a quarter turn swaps H and W. What enters from
            outside the picture is 0.
        """
        rigid = bool(self.alternating and rng.random() < 0.5)
        free = self.alternating and not rigid
        if self.flips and not free:
            for axis in (0, 1):
                if rng.random() < 0.5:
                    picture, labels = np.flip(picture, axis), np.flip(labels, axis)
        if self.turns and not free:
            turns = int(rng.integers(4))
            picture, labels = np.rot90(picture, turns), np.rot90(labels, turns)
        if (self.rotation or self.zoom) and not rigid:
            degrees = float(rng.uniform(-self.rotation, self.rotation))
            return _warped(picture, labels, degrees, _ratio(rng, self.zoom))
        return np.ascontiguousarray(picture), np.ascontiguousarray(labels)

    def shaded(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Change grey levels, all channels alike.

        Args:
            image: [H, W] or [H, W, C] float32 in [0, 1].
            rng: source of the random choices.

        Returns:
            the same shape, float32 in [0, 1].
        """
        if self.gamma:
            image = image ** np.float32(_ratio(rng, self.gamma))
        if self.contrast:
            mean = image.mean(dtype=np.float32)
            image = mean + (image - mean) * np.float32(1 + rng.uniform(-self.contrast, self.contrast))
        if self.brightness:
            image = image + np.float32(rng.uniform(-self.brightness, self.brightness))
        if self.blur:
            deviation = float(rng.uniform(0, self.blur))
            if deviation > 0.1:  # narrower than a pixel's neighbourhood: nothing to do
                image = cv2.GaussianBlur(image, (0, 0), deviation).astype(np.float32, copy=False)
        if self.noise:
            grain = rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(rng.uniform(0, self.noise))
            image = image + (grain if image.ndim == 2 else grain[..., None])
        return np.clip(image, 0, 1).astype(np.float32, copy=False)


def _ratio(rng: np.random.Generator, amount: float) -> float:
    """Draw a factor whose logarithm is uniform between -log(1 + amount) and log(1 + amount)."""
    return float(np.exp(rng.uniform(-1, 1) * np.log1p(amount)))


def _warped(picture: NDArray, labels: NDArray, degrees: float, zoom: float) -> tuple[NDArray, NDArray]:
    """Turn about the centre and enlarge; the size of the picture stays."""
    height, width = labels.shape
    values = np.ascontiguousarray(labels.astype(np.uint8) if labels.dtype == bool else labels)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, zoom)
    return (
        cv2.warpAffine(np.ascontiguousarray(picture), matrix, (width, height), flags=cv2.INTER_LINEAR),
        cv2.warpAffine(values, matrix, (width, height), flags=cv2.INTER_NEAREST).astype(labels.dtype, copy=False),
    )
