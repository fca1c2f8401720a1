"""Augmentation of patches of volumes: where things lie (`moved`) and how they look (`shaded`). No torch here.

The parts, their order and their probabilities are nnU-Net 2's (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z,
supplementary note 4, with the values of its version 2). Turning, scaling and bending are one linear resampling, nearest
for labels. Pictures are patches of depth 1.

Deviations: labels are resampled nearest, not as the class whose linear map is largest; mirrors come before the grey
levels change, which is the same; what enters from outside the image is -1 in the label (it does not count), where
nnU-Net 2 calls it background; voxels outside a normalisation mask are not set back to 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import ConfigError
from medmargin.transforms.patch_resampling import upsampled, warped

OUTSIDE = -1
"""Label of voxels outside the image: they count nowhere."""
_CHANNEL_SHARE = 0.5  # probability of each channel to be blurred or coarsened, once the patch is
_SEEN = 0.85  # the patch is enlarged for this scaling, whatever may be drawn; nnU-Net's compromise
_ELONGATED = 1.5  # pictures longer than this many times their width are turned a little only
_ELONGATED_DEGREES = 15.0


class Chance(NamedTuple):
    """Something happens with a probability, by an amount drawn uniformly between two limits."""

    probability: float
    low: float
    high: float

    def happens(self, rng: np.random.Generator) -> bool:
        """Draw whether it happens; no random number is spent on what never does."""
        return self.probability > 0 and rng.random() < self.probability

    def amount(self, rng: np.random.Generator) -> float:
        """Draw an amount."""
        return float(rng.uniform(self.low, self.high))

    def factor(self, rng: np.random.Generator) -> np.float32:
        """Draw a factor: below 1 as often as above, uniformly on either side."""
        is_below = rng.random() < 0.5 and self.low < 1
        return np.float32(rng.uniform(self.low, 1) if is_below else rng.uniform(max(self.low, 1), self.high))


OFF = Chance(0.0, 1.0, 1.0)


@dataclass(frozen=True)
class VolumeAugmentation:
    """What may happen to a patch; everything is off by default.

    Attributes:
        rotation: degrees about each axis.
        in_plane_degrees: largest turn either way of patches that are turned within their slices only.
        in_plane_only: turn, scale, bend and coarsen within slices; set by `for_patch`.
        scaling: extent that is seen, relative to the patch: above 1 things become smaller. All axes alike.
        bending: largest displacement, as a share of the patch along each axis; it is smooth over `smoothness`.
        smoothness: standard deviation of the blur of displacements, as a share of the patch along each axis.
        noise: standard deviation of Gaussian noise, the same in all channels.
        blur: standard deviation of Gaussian blur in voxels, drawn per axis. Half of the channels are blurred.
        brightness: factor of the values. contrast: factor of their distance to the mean, kept within their range.
        coarseness: resolution that is left, relative to the patch's. Half of the channels are coarsened.
        inverted_gamma, gamma: power of the values, scaled to [0, 1] from above and from below; mean and deviation stay.
        mirrors: each axis with probability 0.5.

    Raises:
        ConfigError: a probability outside [0, 1], limits in the wrong order, or a limit that must be positive.
    """

    rotation: Chance = OFF
    in_plane_degrees: float = 180.0
    in_plane_only: bool = False
    scaling: Chance = OFF
    bending: Chance = OFF
    smoothness: tuple[float, float] = (0.05, 0.2)
    noise: Chance = OFF
    blur: Chance = OFF
    brightness: Chance = OFF
    contrast: Chance = OFF
    coarseness: Chance = OFF
    inverted_gamma: Chance = OFF
    gamma: Chance = OFF
    mirrors: bool = False

    def __post_init__(self) -> None:
        for one in fields(self):
            chance = getattr(self, one.name)
            if not isinstance(chance, Chance):
                continue
            floor = -360 if one.name == "rotation" else 0
            if not 0 <= chance.probability <= 1 or not floor <= chance.low <= chance.high:
                raise ConfigError(
                    f"augmentation {one.name} is {tuple(chance)}: expected a probability of 0 to 1 and two limits in "
                    f"order, from {floor}."
                )
            if one.name in ("scaling", "coarseness", "gamma", "inverted_gamma") and chance.low == 0:
                raise ConfigError(f"augmentation {one.name} is {tuple(chance)}: expected limits above 0.")

    def for_patch(self, patch: Sequence[int], *, in_plane_only: bool = False) -> VolumeAugmentation:
        """Adapt to a patch: 2-D and flat ones turn within their slices, elongated pictures by 15 degrees at most.

        Args:
            patch: (H, W) or (D, H, W). in_plane_only: the patch is flat (`Configuration.turns_in_plane_only`).
        """
        if len(patch) == 3 and not in_plane_only:
            return self
        degrees = self.in_plane_degrees
        if len(patch) == 2 and max(patch) > _ELONGATED * min(patch):
            degrees = min(degrees, _ELONGATED_DEGREES)
        return replace(self, rotation=Chance(self.rotation.probability, -degrees, degrees), in_plane_only=True)

    def enlarged(self, patch: Sequence[int]) -> tuple[int, ...]:
        """Give the patch to draw, so that turning finds image at most places: (D, H, W), or (H, W) for a 2-D `patch`.

        It covers one turn about one axis by the largest angle; the far corners of larger or combined ones are empty.
        """
        if not (self.rotation.probability or self.scaling.probability):
            return tuple(patch)
        angle = np.radians(min(max(abs(self.rotation.low), abs(self.rotation.high)), 90))
        angle = angle if self.rotation.probability else 0.0
        reach = 1 / _SEEN if self.scaling.probability else 1.0
        first = 1 if self.in_plane_only and len(patch) == 3 else 0
        plane = tuple(patch[first:])
        turned = [
            max([side, *(side * np.cos(angle) + other * np.sin(angle) for b, other in enumerate(plane) if b != a)])
            for a, side in enumerate(plane)
        ]
        return (*patch[:first], *(int(side * reach) for side in turned))

    def moved(
        self, image: NDArray[np.float32], label: NDArray[np.int16], patch: Sequence[int], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Turn, scale, bend and mirror image and label alike, and keep the patch in the middle.

        Args:
            image: [C, d, h, w]; label: [d, h, w]; at least as large as the patch, see `enlarged`.
            patch: (D, H, W). rng: source of the random choices.

        Returns:
            image [C, D, H, W] and label [D, H, W]; 0 and -1 where nothing was drawn.
        """
        turns, scales, bends = (part.happens(rng) for part in (self.rotation, self.scaling, self.bending))
        corner = [(side - inner) // 2 for side, inner in zip(label.shape, patch, strict=True)]
        if turns or scales or bends:
            matrix = self._matrix(rng, turns=turns, scales=scales)
            middle = (np.asarray(patch) - 1) / 2
            offset = np.asarray(corner) + middle - matrix @ middle
            displacement = self._displacement(patch, rng) if bends else None
            image, label = warped(image, label, patch, matrix, offset, displacement, outside=OUTSIDE)
        else:
            box = tuple(slice(first, first + side) for first, side in zip(corner, patch, strict=True))
            image, label = image[:, *box], label[box]
        if self.mirrors:
            axes = np.flatnonzero(rng.random(3) < 0.5)
            image, label = np.flip(image, tuple(axes + 1)), np.flip(label, tuple(axes))
        return np.ascontiguousarray(image), np.ascontiguousarray(label)

    def shaded(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Change the values of an image.

        Args:
            image: [C, D, H, W], normalised. rng: source of the random choices.

        Returns:
            another array of the same shape.
        """
        image = image.astype(np.float32)
        if self.noise.happens(rng):
            deviation = np.float32(self.noise.amount(rng))
            image += rng.standard_normal(image.shape[1:], dtype=np.float32) * deviation
        if self.blur.happens(rng):
            for channel in _some(image, rng):
                _blur(channel, [self.blur.amount(rng) for _ in channel.shape])
        if self.brightness.happens(rng):
            for channel in image:
                channel *= self.brightness.factor(rng)
        if self.contrast.happens(rng):
            for channel in image:
                _stretch(channel, self.contrast.factor(rng))
        if self.coarseness.happens(rng):
            for channel in _some(image, rng):
                channel[...] = _coarsened(channel, self.coarseness.amount(rng), first=int(self.in_plane_only))
        for gamma, sign in ((self.inverted_gamma, -1), (self.gamma, 1)):
            if gamma.happens(rng):
                for channel in image:
                    _raise_to(channel, gamma.factor(rng), sign)
        return image

    def _matrix(self, rng: np.random.Generator, *, turns: bool, scales: bool) -> NDArray[np.float64]:
        """Draw the matrix [3, 3] from voxels of the answer to voxels of the source, both about the middle."""
        matrix = np.eye(3)
        if turns:
            about = (0,) if self.in_plane_only else (0, 1, 2)
            for axis in about:
                matrix = _turn(axis, np.radians(self.rotation.amount(rng))) @ matrix
        if scales:
            scale = self.scaling.amount(rng)
            matrix = matrix @ np.diag([1 if self.in_plane_only else scale, scale, scale])
        return matrix

    def _displacement(self, patch: Sequence[int], rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw a smooth field of displacements in voxels: [3, D, H, W]."""
        from scipy import ndimage  # slow to import

        field = np.zeros((3, *patch), np.float32)
        for axis in range(int(self.in_plane_only), 3):
            deviations = [rng.uniform(*self.smoothness) * side for side in patch]
            grain = rng.standard_normal(tuple(patch), dtype=np.float32)
            smooth = ndimage.gaussian_filter(grain, deviations, mode="wrap", truncate=3)
            largest = np.abs(smooth).max()
            field[axis] = smooth * (self.bending.amount(rng) * patch[axis] / max(largest, 1e-8))
        return field


NNUNET = VolumeAugmentation(
    rotation=Chance(0.2, -30, 30),
    scaling=Chance(0.2, 0.7, 1.4),
    noise=Chance(0.1, 0, 0.1),
    blur=Chance(0.2, 0.5, 1.0),
    brightness=Chance(0.15, 0.75, 1.25),
    contrast=Chance(0.15, 0.75, 1.25),
    coarseness=Chance(0.25, 0.5, 1.0),
    inverted_gamma=Chance(0.1, 0.7, 1.5),
    gamma=Chance(0.3, 0.7, 1.5),
    mirrors=True,
)
"""nnU-Net 2's default, for 3-D patches; `for_patch` makes it that of others."""

LIGHT = VolumeAugmentation(
    rotation=Chance(0.4, -20, 20),
    in_plane_degrees=20,
    scaling=Chance(0.4, 0.8, 1.25),
    noise=Chance(0.15, 0, 0.1),
    brightness=Chance(0.3, 0.75, 1.25),
    contrast=Chance(0.3, 0.75, 1.25),
    gamma=Chance(0.3, 0.7, 1.5),
)
"""For short trainings on a processor: what patients and scanners vary in, without mirrors; chosen here."""


def _some(image: NDArray[np.float32], rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Draw about half of the channels."""
    return [channel for channel in image if rng.random() < _CHANNEL_SHARE]


def _turn(axis: int, angle: float) -> NDArray[np.float64]:
    """Give the matrix [3, 3] of a turn about one axis, in voxels."""
    a, b = (other for other in range(3) if other != axis)
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[b, a] = np.sin(angle)
    matrix[a, b] = -matrix[b, a]
    return matrix


def _blur(channel: NDArray[np.float32], deviations: Sequence[float]) -> None:
    from scipy import ndimage  # slow to import

    for axis, deviation in enumerate(deviations):
        if channel.shape[axis] > 1:
            ndimage.gaussian_filter1d(channel, deviation, axis, output=channel, mode="mirror", truncate=3)


def _stretch(channel: NDArray[np.float32], factor: np.float32) -> None:
    """Move values away from their mean, or towards it; what leaves their range is cut off."""
    low, high, mean = channel.min(), channel.max(), channel.mean()
    channel -= mean
    channel *= factor
    channel += mean
    np.clip(channel, low, high, out=channel)


def _coarsened(channel: NDArray[np.float32], scale: float, *, first: int) -> NDArray[np.float32]:
    """Keep the nearest values of a coarser grid along the axes from `first` on, and interpolate between them."""
    coarse = channel
    for axis in range(first, 3):
        side = channel.shape[axis]
        left = max(round(side * scale), 1)
        coarse = coarse.take(((np.arange(left) + 0.5) * (side / left)).astype(np.intp), axis)
    return upsampled(coarse, channel.shape)


def _raise_to(channel: NDArray[np.float32], power: np.float32, sign: int) -> None:
    """Raise sign * values, scaled to [0, 1], to a power; mean and deviation are put back."""
    mean, deviation = channel.mean(), channel.std()
    channel *= sign
    low, high = channel.min(), channel.max()
    if high - low < 1e-7:  # constant
        channel *= sign
        return
    channel -= low
    channel /= high - low
    np.maximum(channel, 1e-12, out=channel)
    np.log(channel, out=channel)  # ten times faster than a power
    channel *= power
    np.exp(channel, out=channel)
    channel -= channel.mean()
    channel *= sign * deviation / max(channel.std(), 1e-7)
    channel += mean
