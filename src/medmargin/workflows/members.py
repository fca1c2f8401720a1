"""Which runs may answer together: equal in system, task and the images their networks see."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from medmargin.datasets.task import Task
from medmargin.errors import ConfigError
from medmargin.runs import Run

_MEASURED = ("extent", "plan")  # of the training side, which differs from fold to fold
_OF_PLAN = ("axis_order", "crop", "normalisation", "resampling")
_OF_CONFIGURATION = ("name", "spacing", "patch", "strides", "kernels", "features", "channels", "classes")


def refuse_unlike(run: Run, task: Task, other: Run, its_task: Task) -> None:
    """Refuse a member that was not trained for the same as the first: other folds and seeds are what may differ.

    Args:
        run, task: the first member. other, its_task: the one that is to join it.

    Raises:
        ConfigError: names what differs.
    """
    mine, theirs = (described(each, of) for each, of in ((run, task), (other, its_task)))
    for field in mine:
        if mine[field] != theirs.get(field):
            raise ConfigError(
                f"{other.folder} cannot join {run.folder} in an ensemble: its {field} is {theirs.get(field)}, not "
                f"{mine[field]}. Members are trained for the same task in the same way, on other folds or seeds."
            )


def described(run: Run, task: Task) -> dict[str, Any]:
    """Say what the members of an ensemble have in common, as field -> value: system, task and the plan's geometry."""
    fields = {f"task.{name}": value for name, value in asdict(task).items() if name not in _MEASURED}
    return {"system": run.config.system, **fields, **_geometry(task)}


def _geometry(task: Task) -> dict[str, Any]:
    """Describe how images are prepared and what network sees them; nothing without a plan."""
    if task.plan is None:
        return {}
    plan, configuration = asdict(task.plan), asdict(task.plan.configuration())
    return {f"plan.{name}": plan[name] for name in _OF_PLAN} | {
        f"configuration.{name}": configuration[name] for name in _OF_CONFIGURATION
    }
