"""An ensemble as a run folder: the runs that answer together lie whole in `members/`, each under its checksum.

`config.json` describes the first member and what all of them learned from; `ensemble.json` names the members. There is
no `model.safetensors`, so that nobody takes one member for the whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field, ValidationError

from medmargin.errors import CheckpointError
from medmargin.runs.config import RunConfig
from medmargin.runs.folder import Run, RunPaths, read_run, write_run
from medmargin.storage import atomic_path, sha256, write_json

if TYPE_CHECKING:
    from torch import Tensor


class _Member(BaseModel):
    name: str = Field(pattern=r"^[^./\\][^/\\]*$")  # a folder in `members`, and nowhere else
    sha256: str


class _Content(BaseModel):
    format: Literal[1] = 1
    members: list[_Member] = Field(min_length=2)


@dataclass(frozen=True)
class EnsemblePaths(RunPaths):
    """Where the parts of an ensemble lie."""

    @property
    def weights(self) -> Path:
        """The list of the members with the checksums of their weights: equal lists are equal ensembles."""
        return self.folder / "ensemble.json"

    @property
    def members(self) -> Path:
        """Their run folders."""
        return self.folder / "members"


@dataclass(frozen=True)
class EnsembleRun(Run):
    """The folder of an ensemble that was read.

    Attributes:
        members: the runs that answer together, at least two.
    """

    members: tuple[Run, ...] = ()

    @property
    def paths(self) -> EnsemblePaths:
        return EnsemblePaths(self.folder)

    def weights(self) -> dict[str, Tensor]:
        """Refuse: only its members have weights."""
        raise CheckpointError(f"{self.folder}: an ensemble has no weights of its own; give one of its members.")


def write_ensemble(folder: Path | str, config: RunConfig, members: Mapping[str, Run]) -> EnsembleRun:
    """Copy finished runs into a folder and describe it, its `config.json` last: until then it is no run folder.

    Args:
        folder: new, or what an interrupted call left. config: of the ensemble. members: name of its folder -> run.

    Raises:
        CheckpointError: the weights of a member are missing or damaged. BudgetError: the folder cannot be written.
    """
    paths, listed = EnsemblePaths(Path(folder)), []
    for name, run in members.items():
        copy = copy_run(run, paths.members / name)
        listed.append(_Member(name=name, sha256=sha256(copy.paths.weights)))
    write_json(paths.weights, _Content(members=listed).model_dump())
    write_run(folder, config)
    found = open_run(folder)
    assert isinstance(found, EnsembleRun)
    return found


def copy_run(run: Run, folder: Path | str) -> Run:
    """Copy what a run needs to answer, its description and its weights, byte for byte.

    Raises:
        CheckpointError: its weights are missing or damaged. BudgetError: the folder cannot be written.
    """
    copy = RunPaths(Path(folder))
    run.weights()  # are checked
    for source, target in ((run.paths.weights, copy.weights), (run.paths.config, copy.config)):
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    return read_run(folder)


def open_run(folder: Path | str) -> Run | EnsembleRun:
    """Read a run folder, or that of an ensemble with all its members; see `read_run`.

    Raises:
        CheckpointError: also where the list of members is damaged, or a member is not the one that was put there.
    """
    run = read_run(folder)
    paths = EnsemblePaths(run.folder)
    if not paths.weights.exists():
        return run
    try:
        content = _Content.model_validate_json(paths.weights.read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"{paths.weights}: damaged, or of a newer version ({error}). Copy it again.") from error
    return EnsembleRun(run.folder, run.config, tuple(_member(paths, listed) for listed in content.members))


def _member(paths: EnsemblePaths, listed: _Member) -> Run:
    member = read_run(paths.members / listed.name)
    if not member.paths.weights.exists() or sha256(member.paths.weights) != listed.sha256:
        raise CheckpointError(
            f"{member.paths.weights}: missing, or not the weights that {paths.weights.name} lists. Copy the folder of "
            "the ensemble again, or make it again."
        )
    return member
