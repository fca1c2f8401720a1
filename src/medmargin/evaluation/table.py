"""The per-case table as CSV: one line per case and structure, for a spreadsheet or a statistics program."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmargin.evaluation.structures import STRUCTURE_METRICS
from medmargin.storage import atomic_path

_VOLUME = ("true", "estimate", "low", "high", "level")


def write_case_table(path: Path | str, answer: Mapping[str, Any]) -> None:
    """Write the cases of an `evaluate --json` answer; a number that does not exist is an empty cell.

    Raises:
        BudgetError: the file cannot be written.
    """
    columns = [
        "case",
        "patient",
        "structure",
        "state",
        *STRUCTURE_METRICS,
        *(f"volume_{key}" for key in _VOLUME),
        "volume_unit",
    ]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        for entry in answer["cases"]:
            volumes = entry.get("volumes_px") or entry["volumes_ml"]
            for name, figures in entry["structures"].items():
                volume = {f"volume_{key}": volumes[name][key] for key in _VOLUME}
                unit = "voxels" if "volumes_px" in entry else "ml"
                names = {"case": entry["case"], "patient": entry["patient"], "structure": name}
                writer.writerow({**names, **figures, **volume, "volume_unit": unit})
