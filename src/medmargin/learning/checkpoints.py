"""Checkpoints a run resumes from: written whole or not at all, and never opened as code.

When a validation follows the step, the checkpoint waits for it: Lightning does not repeat a validation that was due at
the step it resumes from.
"""

from __future__ import annotations

import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from medmargin.errors import CheckpointError
from medmargin.storage import atomic_path

_DAMAGED = (OSError, EOFError, RuntimeError, ValueError, LookupError, AttributeError, TypeError, zipfile.BadZipFile)


class AtomicCheckpoints(CheckpointIO):
    """Lightning's way to the disk: atomic writes, typed errors, tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Path | str, storage_options: Any | None = None) -> None:
        """Write a checkpoint so that `path` holds either the former one or the new one, also after a power cut.

        Raises:
            BudgetError: the disk is full or the folder cannot be written; the former checkpoint is untouched.
        """
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            torch.save(checkpoint, stream)
            stream.flush()
            os.fsync(stream.fileno())

    def load_checkpoint(
        self, path: Path | str, map_location: Any | None = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint; see `read_checkpoint`. It is never opened in a way that could execute code."""
        return read_checkpoint(path)

    def remove_checkpoint(self, path: Path | str) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values onto the processor.

    Raises:
        CheckpointError: truncated, changed, not a checkpoint, or with objects in it that could be code.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums in its files
            changed = archive.testzip()
        if changed is not None:
            raise CheckpointError(f"{path}: changed since it was written ({changed}). Start the run in another folder.")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        is_whole = {"state_dict", "global_step", "callbacks"} <= checkpoint.keys()
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds something else than tensors and plain values; nothing of it was executed. "
            "Start the run again in another folder."
        ) from error
    except _DAMAGED as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). Start the run again in another folder.") from error
    if not is_whole:
        raise CheckpointError(f"{path}: not a checkpoint of a training run. Start the run again in another folder.")
    return checkpoint


class LastCheckpoint(Callback):
    """Keep the newest state of the run in one file.

    Args:
        path: the file.
        every_minutes: save when this much time has passed since the last one.
        every_steps: save at multiples of this step; None saves by the clock alone.
        identity: what a run must have in common with the one that wrote the checkpoint; stored in it.
    """

    def __init__(
        self, path: Path, *, every_minutes: float, every_steps: int | None = None, identity: dict[str, Any]
    ) -> None:
        self._path = path
        self._every_seconds = 60 * every_minutes
        self._every_steps = every_steps
        self._identity = identity
        self._saved_at = time.monotonic()
        self._waits_for_validation = False

    def state_dict(self) -> dict[str, Any]:
        return {"identity": self._identity, "threads": torch.get_num_threads()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_late = trainer.strategy.broadcast(time.monotonic() - self._saved_at >= self._every_seconds)  # one clock
        is_step = self._every_steps is not None and trainer.global_step % self._every_steps == 0
        if is_late or is_step or trainer.should_stop:
            self._waits_for_validation = validation_follows(trainer)
            if not self._waits_for_validation:
                self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._waits_for_validation:
            self._waits_for_validation = False
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self._path)
        self._saved_at = time.monotonic()


def validation_follows(trainer: Trainer) -> bool:
    """Tell, at the end of a training batch, whether Lightning validates before the next one."""
    interval = trainer.val_check_interval
    is_due = isinstance(interval, int) and trainer.global_step % interval == 0
    return trainer.enable_validation and (trainer.should_stop or is_due)


def stored_state(checkpoint: dict[str, Any], callback: type[Callback]) -> dict[str, Any]:
    """Return what a callback stored in a checkpoint.

    Raises:
        CheckpointError: it stored nothing, so another program wrote the checkpoint.
    """
    if callback.__qualname__ not in checkpoint["callbacks"]:
        raise CheckpointError(f"the checkpoint holds no {callback.__qualname__}: another program wrote it. Start anew.")
    return checkpoint["callbacks"][callback.__qualname__]
