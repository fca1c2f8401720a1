"""What the planned systems do with images and data sets that are not as they should be, seen from the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from medmargin.cli.app import run as command
from medmargin.datasets.phantoms import write_phantom_dataset
from medmargin.runs import run_lock

Write = Callable[..., Path]
TINY = ("--scale", "laptop", "--steps", "1", "--set", "precision=32-true")


@pytest.fixture(scope="module")
def journey(toy_volumes: Write, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of one channel and a run of one step."""
    folder = tmp_path_factory.mktemp("bad")
    data = toy_volumes(folder / "Dataset001_Balls", test_cases=1)
    assert command(["train", "plain-unet", str(data), "--run", str(folder / "run"), *TINY]) == 0
    return data, folder / "run"


@pytest.fixture
def copied(journey: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the data set, to be spoilt."""
    return Path(shutil.copytree(journey[0], tmp_path / "Dataset001_Balls"))


def told(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that ends with an exit code, and give the line it says."""
    capsys.readouterr()
    assert command(words) == code, capsys.readouterr().err
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


def image(path: Path, voxels: NDArray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Path:
    nibabel.Nifti1Image(voxels, np.diag([*spacing, 1.0])).to_filename(path)
    return path


def noise(*shape: int) -> NDArray[np.int16]:
    return np.random.default_rng(0).normal(100, 10, shape).astype(np.int16)


def spoil(data: Path, change: Callable[[NDArray], NDArray], pattern: str = "labelsTr/*.nii.gz") -> None:
    """Change the voxels of files of a data set."""
    for path in sorted(data.glob(pattern)):
        found = nibabel.load(path)
        voxels = change(np.asanyarray(found.dataobj))
        nibabel.Nifti1Image(voxels, found.affine).to_filename(path)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((5, 6, 7), (1.0, 1.0, 1.0)),  # smaller than the patch on all sides
        ((33, 9, 40), (1.0, 1.0, 1.0)),  # smaller on one side, larger on others
        ((20, 18, 1), (1.0, 1.0, 1.0)),  # a single slice
        ((40, 36, 3), (0.5, 0.5, 50.0)),  # slices a hundred times thicker than their pixels
        ((1, 1, 2), (1.0, 1.0, 1.0)),
    ],
)
def test_odd_sizes_come_back_on_their_own_grid(
    shape: tuple[int, ...], spacing: tuple[float, ...], journey: tuple[Path, Path], tmp_path: Path
) -> None:
    file = image(tmp_path / "odd.nii.gz", noise(*shape), spacing)
    assert command(["predict", str(journey[1]), str(file), "--out", str(tmp_path / "out")]) == 0
    found = nibabel.load(tmp_path / "out" / "odd_seg.nii.gz")
    assert found.shape == shape
    np.testing.assert_allclose(found.affine, nibabel.load(file).affine)


@pytest.mark.parametrize(
    ("voxels", "complaint"),
    [
        (np.full((20, 18, 14), 7, np.int16), "no signal"),
        (np.full((20, 18, 14), np.nan, np.float32), "finite"),
        (noise(20, 18, 14, 3), "--volume-index"),
    ],
    ids=["constant", "nan", "4-D"],
)
def test_images_that_are_refused(
    voxels: NDArray, complaint: str, journey: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = image(tmp_path / "bad.nii.gz", voxels)
    said = told(["predict", str(journey[1]), str(file), "--out", str(tmp_path / "out")], 3, capsys)
    assert "bad" in said
    assert complaint in said


def test_a_few_voxels_that_are_not_finite_are_replaced_and_told(journey: tuple[Path, Path], tmp_path: Path) -> None:
    voxels = noise(20, 18, 14).astype(np.float32)
    voxels[3, 4, 5], voxels[3, 4, 6] = np.nan, np.inf
    file = image(tmp_path / "holes.nii.gz", voxels)
    assert command(["predict", str(journey[1]), str(file), "--out", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out" / "holes_confidence.json").read_text())
    assert any("2 of 5040 voxels" in warning for warning in told["warnings"]), told["warnings"]
    assert np.isfinite(nibabel.load(tmp_path / "out" / "holes_uncertainty.nii.gz").get_fdata()).all()


def test_a_picture_is_no_volume(journey: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "flat.png"), noise(40, 30).astype(np.uint8))
    said = told(["predict", str(journey[1]), str(tmp_path / "flat.png"), "--out", str(tmp_path / "out")], 3, capsys)
    assert "DataError" in said or "flat" in said
    assert "2-D" in said
    assert "3-D" in said


def test_a_channel_that_is_missing(
    toy_volumes: Write, journey: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = toy_volumes(tmp_path / "Dataset002_Two", kind="channels", test_cases=1)
    (data / "imagesTr" / "Tr_1_0001.nii.gz").unlink()
    said = told(["train", "plain-unet", str(data), "--run", str(tmp_path / "run"), *TINY], 3, capsys)
    assert "Tr_1" in said
    assert "T2" in said
    two = image(tmp_path / "two.nii.gz", noise(20, 18, 14, 2))
    said = told(["predict", str(journey[1]), str(two), "--out", str(tmp_path / "out")], 3, capsys)
    assert "two" in said


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (np.zeros_like, "empty"),
        (lambda label: np.minimum(label, 1), "seed"),
        (lambda label: label * 3, "3"),
        (lambda label: label[:-1], "shape"),
    ],
    ids=["all empty", "a structure that is nowhere", "values that mean nothing", "another grid"],
)
def test_labels_that_cannot_be_learned_from(
    change: Callable[[NDArray], NDArray],
    complaint: str,
    copied: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(copied, change)
    said = told(["train", "plain-unet", str(copied), "--run", str(tmp_path / "run"), *TINY], 3, capsys)
    assert "DataError" in said or "GeometryError" in said
    assert complaint in said


def test_one_empty_label_is_allowed(copied: Path, tmp_path: Path) -> None:
    spoil(copied, np.zeros_like, "labelsTr/Tr_1.nii.gz")
    assert command(["train", "plain-unet", str(copied), "--run", str(tmp_path / "run"), *TINY]) == 0


def test_one_constant_image_is_named(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(copied, lambda voxels: np.full_like(voxels, 5), "imagesTr/Tr_1_0000.nii.gz")
    said = told(["train", "plain-unet", str(copied), "--run", str(tmp_path / "run"), *TINY], 3, capsys)
    assert "Tr_1" in said
    assert "no signal" in said


def test_what_was_replaced_in_training_images_is_told(
    copied: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def pierced(voxels: NDArray) -> NDArray:
        holes = voxels.astype(np.float32)
        holes[0, 0, 0] = np.nan
        return holes

    spoil(copied, pierced, "imagesTr/*.nii.gz")
    assert command(["train", "plain-unet", str(copied), "--run", str(tmp_path / "run"), *TINY]) == 0
    told = [record.message for record in caplog.records if "NaN" in record.message]
    assert len(told) == 4
    assert sorted(one.split("'")[1] for one in told) == ["Tr_0", "Tr_1", "Tr_2", "Tr_3"]


def test_plans_of_images_of_another_kind_are_refused(
    journey: tuple[Path, Path], toy_volumes: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = toy_volumes(tmp_path / "Dataset002_Two", kind="channels", test_cases=0)
    plan, run = tmp_path / "plan.json", tmp_path / "run"
    assert command(["data", "plan", str(two), "--scale", "laptop", "--no-timing", "--out", str(plan)]) == 0
    said = told(["train", "plain-unet", str(journey[0]), "--run", str(run), *TINY, "--plan", str(plan)], 2, capsys)
    assert "planned for 2 channels" in said
    assert "'Balls' has 1 channels" in said
    pictures = write_phantom_dataset(tmp_path / "Dataset003_Pictures", dims=2, cases=6, test_cases=0, raters=1)
    said = told(["train", "plain-unet", str(pictures), "--run", str(run), *TINY, "--plan", str(plan)], 2, capsys)
    assert "sizes in px" in said
    assert not run.exists()


def test_too_little_memory_is_refused_before_the_start(
    journey: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = journey
    words = ["train", "plain-unet", str(data), "--run", str(tmp_path / "run"), *TINY, "--memory", "300M"]
    said = told(words, 5, capsys)
    assert "a training step of 'plain-unet' with 2 patches needs about 0." in said
    assert "more than the 0.29 GB allowed" in said
    assert "data plan DATASET --scale laptop" in said
    assert not (tmp_path / "run").exists()
    file = image(tmp_path / "large.nii.gz", noise(60, 60, 60))
    said = told(["predict", str(run), str(file), "--out", str(tmp_path / "out"), "--memory", "100M"], 5, capsys)
    assert "segmenting 60 x 60 x 60 voxels needs about" in said


def test_floats_that_need_a_gpu_are_refused_before_the_start(
    journey: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = ["train", "plain-unet", str(journey[0]), "--run", str(tmp_path / "run"), "--steps", "1", "--scale", "paper"]
    said = told(words, 2, capsys)
    assert "'16-mixed' needs a GPU" in said
    assert not (tmp_path / "run").exists()


def test_one_folder_holds_one_run(
    journey: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = journey
    words = ["train", "plain-unet", str(data), "--run", str(run), *TINY]
    assert "holds a run already" in told(words, 2, capsys)
    busy = tmp_path / "busy"
    shutil.copytree(run, busy)
    with run_lock(busy):  # as a second process that trains there
        said = told(["train", "plain-unet", str(data), "--run", str(busy), *TINY, "--resume"], 5, capsys)
    assert "busy" in said


def test_a_place_where_nothing_can_be_written(
    journey: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        said = told(["train", "plain-unet", str(journey[0]), "--run", str(folder), *TINY], 5, capsys)
        assert "cannot write here" in said
    assert (tmp_path / "file").read_text() == "not a folder"
