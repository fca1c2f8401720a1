"""Progress for people: a bar with the time left on a terminal, a line now and then in a log file. Always on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from rich import progress as columns
from rich.console import Console
from rich.progress import Progress, TaskID

from medmargin.learning.pacing import Pacer

Item = TypeVar("Item")
_LINES_IN_A_LOG = 20


def tracked(items: Iterable[Item], *, description: str, show: bool = True) -> Iterator[Item]:
    """Yield `items` and show how far the loop has come."""
    console = Console(stderr=True)
    total = len(items) if isinstance(items, Sized) else None
    with _bar(console, visible=show) as bar:
        task = bar.add_task(description, total=total, scores="")
        yield from bar.track(items, task_id=task)


@contextmanager
def counted(*, description: str, show: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show how far work has come that calls what is given with (done, in all)."""
    with _bar(Console(stderr=True), visible=show) as bar:
        task = bar.add_task(description, total=None, scores="")
        yield lambda done, total: bar.update(task, completed=done, total=total)


class ProgressBar(Callback):
    """Show steps done, steps planned, time left, the loss and the last validation score.

    The time left comes from the pace of whole steps, so that the second pass of sharpness-aware minimisation, loading
    and validation are in it.

    Args:
        pacer: knows how many steps are planned.
        monitor: name of the validation score.
        every: steps between readings of the loss, which stop a GPU for a moment.
    """

    def __init__(self, pacer: Pacer, *, monitor: str, every: int) -> None:
        self._pacer = pacer
        self._every = every
        self._monitor = monitor
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._scores: dict[str, str] = {}
        self._lines = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._bar = _bar(self._console, visible=self._console.is_terminal)
            self._task = self._bar.add_task("training", total=None, scores="")
            self._bar.start()
            self._show(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is None:
            return
        if trainer.global_step % self._every == 0:
            self._scores["loss"] = f"{float(outputs['loss']):.3f}"
        self._show(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None and self._monitor in trainer.callback_metrics:
            self._scores[self._monitor] = f"{float(trainer.callback_metrics[self._monitor]):.3f}"
            self._show(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def _show(self, trainer: Trainer) -> None:
        assert self._bar is not None
        step, total = trainer.global_step, self._pacer.plan.total
        scores = "  ".join(f"{name} {value}" for name, value in self._scores.items())
        self._bar.update(self._task, completed=step, total=total, scores=scores)
        if not self._console.is_terminal and total and step * _LINES_IN_A_LOG // total > self._lines:
            self._lines = step * _LINES_IN_A_LOG // total
            left = self._bar.tasks[0].time_remaining
            remaining = "" if left is None else f"  {left / 60:.1f} min left"
            self._console.print(f"training {step}/{total}  {scores}{remaining}", highlight=False, soft_wrap=True)


def _bar(console: Console, *, visible: bool) -> Progress:
    return Progress(
        columns.TextColumn("{task.description}"),
        columns.BarColumn(),
        columns.MofNCompleteColumn(),
        columns.TimeElapsedColumn(),
        columns.TextColumn("left"),
        columns.TimeRemainingColumn(),
        columns.TextColumn("{task.fields[scores]}"),
        console=console,
        disable=not visible,
    )
