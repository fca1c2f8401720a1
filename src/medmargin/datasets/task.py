"""`Task`: what a data set asks for, independent of any network."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Task:
    """Channels, structures and dimensions of a data set.

    Attributes:
        name: name of the data set, e.g. "Hippocampus".
        channels: channel names in order, e.g. ("MRI",) or ("R", "G", "B").
        structures: structure name -> label value, without background, e.g. {"Anterior": 1, "Posterior": 2}.
            Inside the house label values are contiguous 1..K; `original_values` keeps the file's value of each.
        dims: 2 for pictures, 3 for volumes.
        unit: "mm", or "px" where the spacing is unknown.
        modality: "CT" switches to HU windows; anything else is normalised per image.
        extent: longest side of a typical slice in pixels, by which systems choose their input size; None: not measured.
    """

    name: str
    channels: tuple[str, ...]
    structures: dict[str, int]
    dims: int = 3
    unit: str = "mm"
    modality: str = "other"
    original_values: dict[str, int] = field(default_factory=dict)
    extent: int | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes with the background."""
        return len(self.structures) + 1
