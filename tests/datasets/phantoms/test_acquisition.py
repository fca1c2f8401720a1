"""The simulated scanner: edges as wide as asked, noise of the site, grids that keep the anatomy in place."""

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.stats import norm

from medmargin.datasets.phantoms.acquisition import SITES, acquire, partial_volume, positions, pure_picture, random_grid
from medmargin.datasets.phantoms.organs import Organ, ellipsoid, labelled_organs, random_anatomy
from medmargin.imaging.volume import Grid


def _sphere(spacing: float, *, edge_sd_mm: float) -> tuple[Organ, np.ndarray]:
    where = positions(Grid((61, 61, 61), np.diag([spacing] * 3 + [1.0])))
    distance = ellipsoid(where, (11.0, 11.0, 11.0)).astype(np.float32)
    return Organ("organ", 1, distance, 0.8, edge_sd_mm, 1.0), where


@pytest.mark.parametrize("edge_sd_mm", [0.6, 1.0, 2.0])
def test_an_edge_is_as_wide_as_asked(edge_sd_mm: float) -> None:
    organ, where = _sphere(0.5, edge_sd_mm=edge_sd_mm)
    profile, radius = pure_picture([organ], ground=0.2)[30:, 30, 30], where[0, 30:, 30, 30]

    def step(x: np.ndarray, border: float, width: float) -> np.ndarray:
        return 0.2 + 0.6 * norm.cdf((border - x) / width)

    (border, width), _ = curve_fit(step, radius, profile, p0=(9.0, 1.5))
    assert border == pytest.approx(11.0, abs=0.02)
    assert width == pytest.approx(edge_sd_mm, rel=0.02)


@pytest.mark.parametrize("name", ["organ", "tube", "lesion"])
def test_the_edges_of_real_organs_are_as_wide_as_asked(name: str) -> None:
    spacing = (0.5, 0.5, 0.5)
    where = positions(Grid((110, 130, 110), np.diag([*spacing, 1.0])))
    anatomy = random_anatomy(np.random.default_rng(1), scale=1.0, has_lesion=True, dims=3)
    organs = labelled_organs(anatomy, where, spacing, edge_sd_mm=1.0, rater_sd_mm=1.0)
    organ = next(organ for organ in organs if organ.name == name)
    share = partial_volume(organ)
    steepness = np.linalg.norm(np.stack(np.gradient(share, *spacing)), axis=0)
    at_border = np.abs(organ.distance_mm) < 0.15
    # A step blurred by a Gaussian of standard deviation s rises by 1 / (s sqrt(2 pi)) per mm at its middle.
    widths = 1 / (steepness[at_border] * np.sqrt(2 * np.pi))
    assert np.median(widths) == pytest.approx(organ.edge_sd_mm, rel=0.08)


def test_a_voxel_on_the_border_holds_half_of_each_tissue() -> None:
    organ = Organ("organ", 1, np.zeros((2, 2, 2), np.float32), 0.8, 1.0, 1.0)
    np.testing.assert_allclose(pure_picture([organ], ground=0.2), 0.5, rtol=1e-6)


@pytest.mark.parametrize("site", list(SITES))
def test_air_shows_the_noise_of_the_site(site: str) -> None:
    air = Organ("body", 0, np.full((40, 40, 40), -99.0, np.float32), 0.3, 1.0, 1.0)
    image = acquire([air], np.random.default_rng(0), (1.0, 1.0, 1.0), site=SITES[site])
    assert image.min() >= 0
    # Far below the noise a Rician amplitude has the second moment 2 sigma^2 + signal^2.
    assert np.sqrt((image.astype(np.float64) ** 2).mean() / 2) == pytest.approx(SITES[site].noise, rel=0.6)
    assert image.std() > 0.4 * SITES[site].noise


def test_sites_differ_in_contrast_to_noise() -> None:
    spacing = (1.0, 1.0, 1.0)
    organ, _ = _sphere(0.5, edge_sd_mm=0.5)
    quality = {}
    for name, site in SITES.items():
        image = acquire([organ], np.random.default_rng(0), spacing, site=site)
        inside, outside = image[organ.distance_mm > 2], image[organ.distance_mm < -2]
        quality[name] = (inside.mean() - outside.mean()) / outside.std()
    assert quality["north"] > quality["south"] > quality["west"]


def test_grids_are_straight_flipped_and_oblique_and_anisotropic() -> None:
    grids = [random_grid(np.random.default_rng(seed), SITES["south"], dims=3) for seed in range(40)]
    assert {grid.axis_codes for grid in grids} >= {"RAS", "LPS"}
    turned = [grid for grid in grids if np.count_nonzero(np.abs(grid.affine[:3, :3]) > 1e-9) > 3]
    assert 4 <= len(turned) <= 20
    for grid in grids:
        assert grid.shear < 1e-9
        np.testing.assert_allclose(grid.spacing, SITES["south"].spacing)


def test_the_anatomy_stays_in_place_whatever_the_grid() -> None:
    """The organ's centre of mass in mm from the grid's middle is the same on every grid."""
    anatomy = random_anatomy(np.random.default_rng(2), scale=1.0, has_lesion=False, dims=3)
    centres = []
    for seed in range(12):
        grid = random_grid(np.random.default_rng(seed), SITES["west"], dims=3)
        where = positions(grid)
        organ = labelled_organs(anatomy, where, grid.spacing, edge_sd_mm=1.0, rater_sd_mm=1.0)[0]
        centres.append(np.average(where.reshape(3, -1), axis=1, weights=partial_volume(organ).ravel()))
    np.testing.assert_allclose(centres, np.broadcast_to(centres[0], (12, 3)), atol=0.25)
