"""`write_phantom_dataset`: the embedded default data set, in nnU-Net raw layout, with the truth beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from medmargin.datasets.case import Case
from medmargin.datasets.layouts.tables import write_table
from medmargin.datasets.new_folder import new_folder
from medmargin.datasets.phantoms.acquisition import PIXEL_MM
from medmargin.datasets.phantoms.cohort import Patient, Scan, invite_patients, scan_patient
from medmargin.datasets.phantoms.files import ENDINGS, write_image, write_label, write_probability
from medmargin.datasets.phantoms.organs import SOFTNESS, STRUCTURES
from medmargin.datasets.phantoms.raters import CORRELATION_MM, label_probabilities
from medmargin.datasets.splits import make_folds, write_splits
from medmargin.errors import ConfigError
from medmargin.storage import write_json

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PhantomPlan:
    """What is asked of a phantom data set; see `write_phantom_dataset`."""

    dims: int
    cases: int
    test_cases: int
    seed: int
    raters: int
    edge_sd_mm: float
    rater_sd_mm: float

    def __post_init__(self) -> None:
        for name, found, expected, is_met in (
            ("dims", self.dims, "2 or 3", self.dims in (2, 3)),
            ("cases", self.cases, "at least 2", self.cases >= 2),
            ("test_cases", self.test_cases, "at least 0", self.test_cases >= 0),
            ("seed", self.seed, "at least 0", self.seed >= 0),
            ("raters", self.raters, "at least 1", self.raters >= 1),
            ("edge_sd_mm", self.edge_sd_mm, "above 0 and up to 5", 0 < self.edge_sd_mm <= 5),
            ("rater_sd_mm", self.rater_sd_mm, "above 0 and up to 5", 0 < self.rater_sd_mm <= 5),
        ):
            if not is_met:
                raise ConfigError(f"phantom data set: {name} is {found}; expected {expected}")


def write_phantom_dataset(
    folder: Path | str,
    *,
    dims: int = 3,
    cases: int = 24,
    test_cases: int = 6,
    seed: int = 0,
    raters: int = 3,
    edge_sd_mm: float = 0.8,
    rater_sd_mm: float = 0.5,
    progress: Progress | None = None,
) -> Path:
    """Write a data set of simulated patients in nnU-Net raw layout; the same arguments give the same bytes.

    Beside images and labels (the first rater's) it holds `labelsTr_rater2`, ..., `probabilitiesTr` with the true
    probability of every structure at every voxel (`<case>_<label, four digits>`), the same for the test patients (Ts),
    `attributes.csv` (patient, age, sex, site), `splits_final.json` (folds by patient) and `phantom.json` (edge widths,
    spread of the raters, expected sizes).

    Args:
        folder: data set folder to make; it must not exist, or be empty.
        dims: 3 for NIfTI volumes, 2 for PNG pictures of 0.6 mm a pixel.
        cases: labelled training scans; test_cases: scans of other patients, for `imagesTs`.
        seed: decides everything.
        raters: raters per scan.
        edge_sd_mm: standard deviation of the Gaussian blur of the organ's edge.
        rater_sd_mm: standard deviation of where raters see the organ's edge.
        progress: called with (scans written, scans in all).

    Returns:
        The data set folder.

    Raises:
        ConfigError: an argument is out of range, or the folder holds something.
        BudgetError: the disk is full or the folder cannot be written; nothing is left behind then.
    """
    plan = PhantomPlan(dims, cases, test_cases, seed, raters, edge_sd_mm, rater_sd_mm)
    with new_folder(folder) as part:
        _write_all(part, plan, progress)
    return Path(folder)


def _write_all(folder: Path, plan: PhantomPlan, progress: Progress | None) -> None:
    training = invite_patients(cases=plan.cases, seed=plan.seed, dims=plan.dims)
    tested = invite_patients(
        cases=plan.test_cases, seed=plan.seed, dims=plan.dims, first_number=training[-1].number + 1
    )
    rows, sizes = [], {}
    for done, (part, scan) in enumerate(_scans(plan, training, tested), start=1):
        sizes[scan.name] = _write_scan(folder, part, scan)
        rows.append(_attributes(scan, part))
        if progress is not None:
            progress(done, plan.cases + plan.test_cases)
    write_json(folder / "dataset.json", _description(plan))
    write_json(folder / "phantom.json", _truth(plan, sizes))
    scans = [Case(p.case_name(visit), p.name, ()) for p in training for visit in range(p.visits)]
    write_splits(folder / "splits_final.json", make_folds(scans, seed=plan.seed))
    write_table(folder / "attributes.csv", rows)


def _scans(plan: PhantomPlan, training: list[Patient], tested: list[Patient]) -> Iterator[tuple[str, Scan]]:
    for part, patients in (("Tr", training), ("Ts", tested)):
        for patient in patients:
            for scan in scan_patient(
                patient,
                seed=plan.seed,
                dims=plan.dims,
                raters=plan.raters,
                edge_sd_mm=plan.edge_sd_mm,
                rater_sd_mm=plan.rater_sd_mm,
            ):
                yield part, scan


def _write_scan(folder: Path, part: str, scan: Scan) -> dict[str, float]:
    """Write the files of one scan; return the expected size of every structure: ml, or pixels of a picture."""
    write_image(folder / f"images{part}" / f"{scan.name}_0000", scan.image, scan.grid)
    for number, labels in enumerate(scan.raters, start=1):
        suffix = "" if number == 1 else f"_rater{number}"
        write_label(folder / f"labels{part}{suffix}" / scan.name, labels, scan.grid)
    probabilities, absent = label_probabilities(scan.organs), np.zeros(scan.grid.shape, np.float32)
    unit = 1.0 if scan.grid.shape[2] == 1 else scan.grid.voxel_volume_ml or 0.0
    sizes = {}
    for structure, value in STRUCTURES.items():
        probability = probabilities.get(value, absent)
        stem = folder / f"probabilities{part}" / f"{scan.name}_{value:04d}"
        write_probability(stem, probability, scan.grid, structure=structure)
        sizes[structure] = round(float(probability.sum(dtype=np.float64)) * unit, 4)
    return sizes


def _attributes(scan: Scan, part: str) -> dict[str, object]:
    patient = scan.patient
    return {
        "case": scan.name,
        "patient": patient.name,
        "age": patient.age,
        "sex": patient.sex,
        "site": patient.site,
        "lesion": "yes" if patient.anatomy.lesion_centre is not None else "no",
        "part": "training" if part == "Tr" else "test",
    }


def _description(plan: PhantomPlan) -> dict[str, object]:
    return {
        "channel_names": {"0": "phantom"},
        "labels": {"background": 0, **STRUCTURES},
        "numTraining": plan.cases,
        "file_ending": ENDINGS[plan.dims],
        "description": "Simulated organs with edges of known width and raters of known disagreement",
        "licence": "CC0-1.0",
    }


def _truth(plan: PhantomPlan, sizes: dict[str, dict[str, float]]) -> dict[str, object]:
    return {
        "made_with": asdict(plan),
        "model": "a rater's border lies where d + rater_sd_mm * g = 0 (d: signed distance in mm, g: unit Gaussian "
        "field); probability = Phi(d / rater_sd_mm), later structures cover earlier ones",
        "rater_correlation_mm": CORRELATION_MM,
        "pixel_mm": PIXEL_MM if plan.dims == 2 else None,
        "structures": {
            name: {
                "label": value,
                "edge_sd_mm": plan.edge_sd_mm * SOFTNESS[name],
                "rater_sd_mm": plan.rater_sd_mm * SOFTNESS[name],
            }
            for name, value in STRUCTURES.items()
        },
        "expected_pixels" if plan.dims == 2 else "expected_volume_ml": sizes,
    }
