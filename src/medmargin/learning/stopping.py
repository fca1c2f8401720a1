"""Ctrl-C, and the signals of a cluster: finish the step, save, stop. A second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medmargin.learning.checkpoints import validation_follows

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal(Callback):
    """Ask for the end of the training at the end of a step after SIGINT or SIGTERM, in all processes at the same one.

    Signals reach only a main thread; elsewhere the callback does nothing.

    Attributes:
        received: a signal came.
    """

    def __init__(self) -> None:
        self.received = False
        self._former: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._receive) for number in _SIGNALS}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1:
            heard = torch.tensor(float(self.received), device=trainer.strategy.root_device)
            self.received = bool(trainer.strategy.reduce(heard, reduce_op="sum") > 0)
        if self.received:
            if not validation_follows(trainer):
                trainer.limit_val_batches = 0  # Lightning would validate before it stops; nobody wants to wait for that
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if self._former:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
