"""The metrics on real images, against numbers that others computed."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medmargin.evaluation import measure_case
from medmargin.imaging.volume import Grid


def test_raters_of_the_retina_agree_as_published_with_the_data(data_root: Path) -> None:
    folder = data_root / "Dataset903_STARE"
    with (folder / "cases.csv").open(newline="") as stream:
        expected = {row["case"]: float(row["dice_between_raters"]) for row in csv.DictReader(stream)}
    assert expected
    for case, dice in expected.items():
        first, second = (
            np.asarray(Image.open(folder / labels / f"{case}.png")).T[..., None]
            for labels in ("labelsTr", "labelsTr_rater2")
        )
        grid = Grid(first.shape, np.eye(4), "px")
        entry = measure_case(case, case, first, second, grid=grid, structures={"vessel": 1}).entry
        assert entry["structures"]["vessel"]["dice"] == pytest.approx(dice, abs=1e-4)


def test_hippocampus_moved_by_one_voxel_is_off_by_its_spacing(data_root: Path) -> None:
    path = data_root / "Dataset004_Hippocampus" / "labelsTr" / "hippocampus_001.nii.gz"
    image = nibabel.load(path)
    truth = np.asarray(image.dataobj).astype(np.uint8)
    moved = np.roll(truth, 1, axis=0)
    grid = Grid(truth.shape, image.affine)
    found = measure_case("c", "p", truth, moved, grid=grid, structures={"anterior": 1, "posterior": 2}).entry
    for name, value in (("anterior", 1), ("posterior", 2)):
        figures = found["structures"][name]
        assert figures["hd95_mm"] == pytest.approx(grid.spacing[0])
        assert figures["relative_volume_error"] == 0
        assert figures["nsd"] == 1
        true = found["volumes_ml"][name]["true"]
        assert true == pytest.approx(np.count_nonzero(truth == value) * grid.voxel_volume_ml)


def test_measuring_imports_neither_torch_nor_matplotlib() -> None:
    program = "import sys, medmargin.evaluation; print({'torch', 'matplotlib', 'monai'} & sys.modules.keys())"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
