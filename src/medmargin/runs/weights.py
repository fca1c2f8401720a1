"""Weights on disk: one safetensors file that carries its own checksum and is never a pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medmargin.errors import CheckpointError
from medmargin.storage import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

_CHECKSUM = "content_sha256"


def write_weights(path: Path | str, state: Mapping[str, Tensor]) -> None:
    """Write a state dict, whole or not at all. Equal weights make equal files, byte for byte.

    Args:
        path: the file, named *.safetensors.
        state: name -> tensor; shared memory is written once per name.

    Raises:
        CheckpointError: a value is NaN or infinite: such weights must never look like a result.
        BudgetError: the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    _refuse_unusable(path, state)
    content = save(state, metadata={_CHECKSUM: _checksum(state)})  # more entries would come in random order
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Read a state dict and check it.

    Returns:
        name -> tensor, on the processor.

    Raises:
        CheckpointError: no such file, not safetensors (a pickle is never opened), truncated, changed since it was
            written, or with values that are not finite.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no weights here. Train first, or give the folder of a finished run.")
    try:
        with safe_open(path, framework="pt") as stream:
            about = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}). Pickled checkpoints are never opened here; "
            "copy the file again, or train again."
        ) from error
    if about.get(_CHECKSUM) != _checksum(state):
        found = "its checksum does not match its content" if _CHECKSUM in about else "it carries no checksum"
        raise CheckpointError(f"{path}: {found}. It was changed or not written by this program; copy it again.")
    _refuse_unusable(path, state)
    return state


def _checksum(state: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and bytes, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _refuse_unusable(path: Path | str, state: Mapping[str, Tensor]) -> None:
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{path}: {len(broken)} tensors hold NaN or infinite values ({_some(sorted(broken))}). "
            "The training diverged; train again with a smaller learning rate."
        )


def _some(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit]) or "none"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
