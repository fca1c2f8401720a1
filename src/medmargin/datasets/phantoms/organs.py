"""Organs of the embedded data set: a bean-shaped organ, a lesion in it and a bent tube beside it, in a body.

Each is given by its signed distance in mm, so that edges can be as soft, and raters as unsure, as asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Coordinates = NDArray[np.float64]  # [3, I, J, K] mm, RAS, the middle of the body at 0
Field = NDArray[np.float32]

STRUCTURES = {"organ": 1, "lesion": 2, "tube": 3}
"""Structure -> label value; where structures overlap the order of painting is organ, tube, lesion."""


SOFTNESS = {"organ": 1.0, "lesion": 1.8, "tube": 0.8}
"""Width of a structure's edge, and spread of the raters there, relative to what is asked for the organ."""


@dataclass(frozen=True)
class Organ:
    """One structure of one patient on a voxel grid.

    Attributes:
        name: a structure of `STRUCTURES`, or a name of its own when it is scenery.
        label: label value, 0 for scenery.
        distance_mm: [I, J, K] float32 signed distance to the border, positive inside.
        level: grey level of the pure tissue (0 = air, 1 = brightest).
        edge_sd_mm: standard deviation of the blur of its border; 10 to 90 % of the step spans 2.56 of them.
        rater_sd_mm: standard deviation of where raters see its border.
    """

    name: str
    label: int
    distance_mm: Field
    level: float
    edge_sd_mm: float
    rater_sd_mm: float


@dataclass(frozen=True)
class Anatomy:
    """Sizes and places of one patient's organs, in mm; the same at every visit but for the lesion.

    Attributes:
        radii: half axes of the organ (right-left, back-front, foot-head).
        bend: bending of the organ in 1/mm: x is shifted by bend * y^2.
        lesion_centre: None where the patient has no lesion; lesion_radii: its half axes.
        lesion_lobe: centre of the lesion's second, smaller lobe, from the first one's, in half axes.
        tube: [3, 3] control points of the tube's quadratic curve; tube_radius: its radius.
        waves: [M, 3] wave vectors in rad/mm and phases [M] of the bumps on organ and lesion.
        loops: [N, 2, 3] centre and half axes of unlabelled neighbours (bowel, vessels, nodes).
        levels: grey level by structure; loop_levels: [N] of the neighbours.
    """

    radii: NDArray[np.float64]
    bend: float
    lesion_centre: NDArray[np.float64] | None
    lesion_radii: NDArray[np.float64]
    lesion_lobe: NDArray[np.float64]
    tube: NDArray[np.float64]
    tube_radius: float
    waves: NDArray[np.float64]
    phases: NDArray[np.float64]
    loops: NDArray[np.float64]
    levels: dict[str, float]
    loop_levels: NDArray[np.float64]


_ORGAN_CENTRE = np.array([-8.0, 2.0, 0.0])
_WAVES, _BUMPS_MM = 6, 1.0
_SECOND_LOBE = 0.65  # size of the lesion's second lobe relative to the first


def random_anatomy(rng: np.random.Generator, *, scale: float, has_lesion: bool, dims: int) -> Anatomy:
    """Draw a patient's anatomy.

    Args:
        rng: source of every random choice.
        scale: size of the organs relative to the average patient.
        has_lesion: whether the organ holds a lesion.
        dims: 2 puts lesion and tube into the plane foot-head = 0.
    """
    flat = np.array([1.0, 1.0, 0.0 if dims == 2 else 1.0])
    radii = scale * np.array([10.0, 16.0, 13.0]) * rng.uniform(0.9, 1.1, 3)
    centre = _ORGAN_CENTRE + flat * radii * rng.uniform(-0.4, 0.4, 3)
    shift = np.array([scale * 12.0, 0.0, 0.0])
    tube = shift + flat * (np.array([[0, -17, -12], [9, 0, 0], [0, 17, 12]]) * scale + rng.uniform(-3, 3, (3, 3)))
    levels = {"organ": rng.uniform(0.5, 0.62), "lesion": rng.choice([0.38, 0.8]), "tube": rng.uniform(0.7, 0.9)}
    directions, lobe = rng.standard_normal((_WAVES, 3)) * flat, rng.standard_normal(3) * flat
    wavelengths = rng.uniform(14, 30, (_WAVES, 1))
    number = int(rng.integers(3, 9))
    places = flat * rng.uniform((-18, -16, -25), (22, 26, 25), (number, 3))
    return Anatomy(
        radii=radii,
        bend=rng.uniform(0.01, 0.022),
        lesion_centre=centre if has_lesion else None,
        lesion_radii=scale * rng.uniform(3.5, 6.5) * rng.uniform(0.85, 1.15, 3),
        lesion_lobe=lobe / np.linalg.norm(lobe) * rng.uniform(0.7, 1.2),
        tube=tube,
        tube_radius=scale * rng.uniform(2.6, 3.8),
        waves=2 * np.pi * directions / np.linalg.norm(directions, axis=1, keepdims=True) / wavelengths,
        phases=rng.uniform(0, 2 * np.pi, _WAVES),
        loops=np.stack([places, rng.uniform(2, 7, (number, 3))], 1),
        levels={name: float(level) for name, level in levels.items()},
        loop_levels=rng.choice([0.12, 0.22, 0.42, 0.5, 0.6], number),
    )


def labelled_organs(
    anatomy: Anatomy, where: Coordinates, spacing: Sequence[float], *, edge_sd_mm: float, rater_sd_mm: float
) -> list[Organ]:
    """Place a patient's structures on a grid, in the order in which they are painted.

    Args:
        anatomy: the patient's sizes and places.
        where: [3, I, J, K] position of every voxel in mm.
        spacing: voxel size along (i, j, k) in mm.
        edge_sd_mm: blur of the organ's edge; the lesion's is 1.8 times as wide, the tube's 0.8 times.
        rater_sd_mm: spread of the raters at the organ's edge, with the same factors.
    """
    x, y, z = where - _ORGAN_CENTRE[:, None, None, None]
    bent = np.stack([x + anatomy.bend * (y**2 - (0.6 * anatomy.radii[1]) ** 2), y, z])
    rough = bumps(where, anatomy)
    shapes = {
        "organ": ellipsoid(bent, anatomy.radii) + rough,
        "tube": curved_tube(where, anatomy.tube, anatomy.tube_radius),
    }
    if anatomy.lesion_centre is not None:
        shapes["lesion"] = _lesion(where - anatomy.lesion_centre[:, None, None, None], anatomy) - 0.6 * rough
    return [
        Organ(
            name=name,
            label=STRUCTURES[name],
            distance_mm=corrected_distance(shape, spacing),
            level=anatomy.levels[name],
            edge_sd_mm=edge_sd_mm * SOFTNESS[name],
            rater_sd_mm=rater_sd_mm * SOFTNESS[name],
        )
        for name, shape in shapes.items()
    ]


def scenery(
    anatomy: Anatomy, where: Coordinates, spacing: Sequence[float], *, edge_sd_mm: float, rater_sd_mm: float
) -> list[Organ]:
    """Place what surrounds the organs and nobody labels: the body, a bright column and the neighbours."""
    bodies = [
        ("body", np.zeros(3), np.array([29.0, 34.0, 90.0]), 0.3),
        ("column", np.array([-2.0, -25.0, 0.0]), np.array([6.0, 5.0, 90.0]), 0.95),
        *(("loop", *loop, level) for loop, level in zip(anatomy.loops, anatomy.loop_levels, strict=True)),
    ]
    return [
        Organ(
            name=name,
            label=0,
            distance_mm=ellipsoid(where - centre[:, None, None, None], radii).astype(np.float32),
            level=float(level),
            edge_sd_mm=edge_sd_mm,
            rater_sd_mm=rater_sd_mm,
        )
        for name, centre, radii, level in bodies
    ]


def _lesion(where: Coordinates, anatomy: Anatomy) -> NDArray[np.float64]:
    """Distance to the union of the lesion's two lobes, positive inside."""
    lobe = where - (anatomy.lesion_lobe * anatomy.lesion_radii)[:, None, None, None]
    return np.maximum(ellipsoid(where, anatomy.lesion_radii), ellipsoid(lobe, _SECOND_LOBE * anatomy.lesion_radii))


def bumps(where: Coordinates, anatomy: Anatomy) -> NDArray[np.float64]:
    """Sum the patient's plane waves: [I, J, K] in mm, standard deviation 1 mm."""
    waves = np.cos(np.tensordot(anatomy.waves, where, axes=(1, 0)) + anatomy.phases[:, None, None, None])
    return _BUMPS_MM * np.sqrt(2 / _WAVES) * waves.sum(0)


def ellipsoid(where: Coordinates, radii: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the signed distance in mm to an ellipsoid around the origin, to first order; positive inside.

    d = (1 - |x / r|) |x / r| / |x / r^2|: exact on the surface and along the axes, min(r) in the middle.
    """
    half_axes = np.asarray(radii, np.float64)[:, None, None, None]
    relative, slope = (np.sqrt(((where / half_axes**power) ** 2).sum(0)) for power in (1, 2))
    return (1 - relative) * np.where(slope > 0, relative / np.maximum(slope, 1e-12), half_axes.min())


def curved_tube(where: Coordinates, control: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Compute the signed distance in mm to a tube around a quadratic Bezier curve, positive inside.

    Args:
        where: [3, I, J, K] positions; control: [3, 3] start, control and end point; all in mm.
    """
    nearest = np.full(where.shape[1:], np.inf)
    for t in np.linspace(0, 1, 40):
        point = (1 - t) ** 2 * control[0] + 2 * t * (1 - t) * control[1] + t**2 * control[2]
        np.minimum(nearest, ((where - point[:, None, None, None]) ** 2).sum(0), out=nearest)
    return radius - np.sqrt(nearest)


def corrected_distance(distance: NDArray[np.float64], spacing: Sequence[float]) -> Field:
    """Make a bent or bumpy distance a distance again, to first order: d / |grad d|, with |grad d| at least 1/2.

    Taubin, ACM Trans. Graph. 13(1):3-42, 1994, eq. 1: exact at the border. The bound concerns the middle of an organ,
    where a distance has no gradient. Axes of a single voxel have none either.
    """
    axes = [axis for axis, voxels in enumerate(distance.shape) if voxels > 1]
    slopes = np.gradient(distance, *(spacing[axis] for axis in axes), axis=axes)
    steepness = np.sqrt(sum(slope**2 for slope in slopes))
    return (distance / np.maximum(steepness, 0.5)).astype(np.float32)
