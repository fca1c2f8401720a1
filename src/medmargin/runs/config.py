"""`RunConfig`: everything that is needed to repeat a run, as it stands in `config.json`."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_PACKAGES = ("medmargin", "torch", "lightning", "numpy", "safetensors", "opencv-python-headless")
_DECIDES_WEIGHTS = ("system", "arguments", "task", "seed", "budget", "data")


class RunConfig(BaseModel):
    """What was asked for, and with which software.

    Attributes:
        format: version of this file's layout.
        system: slug of the system. arguments: its resolved arguments, every one of them.
        task: channels, structures, dimensions (the fields of `datasets.Task`).
        seed: of every random choice. threads: of the arithmetic; another count rounds differently.
        budget: what ended the training, e.g. {"steps": 2000}.
        data: name of the data set, cases of each side of the split, `sha256` of the file manifest.
        command: the command line, or the call, that started the run.
        scale: "laptop" or "paper". built: number of weights, and where they started from.
        versions: package -> version. git: revision of the source tree, with "-dirty" where files had changed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = Field(default=1, ge=1, le=1)
    system: str
    arguments: dict[str, Any]
    task: dict[str, Any]
    seed: int
    threads: int = Field(ge=1)
    budget: dict[str, float] = {}
    data: dict[str, Any] = {}
    command: list[str] = []
    scale: str | None = None
    built: dict[str, Any] = {}
    versions: dict[str, str] = {}
    git: str | None = None

    def differences(self, other: RunConfig) -> list[str]:
        """Name what differs between two runs and would change their weights, one sentence each."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        found = []
        for field in _DECIDES_WEIGHTS:
            before, after = mine[field], theirs[field]
            if isinstance(before, dict) and isinstance(after, dict):
                keys = sorted(key for key in {*before, *after} if _filled(before, key) != _filled(after, key))
                found += [f"{field}.{key} was {before.get(key)!r} and is {after.get(key)!r}" for key in keys]
            elif before != after:
                found.append(f"{field} was {before!r} and is {after!r}")
        return found


def _filled(values: dict[str, Any], key: str) -> Any:
    """Look up a value; what a run of an earlier version does not know yet is as good as empty."""
    value = values.get(key)
    return None if value in ({}, []) else value


def describe_environment() -> dict[str, Any]:
    """Return the `versions` and `git` fields of a `RunConfig` for the software that is running now."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed has no version
    return {"versions": versions, "git": _git_revision(Path(__file__).parent)}


def _git_revision(folder: Path) -> str | None:
    """Return the revision of the source tree, or None where the package is installed and not tracked by git."""
    try:
        subprocess.run(
            ["git", "-C", str(folder), "ls-files", "--error-unmatch", "config.py"], check=True, capture_output=True
        )
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
