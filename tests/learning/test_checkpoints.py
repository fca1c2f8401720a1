"""Checkpoint files: whole or not at all, and never opened as code."""

from __future__ import annotations

import errno
import os
import pickle

import pytest
import torch

from medmargin.errors import BudgetError, CheckpointError
from medmargin.learning.checkpoints import AtomicCheckpoints, LastCheckpoint, read_checkpoint, stored_state

OLD = {"state_dict": {"w": torch.zeros(3)}, "global_step": 1, "callbacks": {}}
NEW = {"state_dict": {"w": torch.ones(3)}, "global_step": 2, "callbacks": {}}


@pytest.fixture
def path(tmp_path):
    AtomicCheckpoints().save_checkpoint(OLD, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_what_is_written_is_read(path):
    AtomicCheckpoints().save_checkpoint(NEW, path)
    found = AtomicCheckpoints().load_checkpoint(path)
    assert found["global_step"] == 2
    assert torch.equal(found["state_dict"]["w"], torch.ones(3))


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_row_40_a_write_that_fails_anywhere_leaves_the_former_checkpoint(path, monkeypatch, call):
    """Each call of the file system fails in turn, as on a full disk."""

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    class FullStream:
        def __init__(self, stream):
            self.stream = stream

        write = full

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.stream.close()

    places = {
        "open": ("builtins.open", full),
        "write": ("builtins.open", lambda path, mode: FullStream(path.open(mode))),
        "fsync": ("os.fsync", full),
        "replace": ("os.replace", full),
    }
    with monkeypatch.context() as patched:
        patched.setattr(*places[call])
        with pytest.raises(BudgetError, match=r"last\.ckpt: the disk is full"):
            AtomicCheckpoints().save_checkpoint(NEW, path)
    assert read_checkpoint(path)["global_step"] == 1
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_row_39_a_truncated_checkpoint(path, kept):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        read_checkpoint(path)


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_row_39_a_flipped_bit(path, place):
    AtomicCheckpoints().save_checkpoint({**OLD, "state_dict": {"w": torch.zeros(2000)}}, path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="changed since it was written"):
        read_checkpoint(path)


def test_row_39_a_pickle_with_code_is_never_executed(path, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({**OLD, "callbacks": Attack()}, path)
    with pytest.raises(CheckpointError, match="nothing of it was executed"):
        AtomicCheckpoints().load_checkpoint(path, weights_only=False)  # whatever the caller wants
    path.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], torch.zeros(3)])
def test_row_39_another_file_of_tensors(path, content):
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        read_checkpoint(path)


def test_row_39_a_checkpoint_of_another_program():
    with pytest.raises(CheckpointError, match="holds no LastCheckpoint"):
        stored_state(OLD, LastCheckpoint)


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path / "last.ckpt")
