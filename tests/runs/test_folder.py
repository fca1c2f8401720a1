"""Run folders: described so that they can be repeated, read back or refused with a reason."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from medmargin.errors import CheckpointError
from medmargin.runs import RunConfig, describe_environment, read_run, write_model_card, write_run, write_weights


@pytest.fixture
def config() -> RunConfig:
    return RunConfig(
        system="u-medsam",
        arguments={"lr": 5e-5, "terms": ["mse", "dice"], "init": None},
        task={"name": "Toy", "channels": ["MRI"], "structures": {"Länge": 1}, "dims": 3},
        seed=3,
        threads=2,
        budget={"steps": 100},
        data={"name": "Toy", "sha256": "ab" * 32, "train": ["a", "b"], "split": "made here"},
        command=["medmargin", "train", "u-medsam"],
        **describe_environment(),
    )


def test_a_run_is_read_as_it_was_written(tmp_path, config):
    run = write_run(tmp_path / "run", config)
    found = read_run(tmp_path / "run")
    assert found == run
    assert found.config.task["structures"] == {"Länge": 1}
    assert found.config.versions["torch"] == torch.__version__
    write_weights(found.paths.weights, {"w": torch.ones(2)})
    assert torch.equal(found.weights()["w"], torch.ones(2))


def test_differences_name_what_would_change_the_weights(config):
    other = config.model_copy(
        update={"seed": 4, "arguments": {**config.arguments, "lr": 1e-4, "rho": 0.1}, "command": ["x"], "versions": {}}
    )
    assert config.differences(other) == [
        "arguments.lr was 5e-05 and is 0.0001",
        "arguments.rho was None and is 0.1",
        "seed was 3 and is 4",
    ]
    assert config.differences(config) == []


def test_tuples_and_lists_of_arguments_are_the_same_after_a_round_trip(tmp_path, config):
    tupled = config.model_copy(update={"arguments": {**config.arguments, "terms": ("mse", "dice")}})
    write_run(tmp_path, tupled)
    assert read_run(tmp_path).config.differences(tupled) == []


def test_row_39_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="not a run folder"):
        read_run(tmp_path)
    with pytest.raises(CheckpointError, match="not a run folder"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("seed"), "seed: Field required"),
        (lambda content: content.update(threads=0), "threads: "),
        (lambda content: content.update(format=2), "format: .*newer version"),
        (lambda content: content.update(arguments=[1]), "arguments: "),
    ],
)
def test_row_39_a_damaged_description_names_its_field(tmp_path, config, change, message):
    write_run(tmp_path, config)
    content = json.loads((tmp_path / "config.json").read_text())
    change(content)
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        read_run(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"system": "u-med', b"\xff\xfe\x00", b"[]", b"3"])
def test_row_39_a_description_that_is_not_json(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_run(tmp_path)


def test_the_model_card_says_what_is_known_and_that_it_is_no_medical_device(tmp_path, config):
    run = write_run(tmp_path / "my run", config)
    card = write_model_card(run, summary="U-MedSAM (arXiv:2408.08881).", results={"dice": 0.91, "nsd": {"a": 0.8}})
    text = card.read_text(encoding="utf-8")
    for expected in (
        "# my run", "Not a medical device", "U-MedSAM (arXiv:2408.08881).", "Länge", "3-D MRI", "| dice | 0.91 |",
        "| nsd / a | 0.8 |", "medmargin train u-medsam", "| steps | 100 |", "2 cases, listed in `config.json`",
    ):  # fmt: skip
        assert expected in text
    assert "Not measured yet" in write_model_card(run, summary="x").read_text(encoding="utf-8")


def test_the_environment_names_versions_and_the_revision_of_a_source_tree():
    found = describe_environment()
    assert {"python", "platform", "medmargin", "torch", "numpy"} <= found["versions"].keys()
    assert found["git"] is None or len(found["git"].removesuffix("-dirty")) == 40


def test_reading_a_run_needs_no_torch():
    program = "import sys, medmargin.runs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
