"""Repair a data set into a new folder: only what is asked for, only files that need it; the source stays as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medmargin.datasets.case import Case
from medmargin.datasets.dataset import Dataset
from medmargin.datasets.loading import load_image, read_label_of
from medmargin.datasets.new_folder import new_folder
from medmargin.datasets.task import Task
from medmargin.errors import ConfigError, DataError
from medmargin.imaging import Volume, challenge_npz, read_image
from medmargin.imaging.image_output import write_image
from medmargin.imaging.resampling import resample


@dataclass(frozen=True)
class Repairs:
    """What to repair.

    Attributes:
        resample_labels: bring labels of the image's shape but another placement to the image's grid (nearest).
        resample_channels: bring channels to the grid of the first one (linear).
        to_gray: turn RGB files into luminance where one channel is expected.
        label_map: value found in label files -> value wanted, e.g. {255: 1}.
    """

    resample_labels: bool = False
    resample_channels: bool = False
    to_gray: bool = False
    label_map: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.resample_labels or self.resample_channels or self.to_gray or self.label_map):
            raise ConfigError("nothing to repair: choose resample_labels, resample_channels, to_gray or a label map")


@dataclass(frozen=True)
class FixReport:
    """What was repaired.

    Attributes:
        folder: the new data set.
        repaired: case name -> what was done to it, one sentence each.
        failed: case name -> why it could not be repaired; its files were copied as they are.
    """

    folder: Path
    repaired: dict[str, tuple[str, ...]]
    failed: dict[str, str]


def fix_dataset(
    dataset: Dataset, target: Path | str, repairs: Repairs, *, progress: Callable[[int, int], None] | None = None
) -> FixReport:
    """Copy a data set and repair the copy.

    Args:
        target: folder to make; it must not exist, or be empty.
        progress: called with (cases done, cases in all).

    Raises:
        ConfigError: `target` holds something or lies inside the data set, or files of the set lie outside its folder.
        BudgetError: the disk is full; nothing is left behind then.
    """
    cases = (*dataset.cases, *dataset.unlabelled_cases, *dataset.test_cases)
    _require_own_files(dataset, cases, Path(target))
    repaired: dict[str, tuple[str, ...]] = {}
    failed: dict[str, str] = {}
    with new_folder(target) as folder:
        shutil.copytree(dataset.folder, folder, dirs_exist_ok=True)
        for done, case in enumerate(cases, start=1):
            try:
                if done_to_it := _repair(_moved(case, dataset.folder, folder), dataset.task, repairs):
                    repaired[case.name] = done_to_it
            except DataError as error:
                failed[case.name] = str(error).replace(str(folder), str(dataset.folder))
            if progress is not None:
                progress(done, len(cases))
    return FixReport(Path(target), repaired, failed)


def _require_own_files(dataset: Dataset, cases: tuple[Case, ...], target: Path) -> None:
    if target.resolve().is_relative_to(dataset.folder.resolve()):
        raise ConfigError(f"{target} lies inside the data set {dataset.folder}; choose a folder beside it")
    for case in cases:
        for path in (*case.images, *([case.label] if case.label else [])):
            if not path.is_relative_to(dataset.folder):
                raise ConfigError(f"case '{case.name}': {path} lies outside {dataset.folder}; use 'data convert' first")


def _moved(case: Case, source: Path, folder: Path) -> Case:
    """Point a case to the copies of its files."""
    images = tuple(folder / path.relative_to(source) for path in case.images)
    return replace(case, images=images, label=None if case.label is None else folder / case.label.relative_to(source))


def _repair(case: Case, task: Task, repairs: Repairs) -> tuple[str, ...]:
    done = []
    if repairs.to_gray and len(task.channels) == 1:
        done += _turn_gray(case)
    if repairs.resample_channels and len(case.images) > 1:
        done += _resample_channels(case, task)
    if case.label is not None and (repairs.label_map or repairs.resample_labels):
        done += _repair_label(case, task, repairs)
    return tuple(done)


def _turn_gray(case: Case) -> list[str]:
    volume = read_image(case.images[0])
    if volume.channels != 3:
        return []
    write_image(case.images[0], read_image(case.images[0], to_gray=True))
    return ["colours turned into grey"]


def _resample_channels(case: Case, task: Task) -> list[str]:
    first, *others = [read_image(path) for path in case.images]
    done = []
    for path, name, volume in zip(case.images[1:], task.channels[1:], others, strict=False):
        if not volume.grid.matches(first.grid):
            values = [resample(voxels, source=volume.grid, target=first.grid, order=1) for voxels in volume.voxels]
            write_image(path, first.with_voxels(np.stack(values)))
            done.append(f"channel '{name}' resampled to the grid of '{task.channels[0]}'")
    return done


def _repair_label(case: Case, task: Task, repairs: Repairs) -> list[str]:
    label = read_label_of(case, task)
    done = []
    if repairs.label_map:
        changed = _with_values(label, repairs.label_map)
        if not np.array_equal(changed.voxels, label.voxels):
            done.append("label values mapped")
            label = changed
    if repairs.resample_labels:
        image = load_image(case, task)
        if image.grid.shape == label.grid.shape and not image.grid.matches(label.grid):
            values = resample(label.voxels[0], source=label.grid, target=image.grid, order=0)
            label = image.with_voxels(values)
            done.append("label resampled to the image's grid")
    if done:
        _write_label(case, label)
    return done


def _with_values(label: Volume, label_map: Mapping[int, int]) -> Volume:
    """Replace label values, all at once: {1: 2, 2: 1} swaps."""
    voxels = label.voxels.astype(np.int64)
    for found, wanted in label_map.items():
        voxels[label.voxels == found] = wanted
    if voxels.min(initial=0) < 0:
        raise DataError(f"{label.source}: label value {voxels.min()} is negative; map it with 'FOUND=WANTED' too")
    return label.with_voxels(voxels.astype(np.min_scalar_type(int(voxels.max(initial=0)))))


def _write_label(case: Case, label: Volume) -> None:
    """Write a label over the copy of the old one; a challenge file also holds the image and the boxes."""
    path = case.label
    if path is None:
        raise DataError(f"case '{case.name}' has no label to write over")
    if path not in case.images:
        write_image(path, label, is_label=True)
        return
    old = challenge_npz.read(path)
    if old.image is None:
        raise DataError(f"{path}: holds no 'imgs'")
    challenge_npz.write(path, old.image, labels=label.voxels[0], boxes=old.boxes)
