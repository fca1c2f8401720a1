"""Reference files made on the spot: other sizes than the authors' files, and damaged ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]
WriteReference = Callable[..., Path]


@pytest.fixture
def write_reference(tmp_path: Path) -> WriteReference:
    """Write a reference file: `write(config, {"input": ..., "state": ..., "output": ...})`."""

    def write(config: Any, sections: Mapping[str, Mapping[str, Tensor]], *, name: str = "reference") -> Path:
        path = tmp_path / f"{name}.safetensors"
        tensors = {
            f"{role}.{key}" if role else key: value.detach().clone().contiguous()
            for role, entries in sections.items()
            for key, value in entries.items()
        }
        save_file(tensors, path, metadata={"config": config if isinstance(config, str) else json.dumps(config)})
        return path

    return write


@pytest.fixture
def altered(tmp_path: Path, golden: Path) -> Callable[[str, Callable[[Tensors], None]], Path]:
    """Copy an authors' file after changing its tensors in place."""

    def alter(slug: str, change: Callable[[Tensors], None]) -> Path:
        with safe_open(golden / f"{slug}.safetensors", framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        change(tensors)
        path = tmp_path / f"{slug}.safetensors"
        save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata=metadata)
        return path

    return alter
