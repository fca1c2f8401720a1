"""Small data sets in nnU-Net raw layout, made for one test each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

Build = Callable[..., Path]
SHAPE = (9, 8, 7)


@pytest.fixture
def sound_image() -> Callable[[int], np.ndarray]:
    """Make the voxels of a usable image; each seed gives another one."""
    return lambda seed: np.random.default_rng(seed).normal(100, 20, SHAPE).astype(np.float32)


@pytest.fixture
def sound_label() -> np.ndarray:
    """Voxels of a label with both structures."""
    label = np.zeros(SHAPE, np.uint8)
    label[2:6, 2:6, 1:4] = 1
    label[3:7, 2:6, 4:6] = 2
    return label


@pytest.fixture
def volumes(tmp_path, sound_image, sound_label) -> Build:
    """Make a 3-D data set of `cases` sound cases named case_0, case_1, ... and return its folder."""

    def build(cases: int = 2, *, part: str = "Tr", folder: Path | None = None, **description) -> Path:
        folder = tmp_path / "Dataset001_Toy" if folder is None else folder
        for name in (f"images{part}", f"labels{part}"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        content = {
            "channel_names": {"0": "MRI"},
            "labels": {"background": 0, "organ": 1, "tumour": 2},
            "file_ending": ".nii.gz",
            **description,
        }
        (folder / "dataset.json").write_text(json.dumps(content))
        for number in range(cases):
            prefix = "case" if part == "Tr" else "test"
            image = nibabel.Nifti1Image(sound_image(number + 100 * (part == "Ts")), np.diag([1.0, 1.0, 2.5, 1.0]))
            label = nibabel.Nifti1Image(sound_label, image.affine)
            for volume in (image, label):
                volume.header.set_xyzt_units("mm")
            nibabel.save(image, folder / f"images{part}" / f"{prefix}_{number}_0000.nii.gz")
            nibabel.save(label, folder / f"labels{part}" / f"{prefix}_{number}.nii.gz")
        return folder

    return build


@pytest.fixture
def pictures(tmp_path) -> Build:
    """Make a 2-D data set of sound PNG cases pic_0, pic_1, ... and return its folder."""

    def build(cases: int = 2, *, rgb: bool = False, **description) -> Path:
        folder = tmp_path / "Dataset002_Pictures"
        for name in ("imagesTr", "labelsTr"):
            (folder / name).mkdir(parents=True)
        channels = ["R", "G", "B"] if rgb else ["US"]
        content = {
            "channel_names": dict(enumerate(channels)),
            "labels": {"background": 0, "lesion": 1},
            "file_ending": ".png",
            **description,
        }
        (folder / "dataset.json").write_text(json.dumps(content))
        label = np.zeros((12, 16), np.uint8)  # 12 rows, 16 columns
        label[3:7, 4:12] = 1
        for number in range(cases):
            shape = (12, 16, 3) if rgb else (12, 16)
            pixels = np.random.default_rng(number).integers(0, 255, shape).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "imagesTr" / f"pic_{number}_0000.png")
            Image.fromarray(label).save(folder / "labelsTr" / f"pic_{number}.png")
        return folder

    return build
