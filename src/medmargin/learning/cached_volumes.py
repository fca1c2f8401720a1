"""`CachedVolumes`: prepared volumes on disk as a source of patches; drawing one unpacks only the chunks it needs.

Sampling is nnU-Net 2's (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z): a case is drawn, then a place in it. A
patch that must show foreground takes one of the structures of its case, each equally often, and one of its voxels as
centre. Other patches lie anywhere inside the image, about a labelled voxel where some are not; where the image is
smaller than the patch, it is padded on both sides.

Deviations: the place about a foreground voxel is kept within the image at both ends, not at the lower one only; padding
does not count, where nnU-Net 2 turns it into background.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError
from medmargin.transforms.volume_augmentation import OUTSIDE

HELD_BYTES = 512 * 2**20
"""Cases that a process keeps unpacked. The first ones drawn stay: replacing them gains uniform draws nothing."""
LABELLED = 0
"""Stands for any labelled voxel among the numbers of the structures, where some are not labelled."""
ONE_THREAD = {"nthreads": 1}  # a pool of threads does not survive the fork of a loading process

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class CachedCase:
    """What is known of a prepared case without opening its files.

    Attributes:
        name: of the case. number: of its files.
        places: number of a structure (1..K in the task's order; 0: any labelled voxel, where some are not) -> its range
            of rows in <number>.places.npy.
        shape: (D, H, W). bytes: of the unpacked image and label.
        warnings: of its preparation.
    """

    name: str
    number: int
    places: dict[int, tuple[int, int]]
    shape: Shape
    bytes: int
    warnings: tuple[str, ...] = ()

    @property
    def structures(self) -> list[int]:
        """Numbers of the structures it holds."""
        return [number for number in self.places if number != LABELLED]


@dataclass
class _Opened:
    """The arrays of a case, unpacked or not: image [C, D, H, W], label [D, H, W], places [N, 3]."""

    image: Any
    label: Any
    places: NDArray[np.uint16]


@dataclass(frozen=True)
class CachedVolumes:
    """A source of patches of prepared volumes.

    Attributes:
        folder: holds <n>.image.b2nd [C, D, H, W], <n>.label.b2nd [D, H, W] (-1: does not count), <n>.places.npy [N, 3]
            (voxels of structures) and <n>.json for case n.
        entries: its cases. absent: structures that none of them holds.
    """

    folder: Path
    entries: tuple[CachedCase, ...]
    absent: tuple[str, ...] = ()
    _held: dict[int, _Opened] = field(default_factory=dict, repr=False, compare=False)

    @property
    def objects(self) -> int:
        return len(self.entries)

    @property
    def cases(self) -> int:
        """Number of cases, with structures or without."""
        return len(self.entries)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What had to be decided while the cases were prepared."""
        return tuple(f"case '{entry.name}': {warning}" for entry in self.entries for warning in entry.warnings)

    def draw_patch(
        self, rng: np.random.Generator, *, patch: Shape, foreground: bool, enlarged: Shape | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Draw a patch of a case, as a pure function of `rng`.

        Args:
            patch: what the network will see; its place is chosen so that it stays within the image.
            foreground: let it show a structure, if the case has one.
            enlarged: what to return about the same centre, for augmentation that turns; None: the patch.

        Returns:
            image [C, d, h, w], 0 outside the case's image; label [d, h, w], -1 there and where nothing counts.

        Raises:
            DataError: a file of the cache is gone or damaged.
        """
        entry = self.entries[int(rng.integers(len(self.entries)))]
        opened = self._opened(entry)
        centre = _drawn_place(entry, opened.places, rng, foreground=foreground)
        corner = [
            _drawn_corner(side, inner, None if centre is None else int(centre[axis]), rng)
            for axis, (side, inner) in enumerate(zip(entry.shape, patch, strict=True))
        ]
        wanted = patch if enlarged is None else enlarged
        corner = [low - (outer - inner) // 2 for low, outer, inner in zip(corner, wanted, patch, strict=True)]
        image = np.zeros((opened.image.shape[0], *wanted), np.float32)
        label = np.full(wanted, OUTSIDE, np.int16)
        source = tuple(
            slice(max(low, 0), min(low + outer, side))
            for low, outer, side in zip(corner, wanted, entry.shape, strict=True)
        )
        if all(part.start < part.stop for part in source):
            target = tuple(slice(part.start - low, part.stop - low) for part, low in zip(source, corner, strict=True))
            with _naming(self.folder, entry):
                image[:, *target] = opened.image[:, *source]
                label[target] = opened.label[source]
        return image, label

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_held": {}}  # a copy opens its own files

    def _opened(self, entry: CachedCase) -> _Opened:
        """Open a case: unpacked for good while there is memory for it, and otherwise as it lies on disk."""
        if entry.number in self._held:
            return self._held[entry.number]
        with _naming(self.folder, entry):
            opened = _Opened(*(_read(self.folder / name) for name in file_names(entry.number)))
            held = sum(other.bytes for other in self.entries if other.number in self._held)
            if held + entry.bytes <= HELD_BYTES:
                opened = _Opened(opened.image[...], opened.label[...], opened.places[...])
                self._held[entry.number] = opened
        return opened


def file_names(number: int) -> tuple[str, str, str]:
    """Name the files of a case: image, label and places."""
    return f"{number:05d}.image.b2nd", f"{number:05d}.label.b2nd", f"{number:05d}.places.npy"


def _read(path: Path) -> Any:
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    return blosc2.open(str(path), mode="r", mmap_mode="r", dparams=ONE_THREAD)


@contextmanager
def _naming(folder: Path, entry: CachedCase) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:  # blosc2 raises any of them for a damaged file
        raise DataError(
            f"case '{entry.name}': its prepared files {entry.number:05d}.* in {folder} are gone or damaged ({error}). "
            "Delete the folder and run the command again."
        ) from error


def _drawn_place(entry: CachedCase, places: NDArray, rng: np.random.Generator, *, foreground: bool) -> NDArray | None:
    """Draw the voxel [3] a patch should have in its middle; None: anywhere."""
    candidates = entry.structures if foreground and entry.structures else [LABELLED]
    number = candidates[int(rng.integers(len(candidates)))]
    if number not in entry.places:
        return None
    first, end = entry.places[number]
    place: NDArray = places[int(rng.integers(first, end))]
    return place


def _drawn_corner(side: int, patch: int, centre: int | None, rng: np.random.Generator) -> int:
    """Draw where a patch begins along one axis of an image: inside, or so that the image lies in its middle."""
    spare = side - patch
    lowest, highest = (0, spare) if spare >= 0 else (spare // 2, -(-spare // 2))
    if centre is None:
        return int(rng.integers(lowest, highest + 1))
    return min(max(centre - patch // 2, lowest), highest)
