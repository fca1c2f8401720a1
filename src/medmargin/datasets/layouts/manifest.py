"""CSV manifest: a row per case with columns `case,patient,image[,image2,...],label,split`; others are attributes.

Only `case` and `image` are required. Paths are relative to the manifest; an image may be a file or a DICOM folder.
`split` is train, val, calibration, test or empty. A `dataset.json` beside it with `channel_names` and `labels` names
channels and structures; without it they are called after the columns and the values found in the labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from medmargin.datasets.case import Case
from medmargin.datasets.layouts.description import FILE_NAME as DESCRIPTION
from medmargin.datasets.layouts.description import Description, make_task, read_description
from medmargin.datasets.layouts.listing import Listing
from medmargin.datasets.layouts.tables import Row, patient_of, read_table
from medmargin.datasets.layouts.values import labels_found
from medmargin.datasets.splits import PARTS, Splits
from medmargin.datasets.task import Task
from medmargin.errors import DataError
from medmargin.imaging.content import format_of_name

FILE_NAME = "manifest.csv"
_IMAGE_COLUMN = re.compile(r"image(\d*)")
_OWN_COLUMNS = ("label", "split", "text", "scribbles")


def read(path: Path) -> Listing:
    """List the cases of a manifest.

    Raises:
        DataError: a column is missing, a split name is unknown, or pictures and volumes are mixed.
    """
    rows = read_table(path)
    if not rows:
        raise DataError(f"{path}: holds no case; expected a row per image with the columns case,image,label")
    columns = _image_columns(path, next(iter(rows.values())))
    cases = [_case(path, name, row, columns) for name, row in rows.items()]
    splits = _splits(path, rows)
    test = {name for name, row in rows.items() if row.get("split", "").strip() == "test"}
    return Listing(
        task=_task(path, cases, columns),
        cases=tuple(case for case in cases if case.name not in test),
        test_cases=tuple(case for case in cases if case.name in test),
        splits=splits,
    )


def _image_columns(path: Path, row: Row) -> list[str]:
    columns = [(int(match[1] or 1), name) for name in row if (match := _IMAGE_COLUMN.fullmatch(name))]
    if not columns:
        raise DataError(f"{path}: no column 'image'; found case, {', '.join(row)}")
    return [name for _, name in sorted(columns)]


def _case(path: Path, name: str, row: Row, columns: list[str]) -> Case:
    entries = [row[column].strip() for column in columns]
    if not entries[0]:
        raise DataError(f"{path}: case '{name}': column '{columns[0]}' is empty; expected the path of an image")
    attributes = {key: value for key, value in row.items() if key not in (*_OWN_COLUMNS, *columns)}
    label, scribbles = (row.get(column, "").strip() for column in ("label", "scribbles"))
    return Case(
        name=name,
        patient=patient_of(name, row),
        # An empty cell of a further channel stays in the list as a missing file: reading the case then names it.
        images=tuple(path.parent / (entry or f"<no {column}>") for entry, column in zip(entries, columns, strict=True)),
        label=path.parent / label if label else None,
        scribbles=path.parent / scribbles if scribbles else None,
        text=row.get("text") or None,
        attributes=attributes,
    )


def _splits(path: Path, rows: Mapping[str, Row]) -> Splits | None:
    """Collect the column `split`; None where it says no more than which cases are the test cases."""
    parts: dict[str, list[str]] = {}
    for name, row in rows.items():
        part = row.get("split", "").strip()
        if part and part not in PARTS:
            raise DataError(f"{path}: case '{name}': split '{part}'; expected {', '.join(PARTS)} or nothing")
        if part:
            parts.setdefault(part, []).append(name)
    if set(parts) <= {"test"}:
        return None
    return Splits(({part: tuple(names) for part, names in parts.items()},), f"column 'split' of {path}")


def _task(path: Path, cases: list[Case], columns: list[str]) -> Task:
    kinds = {2 if format_of_name(case.images[0]) == "picture" else 3 for case in cases}
    if len(kinds) > 1:
        raise DataError(f"{path}: lists pictures and volumes; expected one kind. Split it into two manifests")
    source = path.parent / DESCRIPTION
    name = path.parent.name if path.name == FILE_NAME else path.stem
    dims = kinds.pop()
    if not source.is_file():
        labels = labels_found([case.label for case in cases if case.label is not None], source=path)
        unit = "mm" if dims == 3 else "px"
        return make_task(name, channels=columns, labels=labels, dims=dims, unit=unit, source=path)
    known = read_description(source, Description)
    return make_task(
        known.name or name,
        channels=known.channel_names,
        labels=known.labels,
        regions_class_order=known.regions_class_order,
        dims=dims,
        unit="mm" if dims == 3 and known.spacing_known else "px",
        source=source,
    )
