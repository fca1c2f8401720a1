"""How long to train, and how that becomes a number of steps.

A budget in minutes cannot be a number of steps before a step has been timed. The plan therefore starts open, is decided
after the first steps and corrected when the pace changes by more than a few percent (another program wakes up, a laptop
gets hot). Every decision becomes part of the plan, and the plan is stored with each checkpoint: given the plan, the
schedule is a pure function of the step, always ends at its end, and a resumed run follows the plan it finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medmargin.errors import ConfigError

UNDECIDED = 1_000_000_000
"""Steps no run reaches; stands for the length of a run while its plan is open."""


@dataclass(frozen=True)
class Budget:
    """At most one of three ways to say how long to train.

    Attributes:
        minutes: wall-clock minutes of training with its validation.
        steps: optimiser steps.
        epochs: passes over the objects.

    Raises:
        ConfigError: none or several are given, or one is not positive.
    """

    minutes: float | None = None
    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1 or min(given.values()) <= 0:
            shown = ", ".join(f"{name}={value}" for name, value in given.items()) or "nothing"
            raise ConfigError(f"the budget is {shown}: expected one of minutes, steps and epochs, more than 0.")

    @property
    def unit(self) -> str:
        """The one that is given: "minutes", "steps" or "epochs"."""
        return next(name for name, value in vars(self).items() if value is not None)

    @property
    def seconds(self) -> float | None:
        return None if self.minutes is None else 60 * self.minutes

    def total_steps(self, *, objects: int | None, batch_size: int) -> int | None:
        """Return the number of steps, or None where it depends on the clock.

        Args:
            objects: what one epoch passes over; None for a stream without end.

        Raises:
            ConfigError: epochs of a stream without end.
        """
        if self.epochs is None:
            return self.steps
        if objects is None:
            raise ConfigError("generated pictures have no end, so epochs mean nothing: give steps or minutes.")
        return self.epochs * -(-objects // batch_size)

    def as_dict(self) -> dict[str, float]:
        """Return {unit: amount} for the run's description."""
        return {self.unit: getattr(self, self.unit)}


@dataclass(frozen=True)
class Plan:
    """How many steps the run will have, and how far a step is along the way.

    Attributes:
        total: steps in all; None while a budget in minutes is undecided.
        since: step of the last decision.
        reached: progress in [0, 1] at that step.
    """

    total: int | None
    since: int = 0
    reached: float = 0.0

    @property
    def horizon(self) -> int:
        """Steps in all for arithmetic: a number no run reaches while the plan is undecided."""
        return UNDECIDED if self.total is None else self.total

    def progress(self, step: int) -> float:
        """Return how much of the run lies behind `step` finished steps, in [0, 1]; continuous across corrections."""
        left = max(self.horizon - self.since, 1)
        return min(1.0, self.reached + (1 - self.reached) * (step - self.since) / left)

    def corrected(self, step: int, total: int) -> Plan:
        """Plan `total` steps at `step`. The first decision holds from the start; later ones keep what was reached."""
        if self.total is None:
            return Plan(max(total, step))
        return Plan(max(total, step), since=step, reached=self.progress(step))

    def as_dict(self) -> dict[str, Any]:
        return {"total": self.total, "since": self.since, "reached": self.reached}
