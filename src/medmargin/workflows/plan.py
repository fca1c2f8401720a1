"""Plan a data set at one or both scales, and say what it would cost on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medmargin.datasets.dataset import Dataset, open_dataset
from medmargin.datasets.planning import (
    LAPTOP,
    PAPER,
    Fingerprint,
    Plan,
    Scale,
    make_plan,
    measure_fingerprint,
    planning_cases,
    read_overrides,
    scale_named,
)
from medmargin.datasets.task import Task
from medmargin.errors import ConfigError
from medmargin.storage import write_json

if TYPE_CHECKING:
    from medmargin.workflows.plan_cost import Cost

Progress = Callable[[int, int], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedDataset:
    """The answer of `plan_dataset`.

    Attributes:
        fingerprint: what was measured.
        plans: scale -> plan. costs: scale -> cost of its chosen configuration here; empty where none was measured.
    """

    fingerprint: Fingerprint
    plans: Mapping[str, Plan]
    costs: Mapping[str, Cost]

    def to_dict(self) -> dict[str, Any]:
        """Give plain types only, for `--json`."""
        found = self.fingerprint
        shapes, spacings = np.array(found.shapes), np.array(found.spacings)
        return {
            "dataset": found.task.name,
            "fingerprint": {
                "cases": found.cases,
                "median_shape": np.median(shapes, axis=0).tolist(),
                "median_spacing": np.median(spacings, axis=0).tolist(),
                "unit": found.task.unit,
                "kept_by_cropping": found.kept,
                "foreground": {channel: asdict(values) for channel, values in found.intensities.items()},
                "structures": dict(found.structures),
            },
            "plans": {name: plan.to_dict() for name, plan in self.plans.items()},
            "costs": {name: cost.to_dict() for name, cost in self.costs.items()},
        }

    def write(self, path: Path | str) -> None:
        """Write the one plan there is to a JSON file, which `train` can follow.

        Raises:
            ConfigError: there are plans for several scales. BudgetError: the file cannot be written.
        """
        if len(self.plans) > 1:
            raise ConfigError(f"{path}: a file holds one plan; choose it with --scale {' or '.join(self.plans)}")
        write_json(path, next(iter(self.plans.values())).to_dict())


def plan_dataset(
    dataset: Path | str,
    *,
    dims: int | None = None,
    memory: int | None = None,
    scale: str | None = None,
    settings: Mapping[str, Any] | None = None,
    split: Path | str | None = None,
    seed: int = 0,
    timing: bool = True,
    progress: Progress | None = None,
) -> PlannedDataset:
    """Plan a data set.

    Args:
        dataset: folder in any layout, or name under MEDMARGIN_DATA.
        dims: 2 or 3 plans only those; None: both where there are volumes.
        memory: bytes that a training may hold; None: the scale's own.
        scale: "paper" or "laptop"; None: both, or the paper's alone where `settings` change a plan.
        settings: choices by name; see `datasets.planning.overrides`.
        split: split file instead of the data set's own; its test and calibration cases are not looked at.
        seed: of the foreground voxels drawn.
        timing: time convolutions on this machine (some seconds, with torch) to estimate the cost.
        progress: called with the number of cases read and the total.

    Raises:
        ConfigError: choices that are unknown or make no sense. DataError: a data set that cannot be planned.
        BudgetError: nothing fits into the memory, or the choices do not.
    """
    overrides = read_overrides(settings or {})
    scales = _scales(scale, memory, is_changed=bool(settings))
    opened = open_dataset(dataset, split_file=split)
    fingerprint = measure_fingerprint(planning_cases(opened), opened.task, seed=seed, progress=progress)
    plans = {one.name: make_plan(fingerprint, scale=one, dims=dims, overrides=overrides) for one in scales}
    costs: dict[str, Cost] = {}
    if timing:
        from medmargin.workflows.plan_cost import measure_cost  # torch

        costs = {name: measure_cost(plan) for name, plan in plans.items()}
    return PlannedDataset(fingerprint, plans, costs)


def plan_for_training(data: Dataset, *, scale: str, progress: bool = False) -> Plan:
    """Plan a data set by the rules alone, from the cases of all its training sides: every fold gets the same plan.

    Args:
        scale: "paper" or "laptop". progress: show a bar on stderr while images are read.

    Raises:
        DataError: a data set that cannot be planned. BudgetError: nothing fits into the scale's memory.
    """
    from medmargin.learning.progress import counted  # the training engine, which planning alone does without

    with counted(description="reading volumes to plan", show=progress) as done:
        fingerprint = measure_fingerprint(planning_cases(data), data.task, progress=done)
    return make_plan(fingerprint, scale=scale_named(scale))


def read_plan_for(task: Task, path: Path | str) -> Plan:
    """Read a plan that a data set can follow, also one that was made of another.

    Raises:
        ConfigError: it cannot be read, or is of images of another kind.
    """
    plan = Plan.read(path)
    found = (f"{len(plan.normalisation)} channels", f"sizes in {plan.unit}")
    wanted = (f"{len(task.channels)} channels", f"sizes in {task.unit}")
    if found != wanted:
        raise ConfigError(
            f"{path}: planned for {' and '.join(found)} ('{plan.dataset}'), but '{task.name}' has "
            f"{' and '.join(wanted)}"
        )
    if task.dims == 2 and plan.configuration().dims == 3:
        raise ConfigError(f"{path}: its configuration '{plan.chosen}' is 3-D, but '{task.name}' holds pictures")
    if plan.dataset != task.name:
        _log.warning("%s: made for '%s', followed by '%s' all the same", path, plan.dataset, task.name)
    return plan


def _scales(asked: str | None, memory: int | None, *, is_changed: bool) -> list[Scale]:
    """Give the scales to plan; beside the paper's, the laptop's plan stays small whatever the memory."""
    if asked is not None or is_changed:
        return [scale_named(asked or PAPER.name, memory=memory)]
    laptop = LAPTOP.memory if memory is None else min(memory, LAPTOP.memory)
    return [scale_named(PAPER.name, memory=memory), scale_named(LAPTOP.name, memory=laptop)]
