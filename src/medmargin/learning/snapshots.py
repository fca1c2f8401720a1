"""Weights kept on the way: a checkpoint ensemble for the price of one training.

Huang et al. 2017, arXiv:1704.00109, without its cyclic learning rate: the weights of the second half of a training
already differ enough to disagree where the data leaves a choice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from medmargin.learning.learner import Learner
from medmargin.runs import write_weights

_FROM = 0.5  # share of the training after which snapshots are taken


class Snapshots(Callback):
    """Keep the weights at equal distances over the second half of the training, its end not included.

    Args:
        folder: gets `1.safetensors`, `2.safetensors`, ... count: how many.
        progress: step -> share of the training that is done.
    """

    def __init__(self, folder: Path, count: int, progress: Callable[[int], float]) -> None:
        self._folder = folder
        self._marks = [_FROM + (1 - _FROM) * index / (count + 1) for index in range(1, count + 1)]
        self._progress = progress

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        before, now = self._progress(trainer.global_step - 1), self._progress(trainer.global_step)
        for index, mark in enumerate(self._marks, start=1):
            if before < mark <= now and trainer.is_global_zero:
                write_weights(self._folder / f"{index}.safetensors", cast(Learner, pl_module).best_network.state_dict())
