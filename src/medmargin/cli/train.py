"""`medmargin train`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from medmargin.cli.answer import print_json, say
from medmargin.cli.settings import Settings, parsed_settings
from medmargin.errors import ConfigError


def train(
    system: Annotated[str, typer.Argument(help="System, for example u-medsam (see: medmargin systems).")],
    dataset: Annotated[str, typer.Argument(help="Folder, CSV manifest, or name under MEDMARGIN_DATA.")],
    run: Annotated[Path, typer.Option(help="Folder of the run.")],
    minutes: Annotated[float | None, typer.Option(help="Budget in minutes.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget in optimiser steps.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Budget in passes over the objects.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    fold: Annotated[int, typer.Option(help="Fold of the split.")] = 0,
    folds: Annotated[
        str | None, typer.Option(help="Train several folds, each into RUN/fold_K: their number (5), or which (0,2).")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="Split file instead of the data set's own.")] = None,
    labelled: Annotated[str | None, typer.Option(help="Share of patients (0.05), or a file of case names.")] = None,
    scale: Annotated[str | None, typer.Option(help="laptop or paper; default: laptop where no GPU is found.")] = None,
    settings: Settings = None,
    plan: Annotated[Path | None, typer.Option(help="Plan to follow (data plan --out), for planned systems.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    devices: Annotated[int, typer.Option(help="Processes per machine.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines (torchrun or SLURM starts the processes).")] = 1,
    workers: Annotated[int, typer.Option(help="Loading processes; they change no number.")] = 0,
    snapshots: Annotated[int, typer.Option(help="Weights to keep on the way, for --uncertainty snapshots.")] = 0,
    memory: Annotated[str | None, typer.Option(help="Most memory that a step may hold, for example 8G.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Train a system on the training side of a data set; it can be interrupted and resumed at any moment.

    Example: medmargin train u-medsam Dataset004_Hippocampus --run runs/hippocampus --minutes 15
    """
    from medmargin.learning import is_first_process
    from medmargin.workflows.train import train as run_training

    if folds is not None:
        if fold:
            raise ConfigError(f"--fold {fold} and --folds {folds}: give one of them")
        return _folds(
            system, dataset, run, folds, json, minutes=minutes, steps=steps, epochs=epochs, seed=seed, split=split,
            labelled=labelled, scale=scale, settings=parsed_settings(settings), plan=plan, resume=resume,
            devices=devices, nodes=nodes, workers=workers, snapshots=snapshots, memory=memory,
        )  # fmt: skip
    outcome = run_training(
        system, dataset, run=run, minutes=minutes, steps=steps, epochs=epochs, seed=seed, fold=fold, split=split,
        labelled=labelled, scale=scale, settings=parsed_settings(settings), plan=plan, resume=resume, devices=devices,
        nodes=nodes, workers=workers, snapshots=snapshots, memory=memory,
    )  # fmt: skip
    if json and is_first_process():
        print_json({"run": str(run), **asdict(outcome)})
    elif is_first_process():
        say(f"{outcome.steps} steps in {outcome.seconds:.0f} s, ended by {outcome.stopped_by}: {run}")
    return 130 if outcome.stopped_by == "signal" else 0


def _folds(system: str, dataset: str, run: Path, folds: str, json: bool, **training: Any) -> int:
    """Train several folds and tell how each ended."""
    from medmargin.learning import is_first_process
    from medmargin.workflows.folds import train_folds

    found = train_folds(system, dataset, run=run, folds=folds, **training)
    last = found[-1].outcome
    if json and is_first_process():
        print_json({"run": str(run), "folds": [each.to_dict() for each in found]})
    elif is_first_process():
        for each in found:
            told = "had ended before"
            if each.outcome is not None:
                told = f"{each.outcome.steps} steps in {each.outcome.seconds:.0f} s, ended by {each.outcome.stopped_by}"
            say(f"fold {each.fold}: {told}: {each.run}")
    return 130 if last is not None and last.stopped_by == "signal" else 0
