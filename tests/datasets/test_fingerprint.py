"""Checksums of the files, and statistics of the images."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.fingerprint import image_statistics


def test_the_manifest_lists_the_digest_of_every_file(volumes):
    folder = volumes(2)
    manifest = open_dataset(folder).fingerprint()
    assert manifest["name"] == "Toy"
    assert len(manifest["files"]) == 4
    for name, digest in manifest["files"].items():
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_the_digest_of_the_set_follows_content_not_time(volumes):
    folder = volumes(2)
    before = open_dataset(folder).fingerprint()["sha256"]
    path = folder / "imagesTr" / "case_0_0000.nii.gz"
    os.utime(path, (0, 0))
    assert open_dataset(folder).fingerprint()["sha256"] == before
    path.write_bytes(path.read_bytes()[:-1])
    assert open_dataset(folder).fingerprint()["sha256"] != before


def test_statistics_are_those_of_the_voxels(volumes, sound_image):
    dataset = open_dataset(volumes(3))
    statistics = image_statistics(dataset.cases, dataset.task)
    assert statistics.median_shape == (9.0, 8.0, 7.0)
    assert statistics.median_spacing == (1.0, 1.0, 2.5)
    values = np.concatenate([sound_image(number).ravel() for number in range(3)]).astype(np.float64)
    found = statistics.channels["MRI"]
    assert found["mean"] == pytest.approx(values.mean())
    assert found["standard_deviation"] == pytest.approx(values.std())
    assert found["percentile_99.5"] == pytest.approx(np.percentile(values, 99.5))
