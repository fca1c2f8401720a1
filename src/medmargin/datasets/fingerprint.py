"""What a data set is made of: checksums of its files, and the sizes and intensities of its images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medmargin.datasets.case import Case
from medmargin.datasets.loading import load_image
from medmargin.datasets.task import Task
from medmargin.imaging import to_working
from medmargin.storage import sha256
from medmargin.transforms.slices import slice_axes

if TYPE_CHECKING:
    from medmargin.datasets.dataset import Dataset

_SAMPLES_PER_CASE = 10_000
_PERCENTILES = (0.5, 50.0, 99.5)
_MEASURED_CASES = 9  # a median needs no more, and large volumes take seconds to read


@dataclass(frozen=True)
class ImageStatistics:
    """Sizes and intensities over the images of a data set.

    Attributes:
        median_shape: voxels along (i, j, k), median over the cases.
        median_spacing: voxel size along (i, j, k) in the task's unit, median over the cases.
        channels: channel name -> {"mean", "standard_deviation", "percentile_0.5", "percentile_50", "percentile_99.5"}
            in the files' own intensity unit (HU for CT), over voxels other than 0 of every case.
    """

    median_shape: tuple[float, float, float]
    median_spacing: tuple[float, float, float]
    channels: dict[str, dict[str, float]]


def file_manifest(dataset: Dataset) -> dict[str, Any]:
    """List the SHA-256 of every image and label file, and one over the whole list.

    Returns:
        {"name", "layout", "cases", "test_cases", "sha256", "files": {path relative to the folder: SHA-256}}; "sha256"
        changes when any file is added, removed, renamed or changed.
    """
    cases = (*dataset.cases, *dataset.unlabelled_cases, *dataset.test_cases)
    files = {_relative(path, dataset.folder): sha256(path) for path in sorted(_files(cases))}
    listing = "".join(f"{digest}  {name}\n" for name, digest in files.items())
    return {
        "name": dataset.name,
        "layout": dataset.layout,
        "cases": len(dataset.cases),
        "test_cases": len(dataset.test_cases),
        "sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "files": files,
    }


def image_statistics(cases: Sequence[Case], task: Task, *, seed: int = 0) -> ImageStatistics:
    """Measure sizes and intensities; each case contributes at most 10 000 voxels per channel, drawn from `seed`.

    Raises:
        DataError: an image cannot be used; run `check_dataset` first.
    """
    rng = np.random.default_rng(seed)
    samples: list[list[np.ndarray]] = [[] for _ in task.channels]
    grids = []
    for case in cases:
        volume = load_image(case, task)
        grids.append(volume.grid)
        for channel, voxels in zip(samples, volume.voxels, strict=True):
            content = voxels[voxels != 0]
            channel.append(rng.choice(content, min(len(content), _SAMPLES_PER_CASE), replace=False).astype(np.float64))
    shape, spacing = (np.median([getattr(grid, name) for grid in grids], axis=0) for name in ("shape", "spacing"))
    return ImageStatistics(
        median_shape=tuple(shape.tolist()),
        median_spacing=tuple(spacing.tolist()),
        channels={name: _summary(np.concatenate(drawn)) for name, drawn in zip(task.channels, samples, strict=True)},
    )


def slice_extent(cases: Sequence[Case], task: Task) -> int:
    """Measure the longest side, in pixels, of the slices a 2-D network looks at: the median over at most nine cases.

    Raises:
        DataError: an image cannot be used.
    """
    chosen = cases[:: max(1, len(cases) // _MEASURED_CASES)][:_MEASURED_CASES]
    sides = []
    for case in chosen:
        shape = to_working(load_image(case, task)).volume.grid.shape
        sides.append(max(shape[axis] for axis in slice_axes(shape)[:2]))
    return int(np.median(sides))


def _summary(values: np.ndarray) -> dict[str, float]:
    percentiles = zip(_PERCENTILES, np.percentile(values, _PERCENTILES), strict=True)
    return {
        "mean": float(values.mean()),
        "standard_deviation": float(values.std()),
        **{f"percentile_{rank:g}": float(value) for rank, value in percentiles},
    }


def _files(cases: Iterable[Case]) -> set[Path]:
    """Collect the files of the cases; a folder of DICOM slices counts with all it holds, missing files do not count."""
    files: set[Path] = set()
    for case in cases:
        paths = [*case.images, *case.raters, *(path for path in (case.label, case.scribbles) if path is not None)]
        for path in paths:
            files.update(child for child in (path.rglob("*") if path.is_dir() else [path]) if child.is_file())
    return files


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()
