"""Batches finish: bad cases are listed, good ones written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from medmargin.errors import BudgetError, ConfigError, DataError
from medmargin.imaging import Volume
from medmargin.inference.batch import Job, case_name, predict_cases
from medmargin.inference.prompted import PromptedPredictor
from medmargin.prompts.types import Box, Prompt

Make = Callable[..., Volume]


@pytest.fixture
def image(volume: Make, blobs: np.ndarray) -> Volume:
    return volume(blobs)


def _job(name: str, image: Volume, box: Box = Box((2, 3, 2), (10, 13, 8))) -> Job:
    return Job(name, lambda: (image, [Prompt("blob", box)]))


def _failing(name: str, error: Exception) -> Job:
    def load() -> tuple[Volume, Sequence[Prompt]]:
        raise error

    return Job(name, load)


def test_one_bad_case_never_stops_the_others(oracle: Callable, image: Volume, tmp_path: Path) -> None:
    jobs = [
        _job("first", image),
        _failing("broken", DataError("broken.nii.gz: damaged")),
        _job("outside", image, Box((2, 3, 2), (99, 13, 8))),
        _failing("vanished", FileNotFoundError(2, "No such file", "vanished.nii.gz")),
        _failing("huge", MemoryError()),
        _failing("torch", RuntimeError("[enforce fail] not enough memory: you tried to allocate 8 GB")),
        _job("last", image),
    ]
    outcome = predict_cases(PromptedPredictor(oracle()), jobs, tmp_path)
    assert [result.case for result in outcome.results] == ["first", "last"]
    assert all(file.exists() for result in outcome.results for file in result.files)
    assert all(result.seconds > 0 and result.segmentation is None for result in outcome.results)
    assert [failure.case for failure in outcome.failures] == ["broken", "outside", "vanished", "huge", "torch"]
    assert [failure.exit_code for failure in outcome.failures] == [3, 2, 3, 5, 5]
    assert not any(file.name.startswith(("broken", "outside", "huge")) for file in tmp_path.iterdir())
    listed = json.loads((tmp_path / "failed.json").read_text())
    assert [entry["case"] for entry in listed] == [failure.case for failure in outcome.failures]
    assert listed[0]["error"] == "DataError: broken.nii.gz: damaged"
    assert "outside the image of (20, 24, 16) voxels" in listed[1]["error"]


def test_a_fault_of_the_program_is_not_hidden(oracle: Callable, image: Volume, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        predict_cases(PromptedPredictor(oracle()), [_failing("bug", KeyError("bug"))], tmp_path)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        predict_cases(PromptedPredictor(oracle()), [_failing("bug", RuntimeError("shape mismatch"))], tmp_path)


def test_a_good_batch_leaves_no_list_of_failures(oracle: Callable, image: Volume, tmp_path: Path) -> None:
    (tmp_path / "failed.json").write_text("[]")
    outcome = predict_cases(PromptedPredictor(oracle()), [_job("only", image)], tmp_path, keep=True)
    assert outcome.failures == ()
    assert not (tmp_path / "failed.json").exists()
    assert outcome.results[0].segmentation is not None


def test_progress_names_the_case_that_comes_next(oracle: Callable, image: Volume, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    jobs = [_job("a", image), _failing("b", DataError("bad"))]
    predict_cases(PromptedPredictor(oracle()), jobs, tmp_path, progress=lambda *state: seen.append(state))
    assert seen == [(0, 2, "a"), (1, 2, "b"), (2, 2, "")]


def test_two_cases_of_one_name_are_refused_before_the_start(oracle: Callable, image: Volume, tmp_path: Path) -> None:
    network = oracle()
    with pytest.raises(ConfigError, match="'scan'"):
        predict_cases(PromptedPredictor(network), [_job("scan", image), _job("scan", image)], tmp_path)
    assert network.encoded == []


def test_row_40_an_output_folder_that_cannot_be_made_is_refused_at_once(
    oracle: Callable, image: Volume, tmp_path: Path
) -> None:
    network = oracle()
    (tmp_path / "out").write_text("a file")
    with pytest.raises(BudgetError, match="Choose another folder"):
        predict_cases(PromptedPredictor(network), [_job("a", image)], tmp_path / "out")
    assert network.encoded == []


@pytest.mark.parametrize("name", ["Größe α 腦", "a" * 200])
def test_row_40_long_and_foreign_names_are_written(name: str, oracle: Callable, image: Volume, tmp_path: Path) -> None:
    outcome = predict_cases(PromptedPredictor(oracle()), [_job(name, image)], tmp_path / "Ausgabe ü")
    assert outcome.failures == ()
    assert (tmp_path / "Ausgabe ü" / f"{name}_seg.nii.gz").exists()


def test_row_40_a_name_too_long_for_the_disk_fails_alone(oracle: Callable, image: Volume, tmp_path: Path) -> None:
    jobs = [_job("b" * 300, image), _job("good", image)]
    outcome = predict_cases(PromptedPredictor(oracle()), jobs, tmp_path)
    assert [failure.exit_code for failure in outcome.failures] == [5]
    assert [result.case for result in outcome.results] == ["good"]
    assert not any(file.name.startswith(("b", ".")) for file in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/hippocampus_001_0000.nii.gz", "hippocampus_001"),
        ("scan.NII.GZ", "scan"),
        ("a.b.nii", "a.b"),
        ("lesion.png", "lesion"),
        ("2D_case.npz", "2D_case"),
        ("study/T1post", "T1post"),
        ("patient_2024.mha", "patient_2024"),
        ("slice_0001.png", "slice_0001"),
    ],
)
def test_cases_are_named_after_their_files(path: str, expected: str) -> None:
    assert case_name(path) == expected
