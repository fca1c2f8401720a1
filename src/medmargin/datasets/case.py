"""`Case`: one patient image as paths and facts; voxels are read only when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One image of one patient.

    Attributes:
        name: unique in its data set, e.g. "hippocampus_001".
        patient: group key of every split; equals `name` where the patient is not recorded.
        images: one path per channel, in the order of `Task.channels` (one path holding all for RGB and MSD 4-D files).
        label: label map, or None; `raters`: further raters' label maps; `scribbles`: sparse annotation.
        text: free text; `attributes`: age, sex, site, ... as strings.
    """

    name: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None = None
    raters: tuple[Path, ...] = ()
    scribbles: Path | None = None
    text: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    def stamps(self) -> list[tuple[str, int, int]]:
        """List (path, size, time of change) of its images and its label, by which a change is noticed without reading.

        A file that is not there is left out.
        """
        files = [path for path in (*self.images, self.label) if path is not None and path.exists()]
        return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
