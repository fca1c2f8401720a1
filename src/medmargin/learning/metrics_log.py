"""What happened at which step: `metrics.jsonl`, one JSON object a line, and any other Lightning logger beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from medmargin.storage import atomic_path, disk_errors


class JsonLines(Logger):
    """Append metrics to a file of JSON lines.

    Args:
        path: the file.

    Raises:
        BudgetError: the disk is full or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> int:
        return 0

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Do nothing: arguments stand in the run's `config.json`."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one record. A value that is not finite becomes null, which JSON can say."""
        record = {"step": step, **{name: _finite(value) for name, value in metrics.items()}}
        with disk_errors(self._path), open(self._path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")


class MetricsLog(Callback):
    """Hand the learner's numbers to the loggers, and those of each validation.

    A record belongs to the number of finished steps. Training steps return {"loss": ..., "scalars": name -> number}.

    Args:
        every: steps between records.
    """

    def __init__(self, every: int) -> None:
        self._every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self._every == 0:
            self._log(trainer, outputs["scalars"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer, {name: value for name, value in trainer.callback_metrics.items() if name.startswith("val/")})

    def _log(self, trainer: Trainer, scalars: Mapping[str, Any]) -> None:
        numbers = {name: float(value) for name, value in scalars.items()}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)


def cut_records(path: Path, *, after: int) -> None:
    """Drop the records of later steps than `after`, and the half line a killed process may have left.

    Raises:
        BudgetError: the file cannot be written.
    """
    if path.exists():
        kept = [line for line, step in _records(path) if step <= after]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _records(path: Path) -> list[tuple[str, int]]:
    """Return the whole lines of a metrics file with their steps."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append((line, int(json.loads(line)["step"])))
        except (ValueError, KeyError, TypeError):
            break  # a line that was cut; nothing after it can be trusted
    return records


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
