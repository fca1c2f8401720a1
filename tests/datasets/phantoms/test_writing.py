"""The embedded data set as files."""

import csv
import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.loading import load_case
from medmargin.datasets.phantoms import write_phantom_dataset, writing
from medmargin.datasets.phantoms.organs import STRUCTURES
from medmargin.errors import ConfigError


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom_dataset(tmp_path_factory.mktemp("volumes") / "Dataset001_Phantom", cases=7, test_cases=2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "Dataset002_Phantom"
    return write_phantom_dataset(folder, dims=2, cases=7, test_cases=2)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(dims: int, tmp_path: Path) -> None:
    one, same, other = (
        _digests(write_phantom_dataset(tmp_path / place / "Phantom", dims=dims, cases=3, test_cases=1, seed=seed))
        for place, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert one == same
    images = [name for name in one if name.startswith("images")]
    assert len(images) == 4
    assert not {one[name] for name in images} & set(other.values())


def test_every_case_has_image_labels_of_all_raters_and_probabilities(volumes: Path) -> None:
    for part, count in (("Tr", 7), ("Ts", 2)):
        names = {path.name.removesuffix("_0000.nii.gz") for path in (volumes / f"images{part}").iterdir()}
        assert len(names) == count
        for labels in (f"labels{part}", f"labels{part}_rater2", f"labels{part}_rater3"):
            assert {path.name.removesuffix(".nii.gz") for path in (volumes / labels).iterdir()} == names
        expected = {f"{name}_{value:04d}.nii.gz" for name in names for value in (1, 2, 3)}
        assert {path.name for path in (volumes / f"probabilities{part}").iterdir()} == expected


def test_all_files_of_a_case_lie_on_one_grid(volumes: Path) -> None:
    for image_path in (volumes / "imagesTr").iterdir():
        name = image_path.name.removesuffix("_0000.nii.gz")
        image = nib.load(image_path)
        others = [volumes / f"labelsTr{suffix}" / f"{name}.nii.gz" for suffix in ("", "_rater2", "_rater3")]
        others += [volumes / "probabilitiesTr" / f"{name}_{value:04d}.nii.gz" for value in (1, 2, 3)]
        for other in map(nib.load, others):
            assert other.shape == image.shape
            np.testing.assert_array_equal(other.affine, image.affine)


def test_probabilities_are_between_zero_and_one_and_fit_the_raters(volumes: Path) -> None:
    outside, certain, agreement = 0, 0, []
    for path in (volumes / "labelsTr").iterdir():
        name = path.name.removesuffix(".nii.gz")
        maps = [
            np.asarray(nib.load(volumes / "probabilitiesTr" / f"{name}_{value:04d}.nii.gz").dataobj)
            for value in (1, 2, 3)
        ]
        stacked = np.stack([1 - sum(maps), *maps])
        assert stacked.min() >= -1e-6
        assert stacked.max() <= 1 + 1e-6
        for suffix in ("", "_rater2", "_rater3"):
            labels = np.asarray(nib.load(volumes / f"labelsTr{suffix}" / f"{name}.nii.gz").dataobj)
            chosen = np.take_along_axis(stacked, labels[None].astype(int), axis=0)
            outside += int((chosen < 1e-6).sum())
            certain += int((stacked.max(0) < 0.999).sum())
            agreement.append((chosen.mean(), (stacked**2).sum(0).mean()))
    assert outside <= 2
    assert certain > 1000
    # The probability a rater gives the drawn class is sum_k p_k^2 on average.
    drawn, expected = np.mean(agreement, axis=0)
    assert drawn == pytest.approx(expected, abs=0.002)


def test_the_description_is_nnunet_raw(volumes: Path, pictures: Path) -> None:
    for folder, ending in ((volumes, ".nii.gz"), (pictures, ".png")):
        description = json.loads((folder / "dataset.json").read_text())
        assert description["labels"] == {"background": 0, "organ": 1, "lesion": 2, "tube": 3}
        assert description["channel_names"] == {"0": "phantom"}
        assert description["numTraining"] == 7
        assert description["file_ending"] == ending


@pytest.mark.parametrize("dims", [2, 3])
def test_the_layout_opens_as_a_data_set(dims: int, request: pytest.FixtureRequest) -> None:
    dataset = open_dataset(request.getfixturevalue("pictures" if dims == 2 else "volumes"))
    assert dataset.faults == ()
    assert (dataset.name, dataset.task.dims, dataset.task.structures) == ("Phantom", dims, STRUCTURES)
    assert (len(dataset.cases), len(dataset.test_cases)) == (7, 2)
    assert len(dataset.split("train")) + len(dataset.split("val")) == 7
    for case in (*dataset.cases, *dataset.test_cases):
        image, label = load_case(case, dataset.task)
        assert label is not None
        assert image.grid.matches(label.grid)
        assert set(np.unique(label.voxels)) <= {0, 1, 2, 3}
        assert len(case.raters) == 2
        assert {"age", "sex", "site"} <= set(case.attributes)


def test_attributes_name_every_case_and_folds_keep_patients_together(volumes: Path) -> None:
    rows = list(csv.DictReader((volumes / "attributes.csv").open()))
    assert len(rows) == 9
    patients = {row["case"]: row["patient"] for row in rows}
    training = {row["case"] for row in rows if row["part"] == "training"}
    tested = {patients[row["case"]] for row in rows if row["part"] == "test"}
    assert not tested & {patients[case] for case in training}
    for fold in json.loads((volumes / "splits_final.json").read_text()):
        assert set(fold["train"]) | set(fold["val"]) == training
        assert not {patients[case] for case in fold["train"]} & {patients[case] for case in fold["val"]}


def test_the_truth_states_widths_and_expected_volumes(volumes: Path) -> None:
    truth = json.loads((volumes / "phantom.json").read_text())
    assert truth["structures"]["organ"] == {"label": 1, "edge_sd_mm": 0.8, "rater_sd_mm": 0.5}
    assert truth["structures"]["lesion"]["rater_sd_mm"] > truth["structures"]["tube"]["rater_sd_mm"]
    for case, expected in truth["expected_volume_ml"].items():
        part = "Tr" if (volumes / "imagesTr" / f"{case}_0000.nii.gz").exists() else "Ts"
        probability = nib.load(volumes / f"probabilities{part}" / f"{case}_0001.nii.gz")
        volume = np.asarray(probability.dataobj).sum() * abs(np.linalg.det(probability.affine[:3, :3])) / 1000
        assert expected["organ"] == pytest.approx(volume, rel=1e-4)


def test_pictures_are_grey_png_with_16_bit_probabilities(pictures: Path) -> None:
    truth = json.loads((pictures / "phantom.json").read_text())
    assert truth["pixel_mm"] == 0.6
    for path in (pictures / "imagesTr").iterdir():
        name = path.name.removesuffix("_0000.png")
        image, labels = np.asarray(Image.open(path)), np.asarray(Image.open(pictures / "labelsTr" / f"{name}.png"))
        assert image.dtype == labels.dtype == np.uint8
        assert image.shape == labels.shape == (113, 100)
        assert set(np.unique(labels)) <= {0, 1, 2, 3}
        probability = np.asarray(Image.open(pictures / "probabilitiesTr" / f"{name}_0001.png")) / 65535
        assert probability.sum() == pytest.approx(truth["expected_pixels"][name]["organ"], rel=1e-3)
        # Most of what the first rater calls organ is likely organ.
        assert probability[labels == 1].mean() > 0.8


def test_softer_edges_and_unsure_raters_can_be_asked_for(tmp_path: Path) -> None:
    def undecided(folder: Path) -> float:
        maps = [np.asarray(Image.open(path)) / 65535 for path in sorted((folder / "probabilitiesTr").iterdir())]
        return float(np.mean([(values * (1 - values)).sum() for values in maps]))

    sure, unsure = (
        write_phantom_dataset(tmp_path / str(spread), dims=2, cases=3, test_cases=0, rater_sd_mm=spread)
        for spread in (0.4, 1.6)
    )
    assert undecided(unsure) > 2 * undecided(sure)
    assert not (sure / "imagesTs").exists()


def test_progress_counts_every_scan(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_phantom_dataset(
        tmp_path / "P", dims=2, cases=3, test_cases=1, raters=1, progress=lambda *now: calls.append(now)
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("argument", "value"),
    [("dims", 4), ("cases", 1), ("test_cases", -1), ("seed", -1), ("raters", 0), ("edge_sd_mm", 0), ("rater_sd_mm", 9)],
)
def test_an_impossible_argument_is_refused_by_name(argument: str, value: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{argument} is {value}; expected"):
        write_phantom_dataset(tmp_path / "P", **{argument: value})
    assert not (tmp_path / "P").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="exists already"):
        write_phantom_dataset(tmp_path, dims=2)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "make_folds", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_phantom_dataset(tmp_path / "P", dims=2, cases=2)
    assert list(tmp_path.iterdir()) == []
