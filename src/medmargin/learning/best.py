"""`BestWeights`: remember the best validation score and keep the weights that reached it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from medmargin.learning.learner import Learner
from medmargin.runs import write_weights


class BestWeights(Callback):
    """After each validation, keep the weights if their score is the best so far.

    Args:
        path: file of the weights.

    Attributes:
        scores: {"step": ..., name -> score of that validation}; empty before the first one.
    """

    def __init__(self, path: Path) -> None:
        self.scores: dict[str, float] = {}
        self._path = path

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self.scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scores = state_dict["scores"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        sign = 1 if pl_module.monitor_mode == "max" else -1
        if self.scores and sign * found[pl_module.monitor] <= sign * self.scores[pl_module.monitor]:
            return
        self.scores = {"step": trainer.global_step, **found}
        if trainer.is_global_zero:
            write_weights(self._path, pl_module.best_network.state_dict())
