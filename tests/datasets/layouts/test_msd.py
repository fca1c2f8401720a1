"""Medical Segmentation Decathlon layout."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.layouts import msd
from medmargin.datasets.loading import load_case
from medmargin.errors import DataError


@pytest.fixture
def decathlon(tmp_path, sound_image, sound_label):
    """Make a data set of two channels in one 4-D file, and return its folder."""

    def build(**description):
        folder = tmp_path / "Task99_Toy"
        for part in ("imagesTr", "labelsTr", "imagesTs"):
            (folder / part).mkdir(parents=True)
        channels = np.stack([sound_image(0), sound_image(1)], axis=-1)
        for part, name in (("imagesTr", "toy_1"), ("imagesTs", "toy_2")):
            nibabel.save(nibabel.Nifti1Image(channels, np.eye(4)), folder / part / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(sound_label, np.eye(4)), folder / "labelsTr" / "toy_1.nii.gz")
        content = {
            "modality": {"0": "T2", "1": "ADC"},
            "labels": {"0": "background", "1": "organ", "2": "tumour"},
            "training": [{"image": "./imagesTr/toy_1.nii.gz", "label": "./labelsTr/toy_1.nii.gz"}],
            "test": ["./imagesTs/toy_2.nii.gz"],
            **description,
        }
        (folder / "dataset.json").write_text(json.dumps(content))
        return folder

    return build


def test_channels_of_a_4_d_file_are_read_in_order(decathlon, sound_image):
    dataset = open_dataset(decathlon())
    assert (dataset.layout, dataset.name, dataset.task.channels) == ("msd", "Toy", ("T2", "ADC"))
    image, label = load_case(dataset.cases[0], dataset.task)
    np.testing.assert_array_equal(image.voxels, [sound_image(0), sound_image(1)])
    assert label is not None
    assert dataset.split("test")[0].name == "toy_2"
    assert dataset.split("test")[0].label is None


def test_a_listed_label_that_is_absent_is_a_finding(decathlon):
    folder = decathlon()
    (folder / "labelsTr" / "toy_1.nii.gz").unlink()
    listing = msd.read(folder)
    assert listing.cases[0].label is None
    assert [(fault.kind, fault.code, fault.case) for fault in listing.faults] == [("W", "image-without-label", "toy_1")]


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"training": [{"label": "a"}]}, r"training\.0\.image"),
        ({"training": [{"image": "../../etc/passwd"}]}, "lies outside"),
        ({"training": [{"image": "/etc/passwd"}]}, "lies outside"),
        ({"test": ["imagesTs/toy_1.nii.gz"]}, "'toy_1' is listed twice"),
        ({"labels": {"background": "0"}}, "not label values"),
    ],
)
def test_wrong_descriptions_are_refused(decathlon, description, message):
    with pytest.raises(DataError, match=message):
        msd.read(decathlon(**description))
