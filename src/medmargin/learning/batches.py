"""Batches that do not depend on the past: batch t is a pure function of (seed, t).

Lightning saves neither the random state nor the position in the data, so that a resumed run would see other batches and
other dropout masks than an uninterrupted one. The cure: a sampler that starts at the number of finished steps while its
length stays the whole run's (a shorter one confuses Lightning's progress), items that draw from a generator seeded by
(seed, step, position), and torch's generator seeded anew at every step.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import cv2
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from medmargin.errors import ConfigError

Key = tuple[int, int]  # (step, position in the global batch)
Batch = TypeVar("Batch", bound=NamedTuple)
_PROCESS_STRIDE = 1 << 32  # keeps the random numbers of processes apart; the first process uses seed + step itself


class Stream(Protocol):
    """Training items without order or end."""

    @property
    def objects(self) -> int | None:
        """Items of one epoch, or None where there is no such thing."""
        ...

    def __getitem__(self, key: Key) -> Any:
        """Make the item at a position of the batch of a step, as a pure function of the stream's seed and `key`."""
        ...

    def collate(self, items: Sequence[Any]) -> Any:
        """Stack items to a batch: a named tuple of tensors [B, ...] or None."""
        ...

    def undisturbed(self, source: Any) -> Stream:
        """Return the validation stream of another source: nothing is augmented or jittered."""
        ...


class StepBatches(Sampler[list[Key]]):
    """The keys of this process's share of every global batch.

    Args:
        batch_size: of the global batch, over all processes.
        start: steps already done. total: steps of the whole run; the length.
        rank, world_size: of this process; each takes a contiguous block of every batch.

    Raises:
        ConfigError: the batch cannot be split evenly.
    """

    def __init__(self, *, batch_size: int, start: int, total: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise ConfigError(
                f"a batch of {batch_size} cannot be split over {world_size} processes: choose a multiple of it."
            )
        share = batch_size // world_size
        self._positions = range(rank * share, (rank + 1) * share)
        self._steps = range(start, total)
        self._total = total

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[list[Key]]:
        for step in self._steps:
            yield [(step, position) for position in self._positions]


class FixedItems(Dataset):
    """The first `count` items of step 0 of a stream: the same ones at every validation.

    Args:
        stream: without augmentation and jitter, or validation measures those.
        count: number of items.
    """

    def __init__(self, stream: Stream, count: int) -> None:
        self.stream = stream
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.stream[0, index]


class StepSeed(Callback):
    """Seed torch before every training batch, so that dropout and the like depend on the step alone.

    Args:
        seed: of the run. Process r uses seed + step + r * 2^32.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(self._seed + trainer.global_step + trainer.global_rank * _PROCESS_STRIDE)


def training_loader(stream: Stream, batches: StepBatches, *, workers: int = 0, pin_memory: bool = False) -> DataLoader:
    """Load the batches of a stream, with `workers` processes beside this one."""
    return DataLoader(
        cast(Dataset, stream),  # by its methods; a stream need not inherit from torch
        batch_sampler=batches,
        collate_fn=stream.collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_prepare_worker,
    )


def validation_loader(items: FixedItems, *, batch_size: int, rank: int = 0, world_size: int = 1) -> DataLoader:
    """Load this process's share of fixed items, in this process and in order."""
    indices = range(rank, len(items), world_size)
    batches = [list(indices[first : first + batch_size]) for first in range(0, len(indices), batch_size)]
    return DataLoader(items, batch_sampler=batches, collate_fn=items.stream.collate)


def split(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch along its first axis into at most `parts` parts of about equal size."""
    fields = {name: value for name, value in batch._asdict().items() if isinstance(value, Tensor)}
    size = len(next(iter(fields.values())))
    pieces = {name: value.tensor_split(min(parts, size)) for name, value in fields.items()}
    return [
        batch._replace(**{name: piece[part] for name, piece in pieces.items()}) for part in range(min(parts, size))
    ]


def _prepare_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # a pool forked from a threaded parent can hang; each worker is one thread anyway
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent still needs its batches
