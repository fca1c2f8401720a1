"""Predicted files of a data set with nested regions and unlabelled voxels, against its labels."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medmargin.errors import DataError
from medmargin.workflows.evaluate_files import evaluate_files

LABELS = {"background": 0, "whole": [1, 2, 4], "core": [2, 4], "enhancing": 4, "ignore": 9}


@pytest.fixture
def truth() -> np.ndarray:
    label = np.zeros((12, 11, 10), np.uint8)
    label[1:10, 1:9, 1:9], label[2:7, 2:7, 2:7], label[3:6, 3:6, 3:6] = 1, 2, 4
    label[:, :, 7:] = 9
    return label


@pytest.fixture
def data(tmp_path: Path, truth: np.ndarray) -> Path:
    folder = tmp_path / "Dataset001_Tumours"
    image = np.random.default_rng(0).normal(100, 20, truth.shape).astype(np.float32)
    _save(folder / "imagesTr" / "case_0_0000.nii.gz", image)
    _save(folder / "labelsTr" / "case_0.nii.gz", truth)
    content = {"channel_names": {"0": "MRI"}, "labels": LABELS, "regions_class_order": [1, 2, 4]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def _save(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def test_regions_are_read_from_written_values_and_unlabelled_voxels_do_not_count(
    tmp_path: Path, data: Path, truth: np.ndarray
) -> None:
    labels = np.where(truth == 9, np.uint8(4), truth)  # wrong where nobody labelled
    labels[truth == 4] = 2  # and without the innermost region
    _save(tmp_path / "out" / "case_0_seg.nii.gz", labels)
    for value, members in ((1, [1, 2, 4]), (2, [2, 4]), (4, [4])):
        _save(tmp_path / "out" / f"case_0_prob_{value}.nii.gz", np.isin(truth, members).astype(np.float32))
    answer = evaluate_files(tmp_path / "out", data, report=tmp_path / "report.html")
    dice = {name: figures["dice"] for name, figures in answer["cases"][0]["structures"].items()}
    assert dice == {"whole": 1.0, "core": 1.0, "enhancing": 0.0}
    assert answer["cases"][0]["structures"]["enhancing"]["state"] == "missed"
    assert answer["cases"][0]["uncertainty"]["brier"] == 0.0
    assert "regions" in answer["conventions"]
    assert (tmp_path / "report.html").stat().st_size > 0


@pytest.mark.parametrize(("value", "message"), [(9, "holds the 'ignore' value"), (3, r"label values 3 \(1 voxels\)")])
def test_a_prediction_with_other_values_is_refused(
    tmp_path: Path, data: Path, truth: np.ndarray, value: int, message: str
) -> None:
    labels = np.where(truth == 9, np.uint8(0), truth)
    labels[0, 0, 0] = value
    _save(tmp_path / "out" / "case_0_seg.nii.gz", labels)
    with pytest.raises(DataError, match=message):
        evaluate_files(tmp_path / "out", data)
