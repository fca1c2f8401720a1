"""`fit`: the one place that runs a learner. Lightning does the work; what it leaves open is settled here.

A run resumed after any interruption, even `kill -9` in the middle of a write, continues from `checkpoints/last.ckpt`
and ends with the weights of an uninterrupted run, bit for bit, on the same device with the same number of threads. For
a budget in minutes this holds given the plan of steps that the checkpoint carries (see `budget`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from medmargin.errors import ConfigError
from medmargin.learning.batches import FixedItems, StepBatches, StepSeed, Stream, training_loader, validation_loader
from medmargin.learning.best import BestWeights
from medmargin.learning.budget import UNDECIDED, Budget, Plan
from medmargin.learning.checkpoints import LastCheckpoint, read_checkpoint, stored_state
from medmargin.learning.engine import Accelerator, Precision, build_trainer, quiet_lightning, wants_gpu
from medmargin.learning.learner import Learner
from medmargin.learning.metrics_log import MetricsLog, cut_records
from medmargin.learning.pacing import Pacer
from medmargin.learning.progress import ProgressBar
from medmargin.learning.snapshots import Snapshots
from medmargin.learning.stopping import StopOnSignal
from medmargin.networks.weight_files import load_strictly
from medmargin.runs import RunPaths, read_weights, run_lock, write_weights
from medmargin.storage import disk_errors

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOutcome:
    """How a training ended.

    Attributes:
        steps: optimiser steps done.
        seconds: of training, over all processes that worked on the run one after the other.
        best: {"step": ..., "val/...": ...} of the best validation; empty without one.
        stopped_by: "minutes", "steps" or "epochs" (the budget), or "signal": the run can be resumed.
    """

    steps: int
    seconds: float
    best: dict[str, float]
    stopped_by: str


def fit(
    learner: Learner,
    stream: Stream,
    validation: FixedItems | None,
    *,
    folder: Path | str,
    budget: Budget,
    batch_size: int,
    seed: int,
    precision: Precision = "32-true",
    accelerator: Accelerator = "auto",
    devices: int = 1,
    nodes: int = 1,
    workers: int = 0,
    resume: bool = False,
    keep: Literal["last", "best"] = "last",
    validate_every: int = 200,
    log_every: int = 10,
    checkpoint_minutes: float = 1.0,
    checkpoint_steps: int | None = None,
    snapshots: int = 0,
    progress: bool = True,
) -> TrainingOutcome:
    """Train until the budget is used up, and leave `model.safetensors` in the run folder.

    With several processes (torchrun, SLURM, or started from here by Lightning) each one calls this function with the
    same arguments; the global batch is the same for any number of them. The first process alone writes.

    Args:
        learner: what is trained. stream: training items. validation: items of other cases, or None.
        folder: the run folder; gets `checkpoints/`, `metrics.jsonl`, and `tensorboard/` where that is installed.
        budget: how long.
        batch_size: items per step over all processes.
        seed: of dropout and the like; a stream has its own.
        precision: of the arithmetic; "16-mixed" needs a GPU.
        accelerator: "auto" takes a GPU where there is one.
        devices, nodes: processes per machine, and machines.
        workers: loading processes beside each training process; they change no number.
        resume: continue from the folder's checkpoint where there is one, else start.
        keep: the weights that are left: those of the last step (their moving average, where the learner keeps one) or
            those with the best validation score.
        validate_every: steps between validations; one more follows the last step.
        log_every: steps between records of the metrics.
        checkpoint_minutes, checkpoint_steps: save after so much time, and at multiples of so many steps.
        snapshots: weights to keep on the way, for a checkpoint ensemble.
        progress: show a bar on stderr.

    Raises:
        ConfigError: arguments that do not fit each other or the run that is resumed, or a loss that is not finite.
        CheckpointError: the checkpoint is damaged or belongs to another learner.
        BudgetError: the folder is in use, cannot be written, or the disk is full.
        KeyboardInterrupt: a second Ctrl-C, or one before the first step.
    """
    if keep == "best" and validation is None:
        raise ConfigError("keep='best' needs validation cases: give some, or keep the last weights.")
    paths = RunPaths(Path(folder))
    identity = {"seed": seed, "batch_size": batch_size, "budget": budget.as_dict(), "precision": precision}
    checkpoint = _checkpoint_to_resume(paths, learner, identity, resume=resume)
    start = 0 if checkpoint is None else int(checkpoint["global_step"])
    plan = _plan(checkpoint, budget.total_steps(objects=stream.objects, batch_size=batch_size))

    pacer = Pacer(budget, plan, learner.optimisation.schedule)
    best, stopper = BestWeights(paths.best_weights), StopOnSignal()
    last = LastCheckpoint(
        paths.checkpoint, every_minutes=checkpoint_minutes, every_steps=checkpoint_steps, identity=identity
    )
    bar = [ProgressBar(pacer, monitor=learner.monitor, every=log_every)] if progress else []
    kept = [Snapshots(paths.snapshots, snapshots, lambda step: pacer.plan.progress(step))] if snapshots else []
    with quiet_lightning():
        trainer = build_trainer(
            paths,
            # in this order: what is stored holds what was decided, logged and kept at the same step
            callbacks=[StepSeed(seed), pacer, MetricsLog(log_every), *bar, *kept, best, stopper, last],
            start=start,
            max_steps=start if start >= plan.horizon else -1,
            accelerator=accelerator,
            devices=devices,
            nodes=nodes,
            precision=precision,
            validate_every=None if validation is None else validate_every,
            log_every=log_every,
        )
        share = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        total = UNDECIDED if budget.minutes is not None else plan.horizon
        batches = StepBatches(batch_size=batch_size, start=start, total=total, **share)
        training = training_loader(stream, batches, workers=workers, pin_memory=wants_gpu(accelerator))
        checking = None if validation is None else validation_loader(validation, batch_size=batch_size, **share)
        with run_lock(paths.folder) if trainer.is_global_zero else nullcontext():
            if trainer.is_global_zero:
                _tidy(paths, start)
            with _interrupts():
                trainer.fit(learner, training, checking, ckpt_path=None if checkpoint is None else paths.checkpoint)
            steps = trainer.global_step
            was_stopped = steps < pacer.plan.horizon
            if trainer.is_global_zero and not was_stopped:
                state = read_weights(paths.best_weights) if keep == "best" else learner.best_network.state_dict()
                write_weights(paths.weights, state)
            trainer.strategy.barrier()  # when this returns, in whichever process, the weights are there
    return TrainingOutcome(steps, pacer.seconds, best.scores, "signal" if was_stopped else budget.unit)


def _checkpoint_to_resume(
    paths: RunPaths, learner: Learner, identity: dict[str, Any], *, resume: bool
) -> dict[str, Any] | None:
    """Return the folder's checkpoint, None where the run starts at the beginning.

    Raises:
        ConfigError: the folder holds a run that nobody asked to resume, or one with other arguments.
        CheckpointError: the checkpoint is damaged or does not fit the learner.
    """
    with disk_errors(paths.folder):
        has_checkpoint, has_run = paths.checkpoint.exists(), paths.checkpoint.exists() or paths.weights.exists()
    if has_run and not resume:
        raise ConfigError(f"{paths.folder} holds a run already: resume it, or choose another folder.")
    if not has_checkpoint:
        return None
    checkpoint = read_checkpoint(paths.checkpoint)
    former = stored_state(checkpoint, LastCheckpoint)
    changed = [f"{name} was {former['identity'].get(name)} and is {value}" for name, value in identity.items()
               if former["identity"].get(name) != value]
    if changed:
        raise ConfigError(f"{paths.folder}: a resumed run keeps its arguments, but {'; '.join(changed)}.")
    if former["threads"] != torch.get_num_threads():
        _log.warning(
            "%s: the run used %d threads and goes on with %d; its weights will differ in the last digits from those of "
            "an uninterrupted run", paths.folder, former["threads"], torch.get_num_threads(),
        )  # fmt: skip
    load_strictly(learner, checkpoint["state_dict"], origin=str(paths.checkpoint))
    return checkpoint


def _plan(checkpoint: dict[str, Any] | None, total_steps: int | None) -> Plan:
    return Plan(total_steps) if checkpoint is None else Plan(**stored_state(checkpoint, Pacer)["plan"])


def _tidy(paths: RunPaths, start: int) -> None:
    """Remove what a killed process may have left: records of steps to be repeated, and half-written files."""
    cut_records(paths.metrics, after=start)
    for folder in (paths.folder, paths.checkpoint.parent):
        for leftover in folder.glob(".*.part.*"):
            leftover.unlink()


@contextmanager
def _interrupts() -> Iterator[None]:
    """Pass a KeyboardInterrupt on; Lightning turns it into the end of the program."""
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
