"""Small data sets, and a run trained on phantoms for a few steps, shared by the journeys' tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from medmargin.datasets.phantoms import write_phantom_dataset


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and two test volumes."""
    folder = tmp_path_factory.mktemp("data") / "Dataset900_Phantom"
    return write_phantom_dataset(folder, cases=8, test_cases=2, raters=1)


@pytest.fixture(scope="session")
def trained(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps from random weights."""
    from medmargin.workflows.train import train

    run = tmp_path_factory.mktemp("runs") / "phantom"
    outcome = train("u-medsam", phantoms, run=run, steps=4, scale="laptop", settings={"init": "none"}, progress=False)
    assert (outcome.steps, outcome.stopped_by) == (4, "steps")
    return run


@pytest.fixture(scope="session")
def toy_volumes() -> Callable[..., Path]:
    """Write a data set of small volumes, no two of them on the same kind of grid: flipped, turned, thick slices."""
    return _write_toy_volumes


def _write_toy_volumes(
    folder: Path,
    *,
    kind: str = "plain",
    cases: int = 4,
    test_cases: int = 3,
    sides: tuple[int, int, int] = (20, 18, 14),
) -> Path:
    """Write bright balls in noise.

    Args:
        folder: its name is Dataset<number>_<name>.
        kind: "plain", "channels" (two), "regions" (a core within the whole) or "ignore" (some voxels unlabelled).
        sides: voxels of the first image at 1 mm.
    """
    labels: dict[str, Any] = {"background": 0, "ball": 1, "seed": 2}
    description: dict[str, Any] = {"channel_names": {"0": "MRI"}, "file_ending": ".nii.gz"}
    if kind == "channels":
        description["channel_names"] = {"0": "T1", "1": "T2"}
    if kind == "regions":
        labels = {"background": 0, "whole": [1, 2], "core": 2}
        description["regions_class_order"] = [1, 2]
    if kind == "ignore":
        labels["ignore"] = 3
    for half, count, first in (("Tr", cases, 0), ("Ts", test_cases, 2)):
        for name in ("images", "labels"):
            (folder / f"{name}{half}").mkdir(parents=True)
        for index in range(count):
            image, label, affine = _toy_volume(first + index, kind, sides)
            for channel in range(len(description["channel_names"])):
                path = folder / f"images{half}" / f"{half}_{index}_{channel:04d}.nii.gz"
                nibabel.Nifti1Image(image * (1 - 2 * channel), affine).to_filename(path)
            nibabel.Nifti1Image(label, affine).to_filename(folder / f"labels{half}" / f"{half}_{index}.nii.gz")
    description |= {"labels": labels, "numTraining": cases}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def _toy_volume(index: int, kind: str, sides: tuple[int, int, int]) -> tuple[NDArray, NDArray, NDArray]:
    """Make an image of noise with a ball in a ball, and a grid: plain, flipped, with swapped axes, thick, oblique."""
    rng = np.random.default_rng(index)
    shape = np.array(sides) + rng.integers(-2, 3, 3)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    if index % 5 == 1:
        affine[:2] *= -1
    if index % 5 == 2:
        shape, affine = shape[[1, 2, 0]], affine[:, [1, 2, 0, 3]]
    if index % 5 == 3:
        shape, affine = np.array([shape[0], shape[1], 6]), affine @ np.diag([0.8, 0.8, 2.5, 1])
    if index % 5 == 4:
        turn = np.deg2rad(20)
        affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, 3] = rng.uniform(-50, 50, 3)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    middle = (shape - 1) / 2 + rng.choice((-2, 2), 3) * (np.array(shape) > 6)  # beside the middle, as mirrors show
    places = np.stack(np.indices(shape)) - middle[:, None, None, None]
    distances = np.sqrt((np.square(places) * np.square(spacing)[:, None, None, None]).sum(0))
    label = (distances < 5).astype(np.uint8) + (distances < 2.5)
    image = rng.normal(100, 10, shape) + 60.0 * label
    if kind == "ignore":
        label[: shape[0] // 4] = 3
    return image.astype(np.int16), label.astype(np.uint8), affine
