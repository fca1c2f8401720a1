"""Tables of facts per case (`cases.csv`, `attributes.csv`, `texts.csv`, manifests), and the patient they name."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from medmargin.errors import DataError

Row = Mapping[str, str]
_PATIENT_COLUMNS = ("patient", "patient_id", "patientid", "subject")


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
                case = (row.pop("case") or "").strip()
                if not case or case in table:
                    fault = f"case '{case}' is listed twice" if case else "column 'case' is empty"
                    raise DataError(f"{path}: row {reader.line_num}: {fault}; every row needs a case of its own")
                table[case] = {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error
    return table


def patient_of(case: str, attributes: Row) -> str:
    """Name a case's patient: its column `patient` (or `patient_id`, `patientid`, `subject`), else the case itself."""
    return next((attributes[column] for column in _PATIENT_COLUMNS if attributes.get(column)), case)
