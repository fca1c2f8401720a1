"""nnU-Net raw layout: `dataset.json`, `imagesTr/<case>_0000.<ending>`, `labelsTr/<case>.<ending>`; Ts for tests.

Beside it, where they exist: `cases.csv` and `attributes.csv` (facts per case; a column `patient` groups the splits),
`texts.csv`, `labelsTr_rater*` (further raters) and `scribblesTr`. Pictures of three channels may be one RGB file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmargin.datasets.case import Case
from medmargin.datasets.faults import Fault
from medmargin.datasets.layouts.description import FILE_NAME, Description, make_task, read_description
from medmargin.datasets.layouts.listing import Listing
from medmargin.datasets.layouts.tables import Row, patient_of, read_table
from medmargin.datasets.task import Task
from medmargin.imaging.content import format_of_name

# The first of these columns that a case fills is its text; texts made from the mask would give the answer away.
_TEXT_COLUMNS = ("text", "generic", "clinical_notes", "finding")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True)
class _Part:
    """The training ("Tr") or test ("Ts") half of the folder."""

    folder: Path
    suffix: str
    ending: str
    channels: tuple[str, ...]

    @property
    def images(self) -> Path:
        return self.folder / f"images{self.suffix}"

    @property
    def labels(self) -> Path:
        return self.folder / f"labels{self.suffix}"


def matches(folder: Path, description: Mapping[str, Any]) -> bool:
    """Tell whether a folder with this `dataset.json` is in nnU-Net raw layout."""
    return "channel_names" in description and any((folder / f"images{suffix}").is_dir() for suffix in ("Tr", "Ts"))


def read(folder: Path) -> Listing:
    """List the cases of a folder.

    Raises:
        DataError: `dataset.json` is missing or wrong.
    """
    description = read_description(folder / FILE_NAME, Description)
    task = _task(folder, description)
    parts = [_Part(folder, suffix, description.file_ending, task.channels) for suffix in ("Tr", "Ts")]
    facts = read_table(folder / "cases.csv")
    for case, row in read_table(folder / "attributes.csv").items():
        facts[case] = facts.get(case, {}) | row
    texts = read_table(folder / "texts.csv")
    training, test = (_cases(part, facts, texts) for part in parts)
    faults = [fault for part, cases in zip(parts, (training, test), strict=True) for fault in _misfits(part, cases)]
    return Listing(task, training, test, faults=tuple(faults))


def _task(folder: Path, description: Description) -> Task:
    is_picture = format_of_name(Path(f"case{description.file_ending}")) == "picture"
    return make_task(
        description.name or re.sub(r"^Dataset\d{3}_", "", folder.name),
        channels=description.channel_names,
        labels=description.labels,
        regions_class_order=description.regions_class_order,
        dims=2 if is_picture else 3,
        unit="px" if is_picture or not description.spacing_known else "mm",
        source=folder / FILE_NAME,
    )


def _cases(part: _Part, facts: Mapping[str, Row], texts: Mapping[str, Row]) -> tuple[Case, ...]:
    raters = sorted(path for path in part.folder.glob(f"labels{part.suffix}_rater*") if path.is_dir())
    scribbles = part.folder / f"scribbles{part.suffix}"
    is_one_file = _is_one_file_per_case(part)
    cases = []
    for name, found in sorted(_channels_by_case(part).items()):
        attributes = facts.get(name, {})
        file = f"{name}{part.ending}"
        # A missing channel stays in the list: reading the case then names it.
        count = 1 if is_one_file else max(len(part.channels), *(channel + 1 for channel in found))
        label = part.labels / file
        cases.append(
            Case(
                name=name,
                patient=patient_of(name, attributes),
                images=tuple(part.images / f"{name}_{channel:04d}{part.ending}" for channel in range(count)),
                label=label if label.is_file() else None,
                raters=tuple(folder / file for folder in raters if (folder / file).is_file()),
                scribbles=scribbles / file if (scribbles / file).is_file() else None,
                text=next((texts[name][c] for c in _TEXT_COLUMNS if texts.get(name, {}).get(c)), None),
                attributes=dict(attributes),
            )
        )
    return tuple(cases)


def _channels_by_case(part: _Part) -> dict[str, set[int]]:
    """Find which channels each case has."""
    found: dict[str, set[int]] = {}
    for path in _files(part.images):
        stem = path.name.removesuffix(part.ending)
        if path.name.endswith(part.ending) and (match := _CHANNEL.fullmatch(stem)):
            found.setdefault(match["case"], set()).add(int(match["channel"]))
    return found


def _is_one_file_per_case(part: _Part) -> bool:
    """Tell whether the three channels of each picture are the R, G and B of one file."""
    if format_of_name(Path(f"case{part.ending}")) != "picture" or len(part.channels) != 3:
        return False
    return not any(part.images.glob(f"*_0001{part.ending}"))


def _misfits(part: _Part, cases: tuple[Case, ...]) -> list[Fault]:
    """Report files without their counterpart and names that do not follow the layout."""
    faults = []
    for path in _files(part.images):
        if not (path.name.endswith(part.ending) and _CHANNEL.fullmatch(path.name.removesuffix(part.ending))):
            message = f"{path}: expected <case>_<four digits>{part.ending}, as in case_001_0000{part.ending}; rename it"
            faults.append(Fault("E", "image-name", None, message))
    for case in cases:
        if case.label is None and part.labels.is_dir():
            message = f"no label {part.labels / case.name}{part.ending}; not trained on"
            faults.append(Fault("W", "image-without-label", case.name, message))
    known = {f"{case.name}{part.ending}" for case in cases}
    for path in _files(part.labels):
        if path.name.endswith(part.ending) and path.name not in known:
            name = path.name.removesuffix(part.ending)
            image = part.images / f"{name}_0000{part.ending}"
            message = f"{path}: there is no image {image} for this label; add the image or move the label away"
            faults.append(Fault("E", "label-without-image", name, message))
    return faults


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
