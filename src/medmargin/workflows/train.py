"""Train: from a system's name and a data set to a run folder with weights, log and model card."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from medmargin.datasets.case import Case
from medmargin.datasets.dataset import Dataset, open_dataset
from medmargin.datasets.fingerprint import slice_extent
from medmargin.datasets.planning import require_memory
from medmargin.datasets.task import Task
from medmargin.errors import ConfigError
from medmargin.inference.budget import parse_memory
from medmargin.learning import (
    Budget,
    FixedItems,
    TrainingOutcome,
    cache_cases,
    cache_volumes,
    fit,
    is_first_process,
    require_devices,
    wants_gpu,
)
from medmargin.networks.weight_files import load_strictly
from medmargin.runs import (
    Run,
    RunConfig,
    describe_environment,
    read_run,
    write_model_card,
    write_run,
    write_weights,
)
from medmargin.systems.registry import build_system, catalogue, resolve_arguments
from medmargin.systems.system import Stage, System
from medmargin.workflows.device_memory import device_memory
from medmargin.workflows.labelled import labelled_subset
from medmargin.workflows.plan import plan_for_training, read_plan_for
from medmargin.workflows.scale import choose_scale

_CACHES: dict[str, Callable[..., Any]] = {"slices": cache_cases, "volumes": cache_volumes}
_MOST_WARNINGS = 5
_log = logging.getLogger(__name__)
_MEASURED_ON = {
    "slices": "validation objects at network resolution",
    "volumes": "validation patches at the plan's spacing, best while training",
}


def train(
    system: str,
    dataset: Path | str,
    *,
    run: Path | str,
    minutes: float | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    fold: int = 0,
    split: Path | str | None = None,
    labelled: str | float | Path | None = None,
    scale: str | None = None,
    settings: Mapping[str, Any] | None = None,
    plan: Path | str | None = None,
    resume: bool = False,
    devices: int = 1,
    nodes: int = 1,
    workers: int = 0,
    snapshots: int = 0,
    memory: str | None = None,
    progress: bool = True,
) -> TrainingOutcome:
    """Train a system on the training side of a data set.

    Args:
        system: slug, for example "u-medsam".
        dataset: folder in any layout, or name under MEDMARGIN_DATA.
        run: folder of the run, new or (with `resume`) one that was interrupted.
        minutes, steps, epochs: at most one; without a budget the system's own length.
        seed: of every random choice.
        fold, split: fold of the split, and a split file instead of the data set's own.
        labelled: share of the training patients whose labels are used, or a file of case names.
        scale: "laptop" or "paper"; None takes the laptop's where no GPU is found.
        settings: arguments of the system by name.
        plan: file of a plan (`data plan --out`), for systems that are planned; None makes one.
        resume: continue an interrupted run.
        devices, nodes: processes per machine, and machines.
        workers: loading processes beside each training process; they change no number.
        snapshots: weights to keep on the way, for a checkpoint ensemble.
        memory: that a step may hold, such as "8G"; None: what the machine has, or its graphics card.
        progress: show progress bars on stderr.

    Returns:
        Steps, seconds, best validation score and what ended the training.

    Raises:
        ConfigError: unknown system or argument, two budgets, or a run folder that is in the way.
        DataError: a data set that cannot be used. BudgetError: no place to write, or not enough memory.
    """
    chosen = choose_scale(scale, settings or {})
    arguments = resolve_arguments(system, chosen, settings or {})
    data = open_dataset(dataset, split_file=split)
    training = labelled_subset(data.split("train", fold), labelled, seed=seed)
    folder, progress = Path(run), progress and is_first_process()
    is_taken = (folder / "config.json").exists()
    if is_taken and not resume and is_first_process():  # the others find what the first one wrote
        raise ConfigError(f"{folder} holds a run already: continue it with --resume, or choose another folder.")
    task = _measured(data, training, system, arguments, chosen, plan, progress=progress)
    torch.manual_seed(seed)  # of the first weights; what follows is seeded step by step
    built = build_system(system, task, arguments)
    stages = [make() for make in built.stages]
    budgets = _budgets(stages, minutes=minutes, steps=steps, epochs=epochs)
    sides = {"train": training, "val": data.split("val", fold)}
    config = _config(system, chosen, arguments, data, task, sides, seed, fold, budgets[-1], built)
    for stage in stages:
        stage.stream(None, seed=seed)  # wrong arguments are refused before a run folder stands in the way
        require_devices("auto", devices, stage.precision)
        _require_memory(stage, system, chosen, memory, devices=devices)
    if is_taken and resume:
        _refuse_changes(read_run(folder), config)
    found = write_run(folder, config) if is_first_process() else Run(folder, config)
    caches = {
        (kind, side): _CACHES[kind](cases, task, folder / "cache" / kind / side, progress=progress)
        for kind in dict.fromkeys(stage.cases for stage in stages)
        for side, cases in sides.items()
    }
    _warn(caches.values())
    for stage, budget in zip(stages, budgets, strict=True):
        stream = stage.stream(caches[stage.cases, "train"], seed=seed)
        checking = stream.undisturbed(caches[stage.cases, "val"])
        is_last = stage is stages[-1]
        outcome = fit(
            stage.learner,
            stream,
            FixedItems(checking, stage.validation_items),
            folder=folder if is_last else folder / "stages" / stage.name,
            budget=budget,
            batch_size=stage.batch_size,
            seed=seed,
            precision=stage.precision,
            devices=devices,
            nodes=nodes,
            workers=workers,
            resume=resume,
            keep=stage.keep,
            validate_every=_interval(budget, stream.objects, stage.batch_size, most=200),
            log_every=_interval(budget, stream.objects, stage.batch_size, most=10),
            snapshots=snapshots if is_last else 0,
            progress=progress,
        )
        if outcome.stopped_by == "signal":
            return outcome
    if is_first_process():
        if built.adapter is not None:
            load_strictly(built.network, found.weights(), origin=str(found.paths.weights))
            write_weights(found.paths.adapter, built.adapter())
        _describe(found, system, outcome, _MEASURED_ON[stages[-1].cases])
    return outcome


def _measured(
    data: Dataset,
    training: Sequence[Case],
    system: str,
    arguments: Mapping[str, Any],
    scale: str,
    plan: Path | str | None,
    *,
    progress: bool,
) -> Task:
    """Give the task with what the system chooses by; nobody else waits for images to be read.

    Raises:
        ConfigError, DataError: a plan for a system that is not planned, or regions or ignored voxels for one that
            cannot learn from them.
    """
    if "plan" in catalogue()[system].needs:
        if plan is not None:
            followed = read_plan_for(data.task, plan)
        else:
            followed = plan_for_training(data, scale=scale, progress=progress)
        if (wanted := arguments.get("configuration", "auto")) != "auto":
            followed = replace(followed, chosen=followed.configuration(wanted).name)
        return replace(data.task, plan=followed)
    if plan is not None:
        raise ConfigError(f"--plan {plan}: '{system}' has sizes of its own and needs no plan. Leave it out")
    data.task.require_plain(system)
    if "auto" in arguments.values():
        return replace(data.task, extent=slice_extent(training, data.task))
    return data.task


def _require_memory(stage: Stage, system: str, scale: str, memory: str | None, *, devices: int) -> None:
    """Refuse a training that the machine cannot hold, before it has cost anything.

    Args:
        memory: that the user allows. devices: that share the batch; processes on a processor share the memory as well.
    """
    available = device_memory() if memory is None else parse_memory(memory)
    if stage.step_bytes is None or available is None:
        return
    allowed = f"{available / 2**30:.3g}G"
    require_memory(
        stage.step_bytes // (devices if wants_gpu("auto") else 1),
        available,
        what=f"a training step of '{system}' with {stage.batch_size} patches",
        cure=f"Lower it with --set batch_size=1, or plan smaller patches and follow them: medmargin data plan DATASET "
        f"--scale {scale} --memory {allowed} --out plan.json, then train with --plan plan.json",
    )


def _warn(caches: Iterable[Any]) -> None:
    """Tell what had to be decided while cases were prepared; the whole list stands beside each case in the cache."""
    told = [warning for cache in caches for warning in getattr(cache, "warnings", ())]
    for warning in told[:_MOST_WARNINGS]:
        _log.warning(warning)
    if len(told) > _MOST_WARNINGS:
        _log.warning("and %d warnings more of other cases", len(told) - _MOST_WARNINGS)


def _budgets(stages: Sequence[Stage], *, minutes: float | None, steps: int | None, epochs: int | None) -> list[Budget]:
    """Give each stage its share of the budget, in proportion to its length in the paper; or that length itself."""
    if minutes is None and steps is None and epochs is None:
        return [Budget(epochs=stage.epochs) for stage in stages]
    whole = Budget(minutes=minutes, steps=steps, epochs=epochs)
    if len(stages) == 1:
        return [whole]
    shares = [stage.epochs / sum(stage.epochs for stage in stages) for stage in stages]
    if whole.minutes is not None:
        return [Budget(minutes=whole.minutes * share) for share in shares]
    amounts = [max(1, round(getattr(whole, whole.unit) * share)) for share in shares]
    return [Budget(**{whole.unit: amount}) for amount in amounts]


def _config(
    system: str,
    scale: str,
    arguments: Mapping[str, Any],
    data: Dataset,
    task: Task,
    sides: Mapping[str, Sequence[Case]],
    seed: int,
    fold: int,
    budget: Budget,
    built: System,
) -> RunConfig:
    manifest = data.fingerprint()
    return RunConfig(
        system=system,
        arguments=dict(arguments),
        task=asdict(task),
        seed=seed,
        threads=torch.get_num_threads(),
        budget=budget.as_dict(),
        data={
            "name": data.name,
            "sha256": manifest["sha256"],
            "fold": fold,
            "split": data.splits.source,
            **{side: [case.name for case in cases] for side, cases in sides.items()},
        },
        command=[Path(sys.argv[0]).name, *sys.argv[1:]],
        scale=scale,
        built=built.described(),
        **describe_environment(),
    )


def _refuse_changes(run: Run, wanted: RunConfig) -> None:
    if changes := run.config.differences(wanted):
        raise ConfigError(f"{run.folder}: a resumed run keeps its arguments, but {'; '.join(changes)}.")


def _interval(budget: Budget, objects: int | None, batch_size: int, *, most: int) -> int:
    """Steps between two validations or records: at least ten of them in a run, and at most `most` steps apart."""
    total = budget.total_steps(objects=objects, batch_size=batch_size)
    return most if total is None else max(1, min(most, total // 10))


def _describe(run: Run, system: str, outcome: TrainingOutcome, measured_on: str) -> None:
    entry = catalogue()[system]
    best = {name: value for name, value in outcome.best.items() if name.startswith("val/")}
    write_model_card(
        run,
        summary=f"{entry.title} ({entry.paper}).",
        results={f"{measured_on}: {name[4:]}": value for name, value in best.items()},
    )
