"""Weights from files that are not trusted."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from medmargin.errors import CheckpointError
from medmargin.networks.weight_files import load_strictly, read_weights
from medmargin.storage import sha256

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(4)}


class _Bomb:
    """Unpickling it creates a file: code in a checkpoint, made harmless."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def _same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".bin"])
def test_the_kind_of_a_file_is_told_by_its_content(tmp_path: Path, suffix: str) -> None:
    tensors, pickled = tmp_path / f"tensors{suffix}", tmp_path / f"pickled{suffix}"
    save_file(STATE, tensors)
    torch.save(STATE, pickled)
    assert _same(read_weights(tensors))
    assert _same(read_weights(pickled))


@pytest.mark.parametrize(
    "content",
    [
        {"model": STATE, "optimizer": {"step": 3, "lr": 1e-4}, "epoch": 2, "loss": 0.5, "best_loss": 0.4},
        {"state_dict": STATE},
        {f"module.{name}": value for name, value in STATE.items()},
        {"model": {f"module.{name}": value for name, value in STATE.items()}, "epoch": 1},
    ],
    ids=["training file", "state_dict", "multi-GPU", "multi-GPU training file"],
)
def test_wrapped_state_dicts_are_unwrapped(tmp_path: Path, content: dict[str, object]) -> None:
    torch.save(content, tmp_path / "weights.pth")
    assert _same(read_weights(tmp_path / "weights.pth"))


def test_the_older_format_of_torch_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert _same(read_weights(tmp_path / "old.pth"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pth: no such file"):
        read_weights(tmp_path / "gone.pth")


@pytest.mark.parametrize("new_format", [True, False])
def test_row_39_a_pickle_with_code_is_refused_and_not_executed(tmp_path: Path, new_format: bool) -> None:
    trace = tmp_path / "executed"
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1), "b": _Bomb(trace)}, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"weights\.pth: .*nothing was executed"):
        read_weights(path)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_row_39_a_bare_pickle_with_code_is_refused_and_not_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(_Bomb(trace)))
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        read_weights(path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 8, 40, 0.5, 0.99])
def test_row_39_truncated_weights_are_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"weights{suffix}"
    big = {"a": torch.randn(2000)}
    save_file(big, path) if suffix == ".safetensors" else torch.save(big, path)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    with pytest.raises(CheckpointError, match=f"weights{suffix}"):
        read_weights(path)


def test_row_36_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        for item in plain.infolist():
            bomb.writestr(item.filename, plain.read(item), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pth").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"bomb\.pth: a compressed archive"):
        read_weights(tmp_path / "bomb.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_row_39_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    save_file({**STATE, "b.bias": torch.tensor([1.0, value])}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"w\.safetensors: NaN or infinite weights in b\.bias"):
        read_weights(tmp_path / "w.safetensors")


def test_row_39_a_wrong_checksum_is_refused_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(STATE, path)
    assert _same(read_weights(path, sha256=sha256(path).upper()))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match=rf"checksum is {sha256(path)}, expected {'0' * 64}"):
        read_weights(path, sha256="0" * 64)


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1.0, "b": torch.zeros(1)}, {3: torch.zeros(1)}, torch.zeros(2)])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth: holds no (plain )?state dict"):
        read_weights(tmp_path / "w.pth")


def test_row_39_another_architecture_is_answered_with_the_differences_and_changes_nothing() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    shapes = {"0.weight": (3, 2), "0.bias": (4,), "1.weight": (1, 3), "2.bias": (1,)}
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    with pytest.raises(CheckpointError) as caught:
        load_strictly(network, state, origin="w.pth")
    assert str(caught.value).startswith("w.pth: the weights do not fit the network. 1 missing: 1.bias; ")
    assert "1 unexpected: 2.bias; 1 of another shape: 0.bias [4] instead of [3]" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_long_lists_of_differences_are_cut() -> None:
    with pytest.raises(CheckpointError, match=r"12 missing: 0\.weight, .*, 2\.weight and 7 more"):
        load_strictly(nn.Sequential(*[nn.Linear(1, 1) for _ in range(6)]), {}, origin="w.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from([".safetensors", ".pth", ".old"]))
def test_row_39_damaged_bytes_give_an_error_or_tensors(tmp_path: Path, data: st.DataObject, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=suffix == ".pth")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        assert all(value.isfinite().all() for value in read_weights(path).values())
