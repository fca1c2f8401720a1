"""`Pacer`: keeps to the budget; learning rate and progress are pure functions of the step and the plan."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from medmargin.learning.budget import Budget, Plan

if TYPE_CHECKING:
    from medmargin.learning.learner import Learner

_FIRST_DECISION = 10  # steps to time before the number of steps is decided ...
_FIRST_SHARE = 0.05  # ... or fewer, once this share of the time is gone
_WARM_UP = 2  # steps that are slower than the rest (memory, caches) and are not timed
_REVIEWS = 20  # times the pace is looked at again
_TOLERANCE = 0.03  # relative change of the number of steps that is worth a correction


class Schedule(Protocol):
    """Factor on the base learning rate at a step, e.g. `optim.schedules.cosine_with_warmup`."""

    def __call__(self, step: int, *, total_steps: int) -> float: ...


class Pacer(Callback):
    """Decide the number of steps, set the learning rate and the learner's `progress` before each, stop after the last.

    Every parameter group runs at its own base rate (`initial_lr`, kept in the optimiser's state) times the factor.

    Args:
        budget: how long to train.
        plan: decided, or open for a budget in minutes.
        schedule: factor on the base learning rate.
    """

    def __init__(self, budget: Budget, plan: Plan, schedule: Schedule) -> None:
        self.plan = plan
        self._budget = budget
        self._schedule = schedule
        self._earlier = 0.0  # seconds of the run before this process
        self._started: float | None = None
        self._timed_from: tuple[int, float] | None = None  # step and second where the current measurement began
        self._validation_began = 0.0
        self._last_validation = 0.0  # seconds; one more follows the last step

    @property
    def seconds(self) -> float:
        """Training time so far, over all processes that worked on the run one after the other."""
        return self._earlier + (0.0 if self._started is None else time.monotonic() - self._started)

    def state_dict(self) -> dict[str, Any]:
        return {"plan": self.plan.as_dict(), "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.plan = Plan(**state_dict["plan"])
        self._earlier = state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()
        for group in _groups(trainer):
            group.setdefault("initial_lr", group["lr"])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        horizon, progress = self.plan.horizon, self.plan.progress(trainer.global_step)
        cast("Learner", pl_module).progress = progress
        factor = self._schedule(round(progress * horizon), total_steps=horizon)
        for group in _groups(trainer):
            group["lr"] = group["initial_lr"] * factor

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self._budget.seconds is not None and step < self.plan.horizon:
            planned = trainer.strategy.broadcast(self._planned(step, self._budget.seconds - self._last_validation))
            if planned is not None:
                self.plan = self.plan.corrected(step, planned)
        if step >= self.plan.horizon:
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_began = self.seconds

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_validation = self.seconds - self._validation_began

    def _planned(self, step: int, available: float) -> int | None:
        """Return the number of steps that fits the time, or None where the plan stays."""
        now = self.seconds
        if now >= available:
            return step
        if self._timed_from is None:
            if step >= _WARM_UP or now > _FIRST_SHARE * available / 2:
                self._timed_from = (step, now)
            return None
        since, began = self._timed_from
        if self.plan.total is None:
            is_due = step - since >= _FIRST_DECISION or now - began >= _FIRST_SHARE * available / 2
        else:
            is_due = now - began >= available / _REVIEWS
        if not is_due:
            return None
        self._timed_from = (step, now)
        total = step + int((available - now) * (step - since) / (now - began))
        is_news = self.plan.total is None or abs(total - self.plan.total) > _TOLERANCE * self.plan.total
        return total if is_news else None


def _groups(trainer: Trainer) -> list[dict[str, Any]]:
    return [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
