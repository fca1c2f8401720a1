"""Challenge layout: folders of NPZ files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medmargin.datasets.check import check_dataset
from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.layouts.npz import challenge_intensities
from medmargin.datasets.loading import load_case
from medmargin.errors import DataError


def _write(folder, name, **arrays):
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / f"{name}.npz", **arrays)


@pytest.fixture
def challenge(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (3, 5, 6, 7)).astype(np.uint8)  # (case, D, H, W)
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[1:4, 1:4, 1:4] = 1
    labels[2:5, 4:6, 4:7] = 3
    spacing = np.array([0.5, 0.5, 2.0])
    _write(tmp_path, "3D_a", imgs=images[0], gts=labels, spacing=spacing)
    _write(tmp_path, "3D_b", imgs=images[1], spacing=spacing)
    _write(tmp_path / "test", "3D_c", imgs=images[2], gts=labels, spacing=spacing)
    return tmp_path


def test_files_are_cases_and_values_are_named(challenge):
    dataset = open_dataset(challenge)
    assert (dataset.layout, dataset.task.dims, dataset.task.unit) == ("npz", 3, "mm")
    assert dataset.task.structures == {"label 1": 1, "label 3": 2}
    assert [case.name for case in dataset.cases] == ["3D_a"]
    assert [case.name for case in dataset.unlabelled_cases] == ["3D_b"]
    assert [case.name for case in dataset.split("test")] == ["3D_c"]
    image, label = load_case(dataset.cases[0], dataset.task)
    assert image.voxels.shape == (1, 7, 6, 5)
    assert image.spacing == (0.5, 0.5, 2.0)
    assert label is not None
    assert (label.voxels == 2).sum() == 3 * 2 * 3
    assert check_dataset(dataset).faults == ()


def test_a_description_names_the_structures(challenge):
    content = {"channel_names": {"0": "CT"}, "labels": {"liver": 1, "spleen": 3}, "name": "Abdomen"}
    (challenge / "dataset.json").write_text(json.dumps(content))
    dataset = open_dataset(challenge)
    assert (dataset.name, dataset.task.modality) == ("Abdomen", "CT")
    assert dataset.task.original_values == {"liver": 1, "spleen": 3}


def test_colour_pictures_have_three_channels(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    _write(tmp_path, "2D_a", imgs=pixels, gts=np.eye(8, 9, dtype=np.uint8))
    task = open_dataset(tmp_path).task
    assert (task.dims, task.channels, task.unit) == (2, ("R", "G", "B"), "px")


def test_unlabelled_files_without_description_are_refused_with_an_example(tmp_path):
    _write(tmp_path, "2D_a", imgs=np.ones((8, 9), np.uint8))
    with pytest.raises(DataError, match=r'no structure found in 0 label maps.*"channel_names"'):
        open_dataset(tmp_path)


def test_a_folder_of_damaged_files_is_refused(tmp_path):
    (tmp_path / "3D_a.npz").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(DataError):
        open_dataset(tmp_path)


voxels = hnp.arrays(np.float32, (1, 4, 4, 4), elements=st.floats(-3000, 3000, width=32))


@given(voxels, st.booleans())
def test_scaled_intensities_keep_their_order_and_fill_a_byte(values, is_ct):
    scaled = challenge_intensities(values, is_ct=is_ct)
    assert scaled.dtype == np.uint8
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(scaled.ravel()[order].astype(int)) >= 0).all()
    if np.ptp(scaled):
        assert (scaled.min(), scaled.max()) == (0, 255)


def test_the_ct_window_is_minus_160_to_240_hu():
    values = np.array([-1000, -160, 40, 240, 3000], np.int16).reshape(1, 5, 1, 1)
    assert challenge_intensities(values, is_ct=True).ravel().tolist() == [0, 0, 128, 255, 255]


def test_bytes_stay_as_they_are():
    values = np.arange(10, 18, dtype=np.uint8).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(challenge_intensities(values, is_ct=False), values)
