"""Simulated patients: age, sex, site and visits, and the scans they give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.phantoms.acquisition import SITES, acquire, positions, random_grid
from medmargin.datasets.phantoms.organs import Anatomy, Organ, labelled_organs, random_anatomy, scenery
from medmargin.datasets.phantoms.raters import draw_rater
from medmargin.imaging.volume import Grid

_SIZE_BY_SEX = {"F": 0.95, "M": 1.05}
_LESION_RATE = 0.85
_GROWTH_PER_VISIT = 1.15
_LEVEL_LOST_PER_DECADE = 0.01  # of the organ, from the age of 20


@dataclass(frozen=True)
class Patient:
    """One simulated patient; `number` is unique in the data set and seeds everything about the patient."""

    number: int
    age: int
    sex: str
    site: str
    visits: int
    anatomy: Anatomy

    @property
    def name(self) -> str:
        return f"phantom_{self.number:03d}"

    def case_name(self, visit: int) -> str:
        """Name the scan of a visit (0, 1, ...): phantom_007_a, phantom_007_b."""
        return f"{self.name}_{'abc'[visit]}"


@dataclass(frozen=True)
class Scan:
    """One visit: the image, what is in it, and what every rater saw.

    Attributes:
        name: of the case. grid: where the voxels are. image: [I, J, K] float32, brightest tissue about 1.
        organs: the labelled structures in the order of painting. raters: label maps [I, J, K] uint8, one per rater.
    """

    name: str
    patient: Patient
    grid: Grid
    image: NDArray[np.float32]
    organs: list[Organ]
    raters: list[NDArray[np.uint8]]


def invite_patients(*, cases: int, seed: int, dims: int, first_number: int = 1) -> list[Patient]:
    """Draw patients until they give `cases` scans; every third patient comes twice."""
    patients: list[Patient] = []
    while (missing := cases - sum(patient.visits for patient in patients)) > 0:
        number = first_number + len(patients)
        rng = np.random.default_rng([seed, number])
        sex, age = str(rng.choice(list(_SIZE_BY_SEX))), int(rng.integers(20, 86))
        anatomy = random_anatomy(rng, scale=_SIZE_BY_SEX[sex], has_lesion=rng.random() < _LESION_RATE, dims=dims)
        anatomy.levels["organ"] -= _LEVEL_LOST_PER_DECADE * (age - 20) / 10
        visits = min(2 if number % 3 == 0 else 1, missing)
        patients.append(Patient(number, age, sex, str(rng.choice(list(SITES))), visits, anatomy))
    return patients


def scan_patient(
    patient: Patient, *, seed: int, dims: int, raters: int, edge_sd_mm: float, rater_sd_mm: float
) -> Iterator[Scan]:
    """Scan a patient at every visit; the lesion grows from one visit to the next.

    Args:
        patient: whom to scan.
        seed: of the data set; image and raters have streams of their own, so that more raters change no image.
        dims: 2 for pictures. raters: number of raters.
        edge_sd_mm, rater_sd_mm: softness of the edges and spread of the raters, see `labelled_organs`.
    """
    site = SITES[patient.site]
    for visit in range(patient.visits):
        rng = np.random.default_rng([seed, patient.number, 1, visit])
        grid = random_grid(rng, site, dims=dims)
        where, spacing = positions(grid), grid.spacing
        anatomy = _grown(patient.anatomy, _GROWTH_PER_VISIT**visit)
        softness = {"edge_sd_mm": edge_sd_mm, "rater_sd_mm": rater_sd_mm}
        organs = labelled_organs(anatomy, where, spacing, **softness)
        image = acquire([*scenery(anatomy, where, spacing, **softness), *organs], rng, spacing, site=site)
        streams = [np.random.default_rng([seed, patient.number, 2, visit, rater]) for rater in range(raters)]
        labels = [draw_rater(organs, stream, spacing) for stream in streams]
        yield Scan(patient.case_name(visit), patient, grid, image, organs, labels)


def _grown(anatomy: Anatomy, factor: float) -> Anatomy:
    return replace(anatomy, lesion_radii=anatomy.lesion_radii * factor)
