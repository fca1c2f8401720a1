"""`Fingerprint`: what a plan needs to know of a data set, measured in one pass over its training cases.

Isensee et al. 2021 (doi:10.1038/s41592-020-01008-z), "dataset fingerprint": sizes after cropping to the non-zero
region, spacings, and intensities under the foreground. Shapes and spacings run along the working axes (R, A, S).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.case import Case
from medmargin.datasets.dataset import Dataset
from medmargin.datasets.loading import load_image, load_label
from medmargin.datasets.task import Task
from medmargin.errors import DataError
from medmargin.imaging import to_working

WORKERS = 2
SAMPLES_PER_CASE = 10_000
"""Foreground voxels drawn from a case at most, per channel."""
Progress = Callable[[int, int], None]  # (cases read, cases in all)


@dataclass(frozen=True)
class ForegroundIntensities:
    """Intensities of one channel over the foreground voxels of all cases, in the files' unit (HU for CT).

    Attributes:
        percentile_low, percentile_high: the 0.5 and 99.5 percentiles.
    """

    mean: float
    standard_deviation: float
    percentile_low: float
    percentile_high: float


@dataclass(frozen=True)
class Fingerprint:
    """Sizes and intensities of a data set.

    Attributes:
        task: channels, structures and modality.
        shapes: per case, voxels along (R, A, S) of the box around its non-zero voxels.
        spacings: per case, voxel size along (R, A, S) in the task's unit.
        kept: median share of an image's voxels that lie in that box.
        intensities: channel name -> intensities of the foreground.
        structures: structure name -> cases that hold it.
    """

    task: Task
    shapes: tuple[tuple[int, int, int], ...]
    spacings: tuple[tuple[float, float, float], ...]
    kept: float
    intensities: dict[str, ForegroundIntensities]
    structures: dict[str, int]

    @property
    def cases(self) -> int:
        """Number of cases measured."""
        return len(self.shapes)


@dataclass(frozen=True)
class _CaseMeasures:
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    kept: float
    samples: NDArray[np.float32]  # [channels, foreground voxels drawn]
    values: frozenset[int]  # of the label


def planning_cases(dataset: Dataset) -> tuple[Case, ...]:
    """Give the labelled cases a plan may look at: those that train or validate in any fold; all where there is no fold.

    Cases set apart for calibration or testing never shape the network that is tested on them.
    """
    folds = dataset.splits.folds
    if not folds:
        return dataset.cases
    open_to_view = {name for fold in folds for part in ("train", "val") for name in fold.get(part, ())}
    return tuple(case for case in dataset.cases if case.name in open_to_view)


def measure_fingerprint(
    cases: Sequence[Case], task: Task, *, seed: int = 0, progress: Progress | None = None
) -> Fingerprint:
    """Read every case once, two at a time, and keep what a plan needs.

    Args:
        cases: labelled cases.
        seed: of the voxels drawn from each case; the answer depends on it and on the cases' order only.
        progress: called after each case with the number of cases read and the total.

    Raises:
        DataError: no case, a case that cannot be read (a missing channel is named), no foreground in any label, or a
            structure that no case holds. GeometryError: image and label on different grids.
    """
    if not cases:
        raise DataError(f"'{task.name}' has no labelled training case to plan from; add labels or name another split")
    measured: list[_CaseMeasures] = []
    with ThreadPoolExecutor(WORKERS) as pool:
        numbered = enumerate(cases)
        for found in pool.map(lambda pair: _measured(pair[1], task, np.random.default_rng([seed, pair[0]])), numbered):
            measured.append(found)
            if progress is not None:
                progress(len(measured), len(cases))
    structures = {
        name: sum(not case.values.isdisjoint(values) for case in measured) for name, values in task.members.items()
    }
    _require_structures(structures, task)
    samples = np.concatenate([case.samples for case in measured], axis=1)  # [channels, voxels]
    return Fingerprint(
        task=task,
        shapes=tuple(case.shape for case in measured),
        spacings=tuple(case.spacing for case in measured),
        kept=float(np.median([case.kept for case in measured])),
        intensities={name: _summary(values) for name, values in zip(task.channels, samples, strict=True)},
        structures=structures,
    )


def _measured(case: Case, task: Task, rng: np.random.Generator) -> _CaseMeasures:
    image = load_image(case, task)
    label = load_label(case, task, image=image).voxels[0]
    foreground = np.flatnonzero(label if task.ignore is None else (label > 0) & (label != task.ignore))
    drawn = rng.choice(foreground, min(len(foreground), SAMPLES_PER_CASE), replace=False)
    working = to_working(image).volume
    box = _non_zero_box(working.voxels)
    return _CaseMeasures(
        shape=box,
        spacing=working.grid.spacing if task.unit == "mm" else (1.0, 1.0, 1.0),  # a header may claim anything
        kept=float(np.prod(box, dtype=float) / np.prod(working.grid.shape, dtype=float)),
        samples=np.stack([channel.reshape(-1)[drawn].astype(np.float32) for channel in image.voxels]),
        values=frozenset(np.unique(label).tolist()),
    )


def _non_zero_box(voxels: NDArray) -> tuple[int, int, int]:
    """Measure the smallest box around the voxels [C, I, J, K] that are not 0 in every channel."""
    occupied = (voxels != 0).any(axis=0)
    sides = []
    for axis in range(3):
        lines = np.flatnonzero(occupied.any(axis=tuple(other for other in range(3) if other != axis)))
        sides.append(int(lines[-1] - lines[0] + 1) if lines.size else occupied.shape[axis])
    return sides[0], sides[1], sides[2]


def _require_structures(structures: dict[str, int], task: Task) -> None:
    absent = [name for name, count in structures.items() if count == 0]
    if absent and len(absent) == len(structures):
        raise DataError(f"'{task.name}': every training label is empty; nothing can be learned from them")
    if absent:
        raise DataError(
            f"'{task.name}': no training case holds {', '.join(absent)}; add cases, or remove the structure from the "
            "description"
        )


def _summary(values: NDArray[np.float32]) -> ForegroundIntensities:
    exact = values.astype(np.float64)
    low, high = np.percentile(exact, (0.5, 99.5))
    return ForegroundIntensities(float(exact.mean()), float(exact.std()), float(low), float(high))
