"""The journeys of a system that needs no prompt."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medmargin.errors import ConfigError
from medmargin.workflows.evaluate import evaluate
from medmargin.workflows.model import load
from medmargin.workflows.predict import predict
from medmargin.workflows.train import train


def trained_with(phantoms: Path, run: Path, seed: int = 0, **settings: object) -> Path:
    outcome = train(
        "udeg-net", phantoms, run=run, steps=3, seed=seed, scale="laptop", settings={"init": "none", **settings},
        progress=False,
    )  # fmt: skip
    assert (outcome.steps, outcome.stopped_by) == (3, "steps")
    return run


@pytest.fixture(scope="module")
def automatic(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_with(phantoms, tmp_path_factory.mktemp("runs") / "automatic")


def test_files_come_without_a_prompt(automatic: Path, phantoms: Path, tmp_path: Path) -> None:
    result, answer = predict(automatic, [phantoms], tmp_path, split="test")
    assert not result.failures
    assert answer["prompts"] == "none"
    case = result.results[0].case
    image = nibabel.load(next((phantoms / "imagesTs").glob(f"{case}*")))
    for kind in ("seg", "uncertainty", "uncertainty_aleatoric", "vacuity", "edge", "edge_uncertainty"):
        written = nibabel.load(tmp_path / f"{case}_{kind}.nii.gz")
        assert written.shape == image.shape[:3]
        np.testing.assert_allclose(written.affine, image.affine, atol=1e-5)
    told = json.loads((tmp_path / f"{case}_confidence.json").read_text())
    assert told["prompts"] == "none"
    assert 0 < told["flagged"]["threshold"] <= 1


def test_an_evaluation_has_no_floors_unless_boxes_are_given(automatic: Path, phantoms: Path) -> None:
    plain = evaluate(automatic, phantoms, split="test")
    json.dumps(plain, allow_nan=False)
    assert plain["summary"]["n"] == 2
    assert plain["summary"]["uncertainty"]["source"] == "evidential"
    assert plain["summary"]["uncertainty"]["forward_passes"] == 1
    assert plain["summary"]["floors"]["box"]["dice"] is None
    assert plain["data"]["prompts"] == "none"
    given = evaluate(automatic, phantoms, split="test", prompts_from="labels")
    assert given["summary"]["floors"]["ellipse"]["dice"] > 0.5


def test_estimators_are_interchangeable_and_refuse_what_they_cannot_do(
    automatic: Path, phantoms: Path, tmp_path: Path
) -> None:
    second = trained_with(phantoms, tmp_path / "second", seed=1)
    answer = evaluate(automatic, phantoms, split="test", members=[second])
    assert answer["summary"]["uncertainty"]["forward_passes"] == 2
    answer = evaluate(automatic, phantoms, split="test", uncertainty="test-time-augmentation")
    assert answer["summary"]["uncertainty"]["forward_passes"] > 1
    with pytest.raises(ConfigError, match="dropout"):
        evaluate(automatic, phantoms, split="test", uncertainty="mc-dropout")
    with pytest.raises(ConfigError, match="member"):
        load(automatic, uncertainty="ensemble")
    with pytest.raises(ConfigError, match="snapshots"):
        load(automatic, uncertainty="snapshots")
    with pytest.raises(ConfigError, match="nearest: evidential"):
        load(automatic, uncertainty="evidental")


def test_a_softmax_head_collects_no_evidence(phantoms: Path, tmp_path: Path) -> None:
    run = trained_with(phantoms, tmp_path / "softmax", evidential=False, edge_prompts=False)
    with pytest.raises(ConfigError, match="evidence"):
        load(run, uncertainty="evidential")
    model = load(run)
    answer = model(np.random.default_rng(0).normal(size=(40, 30, 3)).astype(np.float32), spacing=(1.0, 1.0, 2.0))
    assert answer.labels.shape == (40, 30, 3)
    assert set(answer.uncertainty) == {"total"}
    assert not answer.maps


def test_a_box_on_top_changes_the_answer(automatic: Path) -> None:
    model = load(automatic)
    image = np.random.default_rng(0).normal(size=(64, 64, 1)).astype(np.float32)
    alone = model(image).probabilities
    boxed = model(image, box=(10, 10, 40, 40)).probabilities
    assert alone is not None
    assert boxed is not None
    assert np.abs(alone - boxed).max() > 1e-6
