"""One pass over the training cases: what is measured, and what is refused."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.planning import make_plan, measure_fingerprint, planning_cases
from medmargin.errors import DataError

_SHAPE, _AFFINE = (20, 18, 10), np.diag([1.0, 1.0, 2.5, 1.0])


@pytest.fixture
def volumes(tmp_path):
    """Make a data set of CT volumes whose foreground is known: `cases` of them, in a frame of zeros."""

    def build(cases: int = 3, *, label=None, channels=("CT",), shape=_SHAPE):
        folder = tmp_path / "Dataset001_Toy"
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir(parents=True)
        mask = np.zeros(shape, np.uint8)
        mask[6:12, 6:12, : shape[2] // 2], mask[6:12, 6:12, shape[2] // 2 :] = 1, 2
        mask = mask if label is None else label
        for number in range(cases):
            image = np.zeros(shape, np.float32)
            image[4:16, 4:14] = 100 + number
            image[mask > 0] = np.random.default_rng(number).normal(40, 10, np.count_nonzero(mask))
            for channel in range(len(channels)):
                path = folder / "imagesTr" / f"case_{number}_{channel:04d}.nii.gz"
                nibabel.save(nibabel.Nifti1Image(image, _AFFINE), path)
            nibabel.save(nibabel.Nifti1Image(mask, _AFFINE), folder / "labelsTr" / f"case_{number}.nii.gz")
        content = {
            "channel_names": dict(enumerate(channels)),
            "labels": {"background": 0, "organ": 1, "tumour": 2},
            "file_ending": ".nii.gz",
        }
        (folder / "dataset.json").write_text(json.dumps(content))
        return folder

    return build


def _measured(folder, **arguments):
    dataset = open_dataset(folder)
    return measure_fingerprint(dataset.cases, dataset.task, **arguments)


def test_sizes_are_those_of_the_box_around_what_is_not_zero(volumes):
    found = _measured(volumes())
    assert set(found.shapes) == {(12, 10, 10)}
    assert set(found.spacings) == {(1.0, 1.0, 2.5)}
    assert found.kept == pytest.approx(12 * 10 / (20 * 18))
    assert found.structures == {"organ": 3, "tumour": 3}


def test_intensities_are_those_of_the_foreground(volumes):
    found = _measured(volumes()).intensities["CT"]
    assert (found.mean, found.standard_deviation) == pytest.approx((40, 10), abs=1.5)
    assert (found.percentile_low, found.percentile_high) == pytest.approx((40 - 25.8, 40 + 25.8), abs=6)


def test_the_same_seed_measures_the_same(volumes, monkeypatch):
    monkeypatch.setattr("medmargin.datasets.planning.fingerprint.SAMPLES_PER_CASE", 50)
    folder = volumes()
    assert _measured(folder, seed=1) == _measured(folder, seed=1)
    assert _measured(folder, seed=1).intensities != _measured(folder, seed=2).intensities


def test_progress_counts_every_case(volumes):
    seen = []
    _measured(volumes(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_cases_set_apart_are_not_looked_at(volumes):
    folder = volumes(cases=4)
    split = {"train": ["case_0"], "val": ["case_1"], "calibration": ["case_2"], "test": ["case_3"]}
    (folder / "splits.json").write_text(json.dumps(split))
    assert [case.name for case in planning_cases(open_dataset(folder))] == ["case_0", "case_1"]


def test_no_foreground_at_all_is_refused(volumes):
    with pytest.raises(DataError, match="every training label is empty"):
        _measured(volumes(label=np.zeros(_SHAPE, np.uint8)))


def test_a_structure_no_case_holds_is_named(volumes):
    label = np.zeros(_SHAPE, np.uint8)
    label[6:12, 6:12] = 1
    with pytest.raises(DataError, match="no training case holds tumour"):
        _measured(volumes(label=label))


def test_a_missing_channel_is_named(volumes):
    folder = volumes(channels=("T1", "T2"))
    (folder / "imagesTr" / "case_1_0001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"case_1.*T2"):
        _measured(folder)


def test_no_labelled_case_is_refused(volumes):
    dataset = open_dataset(volumes())
    with pytest.raises(DataError, match="no labelled training case"):
        measure_fingerprint((), dataset.task)


def test_volumes_of_one_slice_are_planned_as_slices(volumes):
    label = np.zeros((20, 18, 1), np.uint8)
    label[6:9, 6:12], label[9:12, 6:12] = 1, 2
    plan = make_plan(_measured(volumes(shape=(20, 18, 1), label=label)))
    assert (plan.chosen, plan.slices, plan.axis_order[0]) == ("2d", 1, 2)
