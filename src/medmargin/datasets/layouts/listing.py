"""What every layout reader answers with, and the rules the layouts share: labels, patients, tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from medmargin.datasets.case import Case
from medmargin.datasets.faults import Fault
from medmargin.datasets.splits import Splits
from medmargin.datasets.task import Task
from medmargin.errors import DataError

_PATIENT_COLUMNS = ("patient", "patient_id", "patientid", "subject")
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Listing:
    """A data set as its layout describes it; no voxel has been read.

    Attributes:
        name: name of the data set.
        task: channels and structures.
        cases: training images, with or without label.
        test_cases: images set apart for testing.
        splits: the split the layout itself states, or None.
        faults: files that do not fit the layout.
    """

    name: str
    task: Task
    cases: tuple[Case, ...]
    test_cases: tuple[Case, ...] = ()
    splits: Splits | None = None
    faults: tuple[Fault, ...] = ()


def read_description(path: Path, model: type[_Model]) -> _Model:
    """Read a `dataset.json` (or the like) into a pydantic model.

    Raises:
        DataError: missing, not JSON, or a field is absent or of the wrong type; names the file and the fields.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:3])
        raise DataError(f"{path}: not a data set description ({found})") from error


def make_task(
    name: str,
    *,
    channels: Sequence[str],
    labels: Mapping[str, Any],
    dims: int,
    unit: str,
    source: Path,
) -> Task:
    """Put structures into contiguous values 1..K in the order of their values in the files.

    Args:
        channels: channel names; "CT" makes it a CT task.
        labels: structure name -> value in the label files, background included or not.
        source: file that states the labels, for error messages.

    Raises:
        DataError: no structure, a value given twice, or regions and ignore labels, which are not supported.
    """
    if not all(isinstance(value, int) for value in labels.values()):
        raise DataError(
            f"{source}: 'labels' holds a region or a value that is no whole number; expected one whole number per "
            "structure (overlapping regions are not supported: write one label map without overlap)"
        )
    if "ignore" in labels:
        raise DataError(f"{source}: an 'ignore' label is not supported; leave those cases out or fill the zone")
    values = {label: value for label, value in labels.items() if value != 0}
    if not values or len(set(values.values())) < len(values):
        raise DataError(f"{source}: 'labels' is {dict(labels)}; expected at least one structure and one value for each")
    originals = dict(sorted(values.items(), key=lambda item: item[1]))
    return Task(
        name=name,
        channels=tuple(channels),
        structures={label: value for value, label in enumerate(originals, start=1)},
        dims=dims,
        unit=unit,
        modality="CT" if any(channel.upper() == "CT" for channel in channels) else "other",
        original_values=originals,
    )


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """Read a CSV with the column `case` into case -> other columns; an absent file is an empty table.

    Raises:
        DataError: no column `case`, a case without a name or listed twice, or not a text file.
    """
    if not path.is_file():
        return {}
    table: dict[str, dict[str, str]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if "case" not in (reader.fieldnames or ()):
                raise DataError(f"{path}: no column 'case'; found {', '.join(reader.fieldnames or ()) or 'nothing'}")
            for row in reader:
                case = row.pop("case")
                if not case or case in table:
                    raise DataError(f"{path}: row {reader.line_num}: case '{case}' is {'listed twice' if case else 'empty'}")
                table[case] = {column: value or "" for column, value in row.items() if column is not None}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error
    return table


def patient_of(case: str, attributes: Mapping[str, str]) -> str:
    """Name the patient a case belongs to: its column `patient` (or `patient_id`, `patientid`, `subject`), else itself."""
    return next((attributes[column] for column in _PATIENT_COLUMNS if attributes.get(column)), case)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        DataError: missing, not JSON, or something else than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
