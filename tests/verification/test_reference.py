"""Files of reference numbers, and files that only look like them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmargin.errors import CheckpointError
from medmargin.verification.reference import Reference

SECTIONS = {
    "input": {"image": torch.ones(2)},
    "state": {"layer.output.weight": torch.zeros(3)},
    "output": {"box.masks": torch.ones(1)},
    "": {"cal.input.logits": torch.ones(4), "cal.output.nll": torch.ones(1), "cal.state.scale": torch.ones(1)},
}


def test_names_lose_their_role_and_groups_keep_theirs(write_reference) -> None:
    reference = Reference.read(write_reference({"img": 64}, SECTIONS))
    assert reference.config == {"img": 64}
    assert set(reference.inputs) == {"image", "cal.input.logits"}
    assert set(reference.state) == {"layer.output.weight", "cal.state.scale"}
    assert set(reference.outputs) == {"box.masks", "cal.output.nll"}
    assert [set(part) for part in reference.group("cal")] == [{"logits"}, {"nll"}, {"scale"}]


@pytest.mark.parametrize(("section", "message"), [
    ("config", "its config has no 'widths' (it has: img)"),
    ("inputs", "the list of its inputs has no 'widths' (it has: cal.input.logits, image)"),
    ("state", "the list of its weights has no 'widths'"),
])  # fmt: skip
def test_a_missing_name_is_answered_with_those_there_are(write_reference, section: str, message: str) -> None:
    reference = Reference.read(write_reference({"img": 64}, SECTIONS))
    with pytest.raises(CheckpointError) as caught:
        getattr(reference, section)["widths"]
    assert message in str(caught.value)
    assert "reference.safetensors" in str(caught.value)


def test_a_group_that_is_not_there_is_empty_and_says_so(write_reference) -> None:
    inputs, outputs, _ = Reference.read(write_reference({}, SECTIONS)).group("unc")
    assert not outputs
    with pytest.raises(CheckpointError, match=r"the list of unc\.input\.\* has no 'logits' \(it has: nothing\)"):
        inputs["logits"]


@pytest.mark.parametrize(("config", "message"), [("{", "is not JSON"), ("[1]", "must be a JSON object, found list")])
def test_a_config_that_is_no_object_is_refused(write_reference, config: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Reference.read(write_reference(config, SECTIONS))


def test_a_tensor_without_a_role_is_refused(write_reference) -> None:
    with pytest.raises(CheckpointError, match=r"tensor 'table\.hu' is neither input, state nor output"):
        Reference.read(write_reference({}, {**SECTIONS, "": {"table.hu": torch.ones(1)}}))


def test_a_file_without_outputs_verifies_nothing(write_reference) -> None:
    with pytest.raises(CheckpointError, match="there is nothing to verify"):
        Reference.read(write_reference({}, {"input": SECTIONS["input"]}))


def test_weights_without_a_config_are_no_reference(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"output.x": torch.ones(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="hold no 'config', so this is not a reference file"):
        Reference.read(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04K\x01.", b"\xff" * 100])
def test_row_37_another_kind_of_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: not a readable safetensors file"):
        Reference.read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["", "gone.safetensors"])
def test_row_37_a_folder_or_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        Reference.read(tmp_path / name)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_an_error_or_a_reference(write_reference, data: st.DataObject) -> None:
    path = write_reference({"img": 64}, SECTIONS)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    with contextlib.suppress(CheckpointError):
        assert Reference.read(path).outputs
