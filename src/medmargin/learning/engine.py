"""Lightning's `Trainer` as this house needs it: one endless epoch, our batches, our files, silence on stdout."""

from __future__ import annotations

import atexit
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only

from medmargin.errors import ConfigError
from medmargin.learning.checkpoints import AtomicCheckpoints
from medmargin.learning.metrics_log import JsonLines
from medmargin.runs import RunPaths

Accelerator = Literal["auto", "cpu", "gpu"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
_DOES_NOT_APPLY = (
    ".*does not have many workers.*",
    ".*ended before the epoch ended.*",  # our batches do not depend on where an epoch ended
    ".*eval mode.*",  # averaged weights are in it for good
    ".*no `val_dataloader`.*",
    ".*smaller than the logging interval.*",  # records are kept by `MetricsLog`
    ".*LeafSpec.*",  # Lightning's own business with torch
    ".*sync_dist=True.*",  # learners that leave it out add their counts up themselves
    ".*Grad strides do not match bucket view.*",  # channels lie last; one copy of a small gradient
)


def wants_gpu(accelerator: Accelerator) -> bool:
    """Tell whether training runs on a GPU; "auto" takes one where there is one."""
    return accelerator == "gpu" or (accelerator == "auto" and torch.cuda.is_available())


def require_devices(accelerator: Accelerator, devices: int, precision: Precision) -> None:
    """Refuse what this machine cannot do; see `training.fit` for the arguments.

    Raises:
        ConfigError: more GPUs than it has, or 16-bit floats without one.
    """
    is_gpu = wants_gpu(accelerator)
    if is_gpu and torch.cuda.device_count() < devices:
        raise ConfigError(f"{devices} GPUs asked for, {torch.cuda.device_count()} found: lower devices or use the cpu.")
    if precision == "16-mixed" and not is_gpu:
        raise ConfigError("precision '16-mixed' needs a GPU: choose 'bf16-mixed' or '32-true'.")


def is_first_process() -> bool:
    """Tell whether this is the process that writes, before a trainer exists (torchrun, SLURM, or Lightning's own)."""
    return getattr(rank_zero_only, "rank", 0) == 0


def build_trainer(
    paths: RunPaths,
    *,
    callbacks: Sequence[Callback],
    start: int,
    max_steps: int,
    accelerator: Accelerator,
    devices: int,
    nodes: int,
    precision: Precision,
    validate_every: int | None,
    log_every: int,
) -> Trainer:
    """Build a trainer whose callbacks decide when it ends.

    Args:
        paths: of the run; loggers write there.
        callbacks: called in this order.
        start: steps already done. max_steps: -1, or `start` where nothing is left to do.
        accelerator, devices, nodes, precision: see `training.fit`.
        validate_every: steps between validations, None for none.
        log_every: steps between records.

    Raises:
        ConfigError: a combination that does not exist, or more devices than the machine has.
    """
    require_devices(accelerator, devices, precision)
    is_gpu = wants_gpu(accelerator)
    is_distributed = devices * nodes > 1
    if is_distributed:
        atexit.register(_leave_group)
    plugins: list[Any] = [AtomicCheckpoints()]
    if is_distributed and SLURMEnvironment.detect():
        # requeueing would save in the middle of a step; SIGTERM ends the run at a step's end, ready to be resumed
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return Trainer(
        accelerator="gpu" if is_gpu else "cpu",
        devices=devices,
        num_nodes=nodes,
        # parts of a promptable network rest while their kind of prompt is not given
        strategy=DDPStrategy(find_unused_parameters=True) if is_distributed else "auto",
        sync_batchnorm=is_gpu and is_distributed,
        precision=precision,
        max_epochs=1,
        max_steps=max_steps,
        val_check_interval=validate_every or 1,
        check_val_every_n_epoch=None,
        limit_val_batches=1.0 if validate_every else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=log_every,
        logger=_loggers(paths, start),
        callbacks=list(callbacks),
        plugins=plugins,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=paths.folder,
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence advice that does not apply here, and tips on other products."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _DOES_NOT_APPLY:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _leave_group() -> None:
    """Leave the group of processes in order; Lightning does so for NCCL only, and gloo may abort at exit otherwise."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _loggers(paths: RunPaths, start: int) -> list[Logger]:
    """Log to JSON lines, and to TensorBoard where it is installed; events of steps to be repeated are hidden there."""
    loggers: list[Logger] = [JsonLines(paths.metrics)]
    if find_spec("tensorboard") is not None:
        loggers.append(TensorBoardLogger(paths.folder, name="tensorboard", version="", purge_step=start + 1))
    return loggers
