"""Training cases as pictures on disk: normalised and cut into slices once, then read as memory maps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.case import Case
from medmargin.datasets.loading import load_case
from medmargin.datasets.task import Task
from medmargin.errors import BudgetError, DataError
from medmargin.imaging import to_working
from medmargin.learning.progress import tracked
from medmargin.learning.sources import Drawn, Planes
from medmargin.storage import atomic_path, write_json
from medmargin.transforms import label_slices, picture_slices, shown

_INDEX = "index.json"
_LAYOUT = 1  # raise when the content of the cached files changes


@dataclass(frozen=True)
class CachedCases:
    """The objects and slices of labelled cases (both kinds of source, see `sources`). An object is in volumes what one
    slice shows of a structure, in pictures each connected component, because a user draws a box around that.

    Attributes:
        folder: holds <n>.image.npy [K, H, W] or [K, H, W, 3] uint8 and <n>.label.npy [K, H, W] for case n.
        entries: label value -> [N, 2] int64 (case n, slice k) of every object.
        cases: number of cases, with objects or without.
        smallest_component: in pictures, pixels of the smallest component that counts; None takes the structure whole.
    """

    folder: Path
    entries: dict[int, NDArray[np.int64]]
    cases: int
    smallest_component: int | None = None
    _maps: dict[str, NDArray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def objects(self) -> int:
        return sum(len(places) for places in self.entries.values())

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Draw a structure first and then one of its objects: rare structures come as often as frequent ones."""
        value, case, k = self._drawn_object(rng)
        pictures, labels = self._maps_of(case)
        mask = np.asarray(labels[k]) == value
        if self.smallest_component is not None:
            mask = _one_component(mask, self.smallest_component, rng)
        return np.asarray(pictures[k]), mask

    def draw_slice(self, rng: np.random.Generator, *, empty_share: float, planes: Planes) -> tuple[NDArray, NDArray]:
        """Draw any slice of any case, or a structure first and then a slice that shows it (see `SliceSource`).

        A slice along k shows the structure with the pixels of an object; one along another axis runs through an
        object, and may show little of it. Pictures have the axis k only.
        """
        is_any = rng.random() < empty_share
        value, case, k = (0, int(rng.integers(self.cases)), 0) if is_any else self._drawn_object(rng)
        pictures, labels = self._maps_of(case)
        axis = int(rng.integers(3)) if planes == "three" and len(labels) > 1 else 0
        if is_any:
            place = int(rng.integers(labels.shape[axis]))
        elif axis == 0:
            place = k
        else:
            crossing = np.flatnonzero((labels[k] == value).any(axis=2 - axis))  # rows or columns of the object
            place = int(crossing[int(rng.integers(len(crossing)))])
        picture, classes = (np.moveaxis(volume, axis, 0)[place] for volume in (pictures, labels))
        return np.ascontiguousarray(picture), np.ascontiguousarray(classes)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_maps": {}}  # a copy opens its own memory maps

    def _drawn_object(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Draw (label value, case, slice k) of an object, each structure equally often."""
        values = sorted(self.entries)
        value = values[int(rng.integers(len(values)))]
        case, k = self.entries[value][int(rng.integers(len(self.entries[value])))]
        return value, int(case), int(k)

    def _maps_of(self, case: int) -> tuple[NDArray, NDArray]:
        return self._map(f"{case:05d}.image.npy"), self._map(f"{case:05d}.label.npy")

    def _map(self, name: str) -> NDArray:
        if name not in self._maps:
            self._maps[name] = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        return self._maps[name]


def cache_cases(
    cases: Sequence[Case], task: Task, folder: Path | str, *, minimum_pixels: int = 10, progress: bool = True
) -> CachedCases:
    """Prepare cases in `folder`, or take what an earlier call with the same cases and files left there.

    Volumes are brought to the closest RAS orientation and cut along axis k (`transforms.slices`); pictures stay.

    Args:
        cases: with labels. task: of their data set.
        folder: created where needed; several processes may prepare the same folder at once.
        minimum_pixels: objects smaller than this are left out (the challenge's rule for 2-D).
        progress: show a bar on stderr.

    Raises:
        DataError: a case without a label or that cannot be read, or no object of any case is large enough.
        BudgetError: the folder cannot be written or the disk is full.
    """
    folder = Path(folder)
    fingerprint = _fingerprint(cases, task, minimum_pixels)
    index = _read_index(folder / _INDEX)
    if index is None or index["fingerprint"] != fingerprint:
        found: dict[str, list[list[int]]] = {str(value): [] for value in task.structures.values()}
        for number, case in enumerate(tracked(cases, description="preparing cases", show=progress)):
            for value, k in _prepare(case, task, folder, number, minimum_pixels):
                found[str(value)].append([number, k])
        index = {"fingerprint": fingerprint, "cases": [case.name for case in cases], "objects": found}
        write_json(folder / _INDEX, index)
    entries = {int(value): np.array(places, np.int64) for value, places in index["objects"].items() if places}
    if not entries:
        raise DataError(
            f"data set '{task.name}': none of the {len(cases)} training cases holds an object of {minimum_pixels} "
            "pixels or more in a slice. Check the labels with 'data check'."
        )
    return CachedCases(folder, entries, len(cases), minimum_pixels if task.dims == 2 else None)


def _prepare(case: Case, task: Task, folder: Path, number: int, minimum_pixels: int) -> list[tuple[int, int]]:
    """Write the pictures of one case; return (label value, slice) of its objects."""
    image, label = load_case(case, task)
    if label is None:
        raise DataError(f"{case.name}: no label; training needs one for each case. Leave the case out of the split.")
    if task.dims == 3:
        image, label = to_working(image).volume, to_working(label).volume
    pictures = picture_slices(shown(image.voxels, modality=task.modality, dims=task.dims), name=case.name)
    labels = label_slices(label.voxels[0].astype(np.uint8 if task.num_classes <= 256 else np.uint16))
    for kind, values in (("image", pictures), ("label", labels)):
        with atomic_path(folder / f"{number:05d}.{kind}.npy") as temporary:
            np.save(temporary, values, allow_pickle=False)
    sizes = [np.bincount(plane.ravel(), minlength=task.num_classes) for plane in labels]
    return [(v, k) for k, pixels in enumerate(sizes) for v in task.structures.values() if pixels[v] >= minimum_pixels]


def _one_component(mask: NDArray[np.bool_], smallest: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw one 8-connected component of at least `smallest` pixels; the whole mask where every component is smaller."""
    components = cc3d.connected_components(mask, connectivity=8)
    values = np.flatnonzero(np.bincount(components.ravel())[1:] >= smallest) + 1
    return components == values[int(rng.integers(len(values)))] if len(values) else mask


def _fingerprint(cases: Sequence[Case], task: Task, minimum_pixels: int) -> str:
    """Hash what the cached files depend on: names, paths, sizes and times of the source files, and the task."""
    stamps = [stamp for case in cases for stamp in case.stamps()]
    content = [_LAYOUT, minimum_pixels, task.dims, task.modality, task.structures, [c.name for c in cases], stamps]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _read_index(path: Path) -> dict[str, Any] | None:
    """Return the index of an earlier call, or None where there is none or it is damaged (it is made again then)."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return index if {"fingerprint", "objects"} <= index.keys() else None
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise BudgetError(f"{path}: cannot be read ({error.strerror}). Choose another folder.") from error
    except (ValueError, AttributeError):
        return None
