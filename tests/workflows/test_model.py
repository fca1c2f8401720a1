from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import medmargin
from medmargin.errors import CheckpointError, ConfigError
from medmargin.imaging import read_image


def test_three_lines_of_python(trained: Path, phantoms: Path) -> None:
    model = medmargin.load(trained)
    image = next((phantoms / "imagesTs").iterdir())
    volume = read_image(image)
    i, j, k = (size // 2 for size in volume.grid.shape)
    answer = model(image, box=(i - 8, j - 8, k, i + 8, j + 8, k), structure="organ")
    assert answer.labels.shape == volume.grid.shape
    assert [found.name for found in answer.structures] == ["organ"]
    found = answer.structures[0]
    assert found.low_ml <= found.volume_ml <= found.high_ml
    assert 0 <= found.confidence <= 1


def test_an_array_has_no_millilitres_without_a_spacing(trained: Path) -> None:
    picture = np.random.default_rng(0).random((60, 50, 1), np.float32)
    model = medmargin.load(trained)
    assert model(picture, box=(5, 5, 30, 30)).structures[0].volume_ml is None
    assert model(picture, box=(5, 5, 30, 30), spacing=(1, 1, 1)).structures[0].volume_ml is not None


def test_nothing_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such run folder"):
        medmargin.load(tmp_path / "nowhere")


def test_damaged_weights_are_refused(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        medmargin.load(run)


def test_unknown_uncertainty_is_refused(trained: Path) -> None:
    with pytest.raises(ConfigError, match="prompt-perturbation"):
        medmargin.load(trained, uncertainty="prompt-pertubation")
    assert medmargin.load(trained, uncertainty="none").predictor.uncertainty is None
