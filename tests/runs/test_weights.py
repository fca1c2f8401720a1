"""Weights on disk: exact, whole, checked, and never a pickle."""

from __future__ import annotations

import errno
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from medmargin.errors import BudgetError, CheckpointError
from medmargin.runs import read_weights, write_weights

STATE = {
    "b.weight": torch.randn(3, 4).t(),  # not contiguous
    "a.bias": torch.randn(2).to(torch.bfloat16),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
}


@pytest.fixture
def path(tmp_path):
    write_weights(tmp_path / "model.safetensors", STATE)
    return tmp_path / "model.safetensors"


def test_what_is_written_is_read_bit_for_bit(path):
    found = read_weights(path)
    assert found.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert load_file(path).keys() == STATE.keys()  # any safetensors reader will do


def test_equal_weights_make_equal_files_that_others_may_read(path, tmp_path):
    again = tmp_path / "again.safetensors"
    write_weights(again, dict(reversed(STATE.items())))
    assert again.read_bytes() == path.read_bytes()
    mask = os.umask(0)
    os.umask(mask)
    assert again.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_row_39_truncated_weights(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a whole safetensors file"):
        read_weights(path)


def test_row_39_a_changed_byte(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum does not match"):
        read_weights(path)


def test_row_39_a_renamed_tensor_does_not_pass_for_the_original(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"a.bias"', b'"a.bios"'))
    with pytest.raises(CheckpointError, match="checksum does not match"):
        read_weights(path)


def test_row_39_weights_without_a_checksum(path):
    save_file({"w": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="carries no checksum"):
        read_weights(path)


def test_row_39_a_pickle_is_never_opened(path, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    for content in (pickle.dumps(Attack()), None):
        torch.save({"w": Attack()}, path) if content is None else path.write_bytes(content)
        with pytest.raises(CheckpointError, match="never opened"):
            read_weights(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_row_39_weights_that_are_not_numbers_are_neither_written_nor_read(path, value):
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"NaN or infinite values \(bad\)"):
        write_weights(path, {**STATE, "bad": torch.tensor([1.0, value])})
    assert path.read_bytes() == before


def test_missing_weights(tmp_path):
    with pytest.raises(CheckpointError, match="no weights here"):
        read_weights(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="no weights here"):
        read_weights(tmp_path)


def test_row_40_a_full_disk_leaves_the_former_weights(path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(BudgetError, match="the disk is full"):
        write_weights(path, {"w": torch.zeros(1)})
    assert read_weights(path).keys() == STATE.keys()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
