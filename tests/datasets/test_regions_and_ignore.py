"""A data set of nested regions with unlabelled slices, through every step between its files and a plan."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from medmargin.datasets.check import check_dataset
from medmargin.datasets.convert import convert_dataset
from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.loading import load_case
from medmargin.datasets.planning import measure_fingerprint
from medmargin.errors import ConfigError, DataError

LABELS = {"background": 0, "whole": [1, 2, 4], "core": [2, 4], "enhancing": 4, "ignore": 9}
ORDER = [1, 2, 4]


@pytest.fixture
def tumours(volumes):
    """Two cases whose labels hold 1 in 2 in 4, nested, and 9 in the last two slices."""
    folder = volumes(2, labels=LABELS, regions_class_order=ORDER)
    for path in (folder / "labelsTr").iterdir():
        _save(path, _label())
    return folder


def _label():
    label = np.zeros((9, 8, 7), np.uint8)
    label[1:8, 1:7, 0:5] = 1
    label[2:6, 2:6, 1:5] = 2
    label[3:5, 3:5, 2:4] = 4
    label[..., 5:] = 9
    return label


def _save(path, label):
    nibabel.save(nibabel.Nifti1Image(label, nibabel.load(path).affine), path)


def test_labels_become_contiguous_with_the_unlabelled_voxels_last(tumours):
    dataset = open_dataset(tumours)
    label = load_case(dataset.cases[0], dataset.task)[1].voxels[0]
    np.testing.assert_array_equal(label, np.array([0, 1, 2, 0, 3, 0, 0, 0, 0, 4])[_label()])
    np.testing.assert_array_equal(dataset.task.mask(label, "core"), np.isin(_label(), [2, 4]))


def test_the_check_counts_regions_and_not_what_nobody_labelled(tumours):
    report = check_dataset(tumours)
    assert report.structures == {"whole": 2, "core": 2, "enhancing": 2}
    assert not report.errors


def test_a_label_of_unlabelled_voxels_alone_is_empty(tumours):
    _save(tumours / "labelsTr" / "case_1.nii.gz", np.where(_label() == 9, np.uint8(9), np.uint8(0)))
    report = check_dataset(tumours)
    assert (report.empty_labels, report.structures["whole"]) == (1, 1)


def test_a_value_listed_nowhere_is_still_an_error(tumours):
    label = _label()
    label[0, 0, 0] = 3
    _save(tumours / "labelsTr" / "case_0.nii.gz", label)
    (fault,) = check_dataset(tumours).errors
    assert fault.code == "label-values"
    assert "3 (1 voxels)" in fault.message
    assert "2 (core), 4 (enhancing), 9 (ignore)" in fault.message


def test_a_region_in_one_slice_is_reported_by_its_own_extent(tumours):
    label = _label()
    label[label == 4] = 2
    label[3:5, 3:5, 2] = 4
    _save(tumours / "labelsTr" / "case_0.nii.gz", label)
    thin = [fault.message for fault in check_dataset(tumours).warnings if fault.code == "thin-label"]
    assert len(thin) == 1
    assert "'enhancing' covers one slice" in thin[0]


def test_unlabelled_voxels_shape_no_plan(tumours):
    before = _fingerprint(tumours)
    for path in (tumours / "imagesTr").iterdir():
        image = nibabel.load(path)
        voxels = image.get_fdata(dtype=np.float32)
        voxels[..., 5:] = 5000
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)
    after = _fingerprint(tumours)
    assert after.intensities == before.intensities
    assert after.structures == {"whole": 2, "core": 2, "enhancing": 2}


def _fingerprint(folder):
    dataset = open_dataset(folder)
    return measure_fingerprint(dataset.cases, dataset.task)


@pytest.mark.parametrize("layout", ["nnunet", "manifest", "npz"])
def test_conversions_keep_regions_and_unlabelled_voxels(tumours, tmp_path, layout):
    source = open_dataset(tumours)
    convert_dataset(source, tmp_path / "new", layout)
    new = open_dataset(tmp_path / "new")
    assert (new.task.structures, new.task.regions, new.task.ignore) == (
        source.task.structures, source.task.regions, source.task.ignore,
    )  # fmt: skip
    for one, other in zip(source.cases, new.cases, strict=True):
        np.testing.assert_array_equal(load_case(one, source.task)[1].voxels, load_case(other, new.task)[1].voxels)


def test_a_layout_without_a_place_for_them_is_refused(tumours, tmp_path):
    with pytest.raises(ConfigError, match=r"the MSD layout has no place for .* convert to 'nnunet'"):
        convert_dataset(open_dataset(tumours), tmp_path / "new", "msd")


def test_a_wrong_order_is_an_error_when_the_data_set_is_opened(tumours):
    description = json.loads((tumours / "dataset.json").read_text())
    description["labels"] = {"enhancing": 4, "whole": [1, 2, 4], "core": [2, 4], "ignore": 9}
    description["regions_class_order"] = [4, 1, 2]
    (tumours / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(DataError, match=r"value 4 lies in enhancing, whole, core, .* reads as whole, core"):
        open_dataset(tumours)
