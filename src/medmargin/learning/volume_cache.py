"""Training cases as prepared volumes on disk: once normalised and resampled, then compressed in chunks.

A case has four files of its number; the last one written says what the others depend on. So an interrupted preparation
goes on where it stopped, and a file that is half or changed is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.case import Case
from medmargin.datasets.loading import load_case
from medmargin.datasets.planning import Configuration, Plan
from medmargin.datasets.task import Task
from medmargin.errors import ConfigError, DataError, ToolkitError
from medmargin.learning.cached_volumes import LABELLED, ONE_THREAD, CachedCase, CachedVolumes, file_names
from medmargin.learning.progress import tracked
from medmargin.storage import atomic_path, write_json
from medmargin.transforms.preparation import Preparation
from medmargin.transforms.volume_augmentation import OUTSIDE

WORKERS = 2
PLACES = 10_000
"""Voxels of a structure that are remembered of a case at most."""
_LAYOUT = 1  # raise when the content of the cached files changes
_CHUNK = 1 << 17  # voxels
_EXACT_IN_HALF = 2048.0  # up to here 16-bit floats hold every whole number
_COMPRESSION = {"codec": blosc2.Codec.ZSTD, "clevel": 5, "filters": [blosc2.Filter.BITSHUFFLE], **ONE_THREAD}


def cache_volumes(cases: Sequence[Case], task: Task, folder: Path | str, *, progress: bool = True) -> CachedVolumes:
    """Prepare cases in `folder` as the chosen configuration of the task's plan says, two at a time.

    What an earlier call left there is taken where neither the case's files nor the plan have changed.

    Args:
        cases: with labels; some may be empty. task: of their data set, with its plan.
        folder: created where needed; several processes may prepare the same folder at once.
        progress: show a bar on stderr.

    Raises:
        ConfigError: the task has no plan.
        DataError: a case without a label or that cannot be read (it is named), or no label holds any structure.
        BudgetError: the folder cannot be written or the disk is full.
    """
    if task.plan is None:
        raise ConfigError(f"data set '{task.name}': volumes are prepared by a plan. Make one with 'data plan'.")
    preparing = _Preparing(task, task.plan, task.plan.configuration(), Path(folder))
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(preparing.entry, case, number) for number, case in enumerate(cases)]
        try:
            waiting = tracked(futures, description="preparing volumes", show=progress)
            entries = tuple(future.result() for future in waiting)
        except BaseException:  # an interrupt too: what has not begun never does
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    held = {number for entry in entries for number in entry.structures}
    if not held:
        raise DataError(
            f"data set '{task.name}': every label of the {len(cases)} cases is empty at the plan's spacing; nothing "
            "can be learned from them. Check the labels with 'data check'."
        )
    absent = tuple(name for number, name in enumerate(task.structures, start=1) if number not in held)
    return CachedVolumes(preparing.folder, entries, absent)


@dataclass(frozen=True)
class _Preparing:
    """Prepares cases of one task in one folder."""

    task: Task
    plan: Plan
    configuration: Configuration
    folder: Path

    def entry(self, case: Case, number: int) -> CachedCase:
        """Take a case from the folder, or prepare it; whatever goes wrong names the case."""
        path = self.folder / f"{number:05d}.json"
        fingerprint = self._fingerprint(case)
        try:
            entry = _read_entry(path, fingerprint)
            if entry is None:
                path.unlink(missing_ok=True)  # before the files it speaks of are replaced
                entry = self._prepared(case, number)
                sizes = {name: (self.folder / name).stat().st_size for name in file_names(number)}
                write_json(path, {"fingerprint": fingerprint, "sizes": sizes, "case": asdict(entry)})
            return entry
        except ToolkitError as error:
            if f"'{case.name}'" in str(error):
                raise
            raise type(error)(f"case '{case.name}': {error}") from error
        except Exception as error:
            error.add_note(f"while case '{case.name}' was prepared")
            raise

    def _prepared(self, case: Case, number: int) -> CachedCase:
        """Write image, label and places of a case."""
        image, label = load_case(case, self.task)
        if label is None:
            raise DataError("no label; training needs one for each case. Leave the case out of the split.")
        prepared = Preparation(image, self.plan, self.configuration)
        labels = self._counted(prepared.label(label))
        voxels = _stored(prepared.voxels)
        ranges, places = self._places(labels, number)
        image_name, label_name, places_name = file_names(number)
        chunk = chunk_shape(labels.shape, self.configuration.patch)
        _write_chunks(self.folder / image_name, voxels, (1, *chunk))
        _write_chunks(self.folder / label_name, labels, chunk)
        with atomic_path(self.folder / places_name) as temporary:
            np.save(temporary, places, allow_pickle=False)
        d, h, w = labels.shape
        warnings = tuple(dict.fromkeys((*prepared.warnings, *label.warnings)))
        return CachedCase(case.name, number, ranges, (d, h, w), voxels.nbytes + labels.nbytes + places.nbytes, warnings)

    def _counted(self, labels: NDArray[np.int16]) -> NDArray:
        """Mark ignored voxels of [D, H, W] by -1, in the smallest type."""
        if self.task.ignore is not None:
            labels[labels == self.task.ignore] = OUTSIDE
        return labels.astype(np.int8) if labels.max() <= np.iinfo(np.int8).max else labels

    def _places(self, labels: NDArray, number: int) -> tuple[dict[int, tuple[int, int]], NDArray]:
        """Draw voxels of every structure that is there: range of rows of each, and [N, 3] indices."""
        rng = np.random.default_rng(number)
        ranges, drawn, end = {}, [], 0
        masks = [(index, self.task.mask(labels, name)) for index, name in enumerate(self.task.structures, start=1)]
        if self.task.ignore is not None:
            masks.append((LABELLED, labels != OUTSIDE))
        for index, mask in masks:
            voxels = np.flatnonzero(mask)
            if not len(voxels):
                continue
            if len(voxels) > PLACES:
                voxels = voxels[np.sort(rng.choice(len(voxels), PLACES, replace=False, shuffle=False))]
            ranges[index] = (end, end + len(voxels))
            end += len(voxels)
            drawn.append(np.stack(np.unravel_index(voxels, labels.shape), axis=1))
        places = np.concatenate(drawn) if drawn else np.zeros((1, 3))  # an empty file cannot be mapped
        return ranges, places.astype(np.min_scalar_type(max(labels.shape)))

    def _fingerprint(self, case: Case) -> str:
        """Hash what the files of a case depend on: its own files' names, sizes and times, the task and the plan."""
        task, plan = self.task, self.plan
        content = [
            _LAYOUT, case.name, case.stamps(), task.channels, task.members, task.dims, task.unit, task.ignore,
            sorted(task.values_of_files.items()), plan.unit, plan.axis_order, plan.crop,
            [asdict(one) for one in plan.normalisation], asdict(plan.resampling), self.configuration.spacing,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def chunk_shape(shape: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    """Choose chunks of about 2^17 voxels, as cubic as shape and patch allow; (1, h, w) for a 2-D patch.

    Args:
        shape: (D, H, W) of the volume. patch: (H, W) or (D, H, W).
    """
    most = [min(sides) for sides in zip(shape, (1,) * (3 - len(patch)) + tuple(patch), strict=True)]
    chunk, left = [0, 0, 0], _CHUNK
    for rank, axis in enumerate(sorted(range(3), key=most.__getitem__)):  # what a short axis leaves goes to the others
        chunk[axis] = max(min(most[axis], round(left ** (1 / (3 - rank)))), 1)
        left //= chunk[axis]
    return tuple(chunk)


def _stored(voxels: NDArray[np.float32]) -> NDArray:
    """Halve the size of values that 16-bit floats hold well: those within 2048, as all normalised ones are."""
    is_small = max(float(voxels.max()), -float(voxels.min())) <= _EXACT_IN_HALF
    return voxels.astype(np.float16) if is_small else voxels


def _write_chunks(path: Path, values: NDArray, chunk: Sequence[int]) -> None:
    """Write a compressed array; its bytes are made in memory, so that a full disk is told as such."""
    chunks = tuple(min(pair) for pair in zip(chunk, values.shape, strict=True))
    packed = blosc2.asarray(np.ascontiguousarray(values), chunks=chunks, cparams=_COMPRESSION).to_cframe()
    with atomic_path(path) as temporary:
        temporary.write_bytes(packed)


def _read_entry(path: Path, fingerprint: str) -> CachedCase | None:
    """Return what an earlier call wrote; None where there is nothing, something else, or a file is not whole."""
    try:
        written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if written["fingerprint"] != fingerprint:
            return None
        if any((path.parent / name).stat().st_size != size for name, size in written["sizes"].items()):
            return None
        case = written["case"]
        ranges = {int(number): (first, end) for number, (first, end) in case["places"].items()}
        d, h, w = case["shape"]
        return CachedCase(case["name"], case["number"], ranges, (d, h, w), case["bytes"], tuple(case["warnings"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
