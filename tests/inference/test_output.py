"""Answers as files: on the image's grid, in its format, all of them or none."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medmargin import imaging
from medmargin.errors import BudgetError, ConfigError
from medmargin.imaging import Volume
from medmargin.inference.prompted import PromptedPredictor
from medmargin.inference.segmentation import Segmentation
from medmargin.prompts.types import Box, Prompt

Make = Callable[..., Volume]


@pytest.fixture
def answer(oracle: Callable, volume: Make, blobs: np.ndarray) -> Segmentation:
    """An answer on an oblique, flipped grid."""
    turn = np.array([[-0.96, 0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, -1.0]]) @ np.diag([0.7, 0.9, 3.0])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn, [20, -10, 5]
    prompts = [Prompt("left", Box((2, 3, 2), (10, 13, 8))), Prompt("right", Box((11, 10, 6), (17, 22, 14)))]
    return PromptedPredictor(oracle()).predict(volume(blobs, affine=affine), prompts)


def test_a_volume_gives_nifti_maps_on_its_own_grid(answer: Segmentation, tmp_path: Path) -> None:
    files = answer.save(tmp_path / "out", "case 1")
    assert {file.name for file in files} >= {
        "case 1_seg.nii.gz",
        "case 1_uncertainty.nii.gz",
        "case 1_uncertainty_aleatoric.nii.gz",
        "case 1_uncertainty_epistemic.nii.gz",
        "case 1_confidence.csv",
        "case 1_confidence.json",
    }
    assert sorted(files) == sorted((tmp_path / "out").iterdir())
    labels = nibabel.load(tmp_path / "out" / "case 1_seg.nii.gz")
    assert np.allclose(labels.affine, answer.image.affine, atol=1e-5)
    assert np.array_equal(np.asarray(labels.dataobj), answer.labels)
    total = nibabel.load(tmp_path / "out" / "case 1_uncertainty.nii.gz")
    assert np.allclose(total.affine, answer.image.affine, atol=1e-5)
    assert np.array_equal(total.get_fdata(dtype=np.float32), answer.uncertainty["total"])


def test_the_tables_name_every_structure_with_its_interval(answer: Segmentation, tmp_path: Path) -> None:
    answer.save(tmp_path, "case")
    with open(tmp_path / "case_confidence.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == ["left", "right"]
    for row in rows:
        assert float(row["low_ml"]) <= float(row["volume_ml"]) <= float(row["high_ml"])
        assert 0 <= float(row["confidence"]) <= 1
    content = json.loads((tmp_path / "case_confidence.json").read_text())
    assert content["case"] == "case"
    assert content["calibrated"] is False
    assert content["prompts"] == "user"
    assert content["uncertainty"] == {"source": "prompt perturbation", "forward_passes": 8, "unit": "nats"}
    assert [structure["label"] for structure in content["structures"]] == [1, 2]


def test_probabilities_are_written_when_asked(answer: Segmentation, tmp_path: Path) -> None:
    assert not any("prob" in file.name for file in answer.save(tmp_path / "without", "case"))
    answer.save(tmp_path / "with", "case", probabilities=True)
    second = nibabel.load(tmp_path / "with" / "case_prob_2.nii.gz").get_fdata()
    assert answer.probabilities is not None
    np.testing.assert_allclose(second, answer.probabilities[1], atol=1 / 500 + 1e-6)


def test_probabilities_that_were_not_kept_cannot_be_written(oracle: Callable, volume: Make, tmp_path: Path) -> None:
    image = volume(np.random.default_rng(0).random((9, 9, 3)))
    answer = PromptedPredictor(oracle()).predict(image, [Prompt("a", Box((1, 1, 1), (5, 5, 1)))], probabilities=False)
    with pytest.raises(ConfigError, match="probabilities=True"):
        answer.save(tmp_path, "case", probabilities=True)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_gives_a_png_label_map(oracle: Callable, tmp_path: Path) -> None:
    pixels = np.zeros((20, 30), np.uint8)
    pixels[4:9, 10:22] = 255
    (tmp_path / "in").mkdir()
    from PIL import Image

    Image.fromarray(pixels).save(tmp_path / "in" / "scan.png")
    image = imaging.read_image(tmp_path / "in" / "scan.png")
    PromptedPredictor(oracle()).predict(image, [Prompt("a", Box((10, 4), (21, 8)))]).save(tmp_path, "scan")
    written = np.asarray(Image.open(tmp_path / "scan_seg.png"))
    assert written.shape == (20, 30)
    assert 2 * ((written > 0) & (pixels > 0)).sum() / ((written > 0).sum() + (pixels > 0).sum()) > 0.85
    assert nibabel.load(tmp_path / "scan_uncertainty.nii.gz").shape[:2] == (30, 20)


@pytest.mark.parametrize("shape", [(24, 32), (5, 24, 32)])
def test_a_challenge_file_gives_segs_of_its_shape(shape: tuple[int, ...], oracle: Callable, tmp_path: Path) -> None:
    images = np.zeros(shape, np.uint8)
    images[..., 5:12, 6:15] = 220
    arrays = {"imgs": images} if len(shape) == 2 else {"imgs": images, "spacing": np.array([1.0, 1.0, 3.0])}
    np.savez_compressed(tmp_path / "2D_case.npz", **arrays)
    image = imaging.read_image(tmp_path / "2D_case.npz")
    low, high = ((6, 5), (14, 11)) if len(shape) == 2 else ((6, 5, 0), (14, 11, 4))
    answer = PromptedPredictor(oracle(32), uncertainty=None).predict(image, [Prompt("object 1", Box(low, high))])
    answer.save(tmp_path / "out", "2D_case")
    segs = np.load(tmp_path / "out" / "2D_case_seg.npz")["segs"]
    assert segs.shape == shape
    assert np.array_equal(segs > 0, images > 0)


def test_a_dicom_series_also_gives_dicom_objects(oracle: Callable, data_root: Path, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    folder = next(path for path in sorted((data_root / "dicom").rglob("HippoCrop*")) if path.is_dir())
    image = imaging.read_image(folder)
    low = tuple(length // 4 for length in image.grid.shape)
    high = tuple(3 * length // 4 for length in image.grid.shape)
    answer = PromptedPredictor(oracle()).predict(image, [Prompt("hippocampus", Box(low, high))])
    files = answer.save(tmp_path, "crop")
    assert {"crop_seg.dcm", "crop_uncertainty.dcm", "crop_seg.nii.gz"} <= {file.name for file in files}
    assert pydicom.dcmread(tmp_path / "crop_seg.dcm").Modality == "SEG"
    assert nibabel.load(tmp_path / "crop_seg.nii.gz").shape == image.grid.shape


def test_nothing_is_left_of_a_case_that_cannot_be_written_in_full(
    answer: Segmentation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise BudgetError("the disk is full")

    (tmp_path / "other_seg.nii.gz").write_text("of another case")
    monkeypatch.setattr("medmargin.inference.output.write_json", full_disk)
    with pytest.raises(BudgetError):
        answer.save(tmp_path, "case")
    assert [file.name for file in tmp_path.iterdir()] == ["other_seg.nii.gz"]
