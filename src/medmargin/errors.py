"""Typed errors of the toolkit and the exit codes the command line gives them.

A message says what was found, where (file, case, field), what was expected and what to do next.
"""

from __future__ import annotations


class ToolkitError(Exception):
    """Base of every error a user can cause or cure; the command line prints it as one line."""

    exit_code = 2


class ConfigError(ToolkitError):
    """A wrong name, type or range of an argument, or a combination that makes no sense (exit code 2)."""

    exit_code = 2


class PromptError(ToolkitError):
    """A prompt that is malformed, lies outside its image, or does not fit the model (exit code 2)."""

    exit_code = 2


class MissingExtraError(ConfigError):
    """An optional dependency is needed but not installed; the message names the extra to install (exit code 2)."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}'. Install it with: pip install 'medmargin[{extra}]'")


class DataError(ToolkitError):
    """An image, label or data set that cannot be used as it is (exit code 3)."""

    exit_code = 3


class GeometryError(DataError):
    """Grids, affines or spacings that are impossible or do not agree (exit code 3)."""


class CheckpointError(ToolkitError):
    """Weights or a run folder that cannot be trusted or do not fit the network (exit code 4)."""

    exit_code = 4


class BudgetError(ToolkitError):
    """Not enough memory, disk or permission to do the work (exit code 5)."""

    exit_code = 5


class PartialFailure(ToolkitError):  # noqa: N818 - it is an outcome, the other cases are finished
    """Some cases failed and the rest is finished; the list of failures was written (exit code 6)."""

    exit_code = 6
