"""`Task`: what a data set asks for, independent of any network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import ConfigError, DataError

if TYPE_CHECKING:
    from medmargin.datasets.planning import Plan

IGNORE = "ignore"
"""Name of the voxels nobody labelled, in `dataset.json` and in `Task.file_values`."""


@dataclass(frozen=True)
class Task:
    """Channels, structures and dimensions of a data set.

    Structures exclude each other, or overlap: then they are regions. A label map then still holds one value a voxel,
    that of the last structure in the order of `structures` that is there, and `regions` says which values lie in a
    structure: a tumour's core (2) inside the whole tumour (1) makes `regions` {"whole": (1, 2), "core": (2,)}. Label
    files and answers are read by this one rule; see `mask`.

    Attributes:
        name: name of the data set, e.g. "Hippocampus".
        channels: channel names in order, e.g. ("MRI",) or ("R", "G", "B").
        structures: structure name -> label value, without background, e.g. {"Anterior": 1, "Posterior": 2}.
            Inside the house label values are contiguous 1..K; `original_values` keeps the file's value of each.
        dims: 2 for pictures, 3 for volumes.
        unit: "mm", or "px" where the spacing is unknown.
        modality: "CT" switches to HU windows; anything else is normalised per image.
        extent: longest side of a typical slice in pixels, by which systems choose their input size; None: not measured.
        regions: structure name -> the label values in it, its own among them; empty: structures exclude each other.
        ignore: label value (K + 1) of voxels that nobody labelled, which count nowhere; None: there are none.
        file_values: structure name, or "ignore", -> its values in the label files, where `original_values` does not
            say; a value named twice belongs to the later structure.
        plan: how to train on this data set; its chosen configuration is trained. None: not made.
    """

    name: str
    channels: tuple[str, ...]
    structures: dict[str, int]
    dims: int = 3
    unit: str = "mm"
    modality: str = "other"
    original_values: dict[str, int] = field(default_factory=dict)
    extent: int | None = None
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ignore: int | None = None
    file_values: dict[str, tuple[int, ...]] = field(default_factory=dict)
    plan: Plan | None = None

    @property
    def num_classes(self) -> int:
        """Number of structures, and the background."""
        return len(self.structures) + 1

    @property
    def members(self) -> dict[str, tuple[int, ...]]:
        """Structure name -> the label values in it: one, or several for a region."""
        return {name: tuple(self.regions.get(name, (value,))) for name, value in self.structures.items()}

    @property
    def values_of_files(self) -> dict[int, int]:
        """Value in the label files -> label value inside the house, without the background."""
        inside = dict(self.structures) if self.ignore is None else {**self.structures, IGNORE: self.ignore}
        return {
            in_file: value
            for name, value in inside.items()
            for in_file in self.file_values.get(name, (self.original_values.get(name, value),))
        }

    def mask(self, labels: NDArray[Any], name: str) -> NDArray[np.bool_]:
        """Tell where a structure is in a label map of any shape, true or predicted."""
        return mask_of(labels, self.members[name])

    def require_plain(self, system: str) -> None:
        """Refuse overlapping structures and unlabelled voxels, for a system that can learn from neither.

        Args:
            system: its name.

        Raises:
            ConfigError: the structures overlap. DataError: there is an `ignore` label. Both name systems that can.
        """
        cure = f"'{system}' cannot learn from; train 'plain-unet' or 'residual-unet'"
        if self.regions:
            raise ConfigError(f"the structures of '{self.name}' are overlapping regions, which {cure}")
        if self.ignore is not None:
            raise DataError(f"'{self.name}' has an '{IGNORE}' label, voxels that nobody labelled, which {cure}")


def mask_of(labels: NDArray[Any], values: int | Sequence[int]) -> NDArray[np.bool_]:
    """Tell where a label map of any shape holds the value, or one of the values."""
    first, *others = [values] if isinstance(values, int) else values
    mask: NDArray[np.bool_] = labels == first  # for a few values faster and leaner than isin
    for value in others:
        mask |= labels == value
    return mask
