"""`Reference`: a file of reference numbers, read without trusting it.

A reference is one safetensors file. Its metadata hold `config` (JSON: the sizes of the parts), its tensors are named
`input.*`, `state.*` (weights) and `output.*` (the authors' numbers); a file with several parts puts the part's name in
front: `cal.input.logits`, `cal.output.nll`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from medmargin.errors import CheckpointError

_ROLES = ("input", "state", "output")


class _Section(dict[str, Any]):
    """A dictionary that answers a missing name with the file, the section and the names it has."""

    def __init__(self, entries: Mapping[str, Any], *, file: Path, section: str) -> None:
        super().__init__(entries)
        self._file, self._section = file, section

    def __missing__(self, name: str) -> Any:
        raise CheckpointError(
            f"{self._file}: {self._section} has no '{name}' (it has: {', '.join(sorted(self)) or 'nothing'}). "
            "Is this the reference of another system?"
        )


@dataclass(frozen=True)
class Reference:
    """The content of a reference file.

    Attributes:
        path: the file.
        config: sizes of the parts, from the file's metadata.
        inputs, state: tensors without the leading `input.` / `state.`; those of a group keep their full name.
        outputs: the numbers to recompute, without the leading `output.`; those of a group keep their full name.

    A name that `config`, `inputs` or `state` lacks raises CheckpointError.
    """

    path: Path
    config: dict[str, Any]
    inputs: dict[str, Tensor]
    state: dict[str, Tensor]
    outputs: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path | str) -> Reference:
        """Read a reference file.

        Raises:
            CheckpointError: no such file, not safetensors, no `config`, no output, or a tensor without a role.
        """
        path = Path(path)
        metadata, tensors = _read_safetensors(path)
        sections: dict[str, dict[str, Tensor]] = {role: {} for role in _ROLES}
        for name, tensor in tensors.items():
            role, short = _role(path, name)
            sections[role][short] = tensor
        if not sections["output"]:
            raise CheckpointError(f"{path}: holds no tensor named 'output.*', so there is nothing to verify")
        return cls(
            path,
            _Section(_config(path, metadata), file=path, section="its config"),
            _Section(sections["input"], file=path, section="the list of its inputs"),
            _Section(sections["state"], file=path, section="the list of its weights"),
            _Section(sections["output"], file=path, section="the list of its outputs"),
        )

    def group(self, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Take (inputs, outputs, state) of the part `name`, without the leading `<name>.input.` and so on."""

        def part(entries: Mapping[str, Tensor], role: str) -> dict[str, Tensor]:
            prefix = f"{name}.{role}."
            found = {key.removeprefix(prefix): value for key, value in entries.items() if key.startswith(prefix)}
            return _Section(found, file=self.path, section=f"the list of {prefix}*")

        return part(self.inputs, "input"), part(self.outputs, "output"), part(self.state, "state")


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Give a reference file (.safetensors)")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def _config(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if "config" not in metadata:
        raise CheckpointError(f"{path}: its metadata hold no 'config', so this is not a reference file")
    try:
        config = json.loads(metadata["config"])
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: the 'config' of its metadata is not JSON ({error})") from error
    if not isinstance(config, dict):
        found = type(config).__name__
        raise CheckpointError(f"{path}: the 'config' of its metadata must be a JSON object, found {found}")
    return config


def _role(path: Path, name: str) -> tuple[str, str]:
    """Split a tensor name into its role and the name a module uses for it."""
    words = name.split(".")
    position = next((index for index, word in enumerate(words[:-1]) if word in _ROLES), None)
    if position is None:
        raise CheckpointError(f"{path}: tensor '{name}' is neither input, state nor output; every name must say which")
    return words[position], ".".join(words[1:]) if position == 0 else name
