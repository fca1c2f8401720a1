"""`Run`: the folder of a run, its description and its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from medmargin.errors import CheckpointError
from medmargin.runs.config import RunConfig
from medmargin.runs.weights import read_weights
from medmargin.storage import write_json

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RunPaths:
    """Where the parts of a run lie.

    Attributes:
        folder: of the run.
    """

    folder: Path

    @property
    def config(self) -> Path:
        """What was asked for (`RunConfig`)."""
        return self.folder / "config.json"

    @property
    def weights(self) -> Path:
        """The weights the run ended with; absent until it has ended."""
        return self.folder / "model.safetensors"

    @property
    def metrics(self) -> Path:
        """One JSON object a line: step, losses, validation scores."""
        return self.folder / "metrics.jsonl"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.folder / "README.md"

    @property
    def checkpoint(self) -> Path:
        """The state the run resumes from."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def snapshots(self) -> Path:
        """Weights kept on the way, for a checkpoint ensemble."""
        return self.folder / "snapshots"

    @property
    def adapter(self) -> Path:
        """What training changed, apart from the base it was put on; only of systems that adapt a base."""
        return self.folder / "adapter.safetensors"

    @property
    def evaluation(self) -> Path:
        """The answer of the last `evaluate`."""
        return self.folder / "metrics.json"

    @property
    def calibration(self) -> Path:
        """What held-out patients taught (after `calibrate`)."""
        return self.folder / "calibration.json"

    @property
    def trust(self) -> Path:
        """What they taught about trusting whole cases (after `calibrate`)."""
        return self.folder / "trust.json"

    @property
    def rules(self) -> Path:
        """How label maps are corrected (after `ensemble --data`)."""
        return self.folder / "rules.json"

    @property
    def selection(self) -> Path:
        """What was compared when the run was put together (after `ensemble --data`)."""
        return self.folder / "selection.json"

    @property
    def best_weights(self) -> Path:
        """The weights with the best validation score so far."""
        return self.folder / "checkpoints" / "best.safetensors"


@dataclass(frozen=True)
class Run:
    """A run folder that was read.

    Attributes:
        folder: where it is. config: what was trained, on what, with what.
    """

    folder: Path
    config: RunConfig

    @property
    def paths(self) -> RunPaths:
        return RunPaths(self.folder)

    def weights(self) -> dict[str, Tensor]:
        """Read the weights the run ended with: name -> tensor. Raises CheckpointError, see `read_weights`."""
        return read_weights(self.paths.weights)


def write_run(folder: Path | str, config: RunConfig) -> Run:
    """Describe a run in `folder`/config.json, which is created where needed.

    Raises:
        BudgetError: the folder cannot be written.
    """
    write_json(RunPaths(Path(folder)).config, config.model_dump(mode="json"))
    return Run(Path(folder), config)


def read_run(folder: Path | str) -> Run:
    """Read the description of a run; its weights are read when asked for.

    Raises:
        CheckpointError: not a run folder, or its description is damaged; the message names the field.
    """
    path = RunPaths(Path(folder)).config
    try:
        config = RunConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CheckpointError(f"{folder}: not a run folder, {path.name} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise CheckpointError(f"{path}: {field}: {first['msg']}. The file is damaged or of a newer version.") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}). The file is damaged; restore it or train again.") from error
    return Run(Path(folder), config)
