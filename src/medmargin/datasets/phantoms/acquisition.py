"""The simulated scanner: partial volume, texture, coil shading and noise, by site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.eulerangles import euler2mat
from numpy.typing import NDArray
from scipy.special import ndtr

from medmargin.datasets.phantoms.organs import Coordinates, Organ
from medmargin.datasets.phantoms.raters import Field, unit_field
from medmargin.imaging.volume import Grid

FIELD_OF_VIEW_MM = (60.0, 68.0, 60.0)
PIXEL_MM = 0.6
"""Pixel size of the 2-D phantoms; a PNG cannot say it."""


@dataclass(frozen=True)
class Site:
    """A hospital with its own scanner.

    Attributes:
        spacing: voxel size in mm; noise: standard deviation, contrast: gain of tissue differences, shading: of the
            logarithm of the coil's sensitivity; all relative to the brightest tissue.
    """

    spacing: tuple[float, float, float]
    noise: float
    contrast: float
    shading: float


SITES = {
    "north": Site(spacing=(1.25, 1.25, 1.5), noise=0.03, contrast=1.0, shading=0.1),
    "south": Site(spacing=(1.1, 1.1, 2.0), noise=0.045, contrast=0.9, shading=0.15),
    "west": Site(spacing=(1.4, 1.4, 1.4), noise=0.06, contrast=0.8, shading=0.25),
}


def random_grid(rng: np.random.Generator, site: Site, *, dims: int) -> Grid:
    """Choose the grid of a scan: for half of the volumes straight in RAS, else flipped to LPS or oblique.

    Args:
        rng: source of the choice.
        site: gives the spacing of volumes; pictures have square pixels of `PIXEL_MM`.
        dims: 2 for one slice through the middle of the body.
    """
    if dims == 2:
        columns, rows = (round(extent / PIXEL_MM) for extent in FIELD_OF_VIEW_MM[:2])
        return Grid((columns, rows, 1), np.diag([PIXEL_MM, PIXEL_MM, 1.0, 1.0]))
    i, j, k = (round(extent / step) for extent, step in zip(FIELD_OF_VIEW_MM, site.spacing, strict=True))
    kind = rng.choice(["straight", "straight", "flipped", "oblique"])
    axes = np.diag([-1.0, -1.0, 1.0]) if kind == "flipped" else np.eye(3)
    if kind == "oblique":
        axes = euler2mat(*np.radians(rng.uniform(-20, 20, 3)))
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.diag(site.spacing)
    affine[:3, 3] = np.round(rng.uniform(-40, 40, 3), 1)  # where the table stood
    return Grid((i, j, k), affine)


def positions(grid: Grid) -> Coordinates:
    """Compute the place of every voxel in mm along RAS, from the middle of the grid: [3, I, J, K]."""
    index = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in grid.shape), indexing="ij"))
    return np.tensordot(grid.affine[:3, :3], index, axes=(1, 0))


def partial_volume(organ: Organ) -> Field:
    """Compute the share of the organ's tissue in every voxel: Phi(d / edge sd), an edge blurred by a Gaussian."""
    return ndtr(organ.distance_mm / organ.edge_sd_mm).astype(np.float32)


def pure_picture(organs: Sequence[Organ], *, ground: float) -> Field:
    """Paint organs over one another with soft edges; no noise, no shading: [I, J, K] float32."""
    picture = np.full(organs[0].distance_mm.shape, ground, np.float32)
    for organ in organs:
        picture += partial_volume(organ) * (np.float32(organ.level) - picture)
    return picture


def acquire(
    organs: Sequence[Organ], rng: np.random.Generator, grid_spacing: Sequence[float], *, site: Site
) -> NDArray[np.float32]:
    """Scan organs: soft edges, tissue texture, the site's contrast, coil shading, then Rician noise.

    Args:
        organs: everything in the field of view, in the order of painting.
        rng: source of texture, shading and noise.
        grid_spacing: voxel size along (i, j, k) in mm.
        site: properties of the scanner.

    Returns:
        [I, J, K] float32 >= 0; the brightest tissue is about 1.
    """
    pure = pure_picture(organs, ground=0.02)
    shape = pure.shape
    texture = unit_field(rng, shape, grid_spacing, correlation_mm=2.0)
    tissue = pure * (1 + np.float32(0.04) * texture)
    tissue = np.float32(0.5) + np.float32(site.contrast) * (tissue - np.float32(0.5))
    shading = unit_field(rng, shape, grid_spacing, correlation_mm=25.0)
    signal = np.maximum(tissue, 0) * np.exp(np.float32(site.shading) * shading)
    real, imaginary = rng.standard_normal((2, *shape), np.float32) * np.float32(site.noise)
    return np.hypot(signal + real, imaginary)
