"""Tables of facts per case (`cases.csv`, `attributes.csv`, `texts.csv`, manifests), and the patient they name."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmargin.errors import DataError
from medmargin.storage import atomic_path

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


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV; a column that only some rows have is empty in the others."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def patient_of(case: str, attributes: Row) -> str:
    """Name a case's patient: its column `patient` (or `patient_id`, `patientid`, `subject`), else the case itself."""
    return next((attributes[column] for column in _PATIENT_COLUMNS if attributes.get(column)), case)
