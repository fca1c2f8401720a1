"""`medmargin train`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from medmargin.cli.answer import print_json, say
from medmargin.cli.settings import Settings, parsed_settings


def train(
    system: Annotated[str, typer.Argument(help="System, for example u-medsam (see: medmargin systems).")],
    dataset: Annotated[str, typer.Argument(help="Folder, CSV manifest, or name under MEDMARGIN_DATA.")],
    run: Annotated[Path, typer.Option(help="Folder of the run.")],
    minutes: Annotated[float | None, typer.Option(help="Budget in minutes.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget in optimiser steps.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Budget in passes over the objects.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    fold: Annotated[int, typer.Option(help="Fold of the split.")] = 0,
    split: Annotated[Path | None, typer.Option(help="Split file instead of the data set's own.")] = None,
    labelled: Annotated[str | None, typer.Option(help="Share of patients (0.05), or a file of case names.")] = None,
    scale: Annotated[str | None, typer.Option(help="laptop or paper; default: laptop where no GPU is found.")] = None,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    devices: Annotated[int, typer.Option(help="Processes per machine.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines (torchrun or SLURM starts the processes).")] = 1,
    workers: Annotated[int, typer.Option(help="Loading processes; they change no number.")] = 0,
    snapshots: Annotated[int, typer.Option(help="Weights to keep on the way, for --uncertainty snapshots.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Train a system on the training side of a data set; it can be interrupted and resumed at any moment.

    Example: medmargin train u-medsam Dataset004_Hippocampus --run runs/hippocampus --minutes 15
    """
    from medmargin.learning import is_first_process
    from medmargin.workflows.train import train as run_training

    outcome = run_training(
        system, dataset, run=run, minutes=minutes, steps=steps, epochs=epochs, seed=seed, fold=fold, split=split,
        labelled=labelled, scale=scale, settings=parsed_settings(settings), resume=resume, devices=devices, nodes=nodes,
        workers=workers, snapshots=snapshots,
    )  # fmt: skip
    if json and is_first_process():
        print_json({"run": str(run), **asdict(outcome)})
    elif is_first_process():
        say(f"{outcome.steps} steps in {outcome.seconds:.0f} s, ended by {outcome.stopped_by}: {run}")
    return 130 if outcome.stopped_by == "signal" else 0
