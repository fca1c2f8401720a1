from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medmargin.evaluation import CaseResult, summarise
from medmargin.evaluation.table import write_case_table

MakeCase = Callable[..., CaseResult]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_table_has_a_line_per_case_and_structure(make_case: MakeCase, tmp_path: Path) -> None:
    answer = summarise([make_case(seed, name=f"fall, {seed}") for seed in range(2)])
    write_case_table(tmp_path / "cases.csv", answer)
    found = rows(tmp_path / "cases.csv")
    assert [(row["case"], row["structure"]) for row in found[:2]] == [("fall, 0", "anterior"), ("fall, 0", "posterior")]
    assert len(found) == 4
    assert float(found[0]["dice"]) == answer["cases"][0]["structures"]["anterior"]["dice"]
    assert float(found[0]["volume_true"]) == pytest.approx(0.42)
    assert found[0]["volume_unit"] == "ml"
    assert found[0]["hd95_px"] == ""


def test_numbers_that_do_not_exist_are_empty_cells(make_case: MakeCase, tmp_path: Path) -> None:
    empty = np.zeros((12, 14, 10), np.uint8)
    answer = summarise([make_case(truth=empty, labels=empty, unit="px", volumes=None)])
    write_case_table(tmp_path / "cases.csv", answer)
    row = rows(tmp_path / "cases.csv")[0]
    assert row["hd95_mm"] == row["hd95_px"] == row["relative_volume_error"] == row["volume_low"] == ""
    assert row["state"] == "absent"
    assert row["volume_unit"] == "voxels"
