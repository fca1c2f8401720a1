"""Reading weights from files that are not trusted, and putting them into a network without a gap."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medmargin.errors import CheckpointError
from medmargin.storage import sha256 as sha256_of

_WRAPPERS = ("model", "state_dict")
_DAMAGED = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    SafetensorError, TypeError, ValueError, struct.error, zipfile.BadZipFile,
)  # what the readers raise on damaged bytes


def read_weights(path: Path | str, *, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a state dict from a safetensors or PyTorch file; nothing in the file is executed.

    A dict wrapped as {"model": ...} or {"state_dict": ...} is unwrapped, and the prefix `module.` of multi-GPU training
    is removed.

    Args:
        path: of the file; its kind is told by its content, not by its suffix.
        sha256: expected checksum in hexadecimal, checked before anything is read.

    Raises:
        CheckpointError: no such file, wrong checksum, damaged, holds other objects than tensors, or a value that is
            not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Give the file of the weights (.safetensors, .pth or .pt)")
    if sha256 is not None and (found := sha256_of(path)) != sha256.lower():
        raise CheckpointError(f"{path}: checksum is {found}, expected {sha256.lower()}. Fetch the file again")
    state = _unwrapped(path, _read(path))
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path}: NaN or infinite weights in {_some(broken)}. Fetch or train the weights again")
    return state


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Load `state` into `network` only if every name and shape agrees; otherwise the network is left as it was.

    Args:
        origin: where the weights come from, for the error.

    Raises:
        CheckpointError: with the missing and unexpected names and the shapes that differ.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {list(state[name].shape)} instead of {list(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = [f"{len(names)} {kind}: {_some(names)}" for kind, names in found if names]
    if problems:
        raise CheckpointError(
            f"{origin}: the weights do not fit the network. {'; '.join(problems)}. "
            "Build the network they were trained with, or choose other weights"
        )
    network.load_state_dict(state)


def _read(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            if file.read(9)[8:] == b"{":  # safetensors: 8 bytes of header length, then JSON
                return load_file(path)
            if zipfile.is_zipfile(file) and any(item.compress_type for item in zipfile.ZipFile(file).infolist()):
                raise CheckpointError(f"{path}: a compressed archive, which PyTorch never writes. Fetch it again")
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds something else than tensors, which could be code, or is not a weight file; nothing was "
            "executed. Ask for the weights as safetensors"
        ) from error
    except _DAMAGED as error:
        raise CheckpointError(f"{path}: damaged, truncated or not a weight file ({error}). Fetch it again") from error


def _unwrapped(path: Path, content: Any) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        raise CheckpointError(f"{path}: holds no state dict (names and tensors), found {type(content).__name__}")
    others = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{path}: holds no plain state dict: {_some(others)} are not tensors")
    return {name.removeprefix("module."): value for name, value in content.items()}


def _some(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
