from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medmargin.errors import ConfigError, PromptError
from medmargin.workflows.predict import predict


@pytest.fixture
def scan(phantoms: Path) -> Path:
    return sorted((phantoms / "imagesTs").iterdir())[0]


def test_typed_box_writes_everything_on_the_files_grid(trained: Path, scan: Path, tmp_path: Path) -> None:
    source = nibabel.load(scan)
    i, j, k = (size // 2 for size in source.shape)
    result, answer = predict(trained, [scan], tmp_path, box=f"{i - 9},{j - 9},{k - 3},{i + 9},{j + 9},{k + 3}")
    assert not result.failures
    name = answer["cases"][0]["case"]
    assert {Path(file).name for file in answer["cases"][0]["files"]} >= {
        f"{name}_seg.nii.gz", f"{name}_uncertainty.nii.gz", f"{name}_confidence.csv", f"{name}_confidence.json",
    }  # fmt: skip
    for part in ("seg", "uncertainty"):
        written = nibabel.load(tmp_path / f"{name}_{part}.nii.gz")
        assert written.shape == source.shape
        np.testing.assert_allclose(written.affine, source.affine, atol=1e-5)
    assert json.loads((tmp_path / f"{name}_confidence.json").read_text())["prompts"] == "user"


def test_row_10_one_time_point_of_several_is_chosen(trained: Path, scan: Path, tmp_path: Path) -> None:
    source = nibabel.load(scan)
    series = np.stack([np.asarray(source.dataobj)] * 3, axis=-1)
    nibabel.save(nibabel.Nifti1Image(series, source.affine), tmp_path / "cine.nii.gz")
    refused, _ = predict(trained, [tmp_path / "cine.nii.gz"], tmp_path / "out", box="5,5,5,20,20,5")
    assert "--volume-index" in refused.failures[0].error
    result, _ = predict(trained, [tmp_path / "cine.nii.gz"], tmp_path / "out", box="5,5,5,20,20,5", volume_index=1)
    assert nibabel.load(tmp_path / "out" / "cine_seg.nii.gz").shape == source.shape
    assert not result.failures


def test_csv_of_boxes_and_points_in_millimetres(trained: Path, scan: Path, tmp_path: Path) -> None:
    affine, shape = nibabel.load(scan).affine, nibabel.load(scan).shape
    middle, reach = np.array(shape) // 2, np.array([7, 7, 0])
    corners = [affine @ np.append(corner, 1) for corner in (middle - reach, middle + reach)]
    low, high = np.minimum(*corners)[:3], np.maximum(*corners)[:3]
    name = scan.name.removesuffix("_0000.nii.gz")
    with open(tmp_path / "boxes.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case", "structure", "x_min", "y_min", "z_min", "x_max", "y_max", "z_max"])
        writer.writerow([name, "organ", *low, *high])
    result, _ = predict(trained, [scan], tmp_path / "out", boxes=tmp_path / "boxes.csv", in_mm=True)
    assert not result.failures


def test_bad_cases_are_listed_and_the_others_finished(trained: Path, phantoms: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for source in (phantoms / "imagesTs").iterdir():
        (images / source.name).write_bytes(source.read_bytes())
    victim = sorted(images.iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:1000])
    result, answer = predict(trained, [images], tmp_path / "out", prompts_from=phantoms / "labelsTs")
    assert len(result.results) == 1
    assert "DataError" in answer["failed"][0]["error"]
    listed = json.loads((tmp_path / "out" / "failed.json").read_text())
    assert [failure["case"] for failure in listed] == [answer["failed"][0]["case"]]


def test_pictures_give_pictures(trained: Path, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 70), np.uint8)).save(tmp_path / "foto.png")
    result, _ = predict(trained, [tmp_path / "foto.png"], tmp_path / "out", box="20,5,50,30")
    assert not result.failures
    assert Image.open(tmp_path / "out" / "foto_seg.png").size == (70, 40)


@pytest.mark.parametrize(
    ("prompts", "complaint"),
    [({}, "needs prompts"), ({"box": "1,2,3"}, "4 numbers"), ({"box": "0,0,5,5", "boxes": "x.csv"}, "one kind")],
)
def test_prompts_that_make_no_sense(prompts: dict, complaint: str, trained: Path, scan: Path, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=complaint):
        predict(trained, [scan], tmp_path, **prompts)


def test_row_32_an_image_smaller_than_the_network_input_is_padded_and_cropped_back(
    trained: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 7), np.uint8)).save(tmp_path / "tiny.png")
    result, _ = predict(trained, [tmp_path / "tiny.png"], tmp_path / "out", box="1,1,5,3")
    assert not result.failures
    assert Image.open(tmp_path / "out" / "tiny_seg.png").size == (7, 5)


def test_a_box_outside_the_image_fails_that_case(trained: Path, scan: Path, tmp_path: Path) -> None:
    result, _ = predict(trained, [scan], tmp_path, box="500,500,1,600,600,2")
    assert "outside the image" in result.failures[0].error


def test_too_little_memory_is_refused_before_the_start(trained: Path, scan: Path, tmp_path: Path) -> None:
    result, _ = predict(trained, [scan], tmp_path, box="5,5,5,20,20,5", memory="1M")
    assert result.failures[0].exit_code == 5
    assert not list(tmp_path.glob("*_seg*"))


def test_no_input_at_all(trained: Path, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, PromptError)):
        predict(trained, [], tmp_path, box="1,1,2,2")
