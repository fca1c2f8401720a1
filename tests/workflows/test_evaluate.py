from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medmargin.errors import ConfigError, DataError
from medmargin.workflows.evaluate import evaluate
from medmargin.workflows.evaluate_files import evaluate_files
from medmargin.workflows.predict import predict


@pytest.fixture(scope="module")
def predictions(trained: Path, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predictions")
    result, answer = predict(
        trained, [phantoms], out, split="test", prompts_from=phantoms / "labelsTs", probabilities=True
    )
    assert not result.failures
    assert answer["prompts"] == "labels (evaluation only)"
    return out


def test_one_pass_measures_with_floors_and_writes_a_report(trained: Path, phantoms: Path, tmp_path: Path) -> None:
    answer = evaluate(trained, phantoms, split="test", report=tmp_path / "report.html")
    json.dumps(answer, allow_nan=False)
    summary = answer["summary"]
    assert summary["n"] == 2
    assert not answer["failed"]
    assert summary["floors"]["ellipse"]["dice"] > summary["floors"]["box"]["dice"] > 0.5
    assert summary["uncertainty"]["source"] == "prompt perturbation"
    assert answer["run"]["init"] == "none"
    page = (tmp_path / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page


def test_files_measured_later_give_the_same_numbers(
    trained: Path, phantoms: Path, predictions: Path
) -> None:
    direct = evaluate(trained, phantoms, split="test")
    later = evaluate_files(predictions, phantoms, split="test")
    for one, other in zip(direct["cases"], later["cases"], strict=True):
        for name, figures in one["structures"].items():
            assert other["structures"][name]["dice"] == pytest.approx(figures["dice"], abs=1e-9)
        assert other["uncertainty"]["brier"] == pytest.approx(one["uncertainty"]["brier"], abs=5e-3)


def test_a_bare_folder_of_labels_will_do(phantoms: Path, predictions: Path) -> None:
    answer = evaluate_files(predictions, phantoms / "labelsTs")
    assert answer["summary"]["n"] == 2


def test_one_bad_label_does_not_stop_the_others(trained: Path, phantoms: Path, tmp_path: Path) -> None:
    data = shutil.copytree(phantoms, tmp_path / "data")
    label = sorted((data / "labelsTs").iterdir())[0]
    image = nibabel.load(label)
    nibabel.save(nibabel.Nifti1Image(np.full(image.shape, 77, np.uint8), image.affine), label)
    answer = evaluate(trained, data, split="test")
    assert answer["summary"]["n"] == 1
    assert "77" in answer["failed"][0]["error"]


def test_an_empty_label_is_absent_not_an_error(trained: Path, phantoms: Path, tmp_path: Path) -> None:
    data = shutil.copytree(phantoms, tmp_path / "data")
    label = sorted((data / "labelsTs").iterdir())[0]
    image = nibabel.load(label)
    nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), label)
    answer = evaluate(trained, data, split="test")
    assert not answer["failed"]
    assert answer["cases"][0]["structures"]["organ"]["state"] == "absent"
    assert answer["summary"]["structures"]["organ"]["n_absent"] == 1


def test_splits_and_prompts_that_do_not_exist(trained: Path, phantoms: Path) -> None:
    with pytest.raises(DataError, match="available: train, val, test"):
        evaluate(trained, phantoms, split="calibration")
    with pytest.raises(ConfigError, match="labels"):
        evaluate(trained, phantoms, prompts_from="thin air")


def test_a_run_is_not_measured_on_structures_it_does_not_know(trained: Path, phantoms: Path, tmp_path: Path) -> None:
    data = shutil.copytree(phantoms, tmp_path / "data")
    description = json.loads((data / "dataset.json").read_text())
    description["labels"] = {f"other {name}" if value else name: value for name, value in description["labels"].items()}
    (data / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(ConfigError, match="other organ"):
        evaluate(trained, data, split="test")
