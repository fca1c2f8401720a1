"""`metrics.jsonl`: every line is JSON, and a resumed run continues it without gaps or repetitions."""

from __future__ import annotations

import json

import pytest

from medmargin.errors import BudgetError
from medmargin.learning.metrics_log import JsonLines, cut_records


def test_records_are_appended_and_not_finite_numbers_are_null(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.log_metrics({"loss": 0.5}, step=1)
    log.log_metrics({"loss": float("nan"), "lr": float("inf")}, step=2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 0.5}, {"step": 2, "loss": None, "lr": None},
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["", '{"step": 3, "lo', '{"step": 3}\n{"st', "\x00\x00\x00"])
def test_row_40_later_records_and_half_lines_are_cut(tmp_path, end):
    path = tmp_path / "metrics.jsonl"
    kept = '{"step": 1}\n{"step": 2}\n{"step": 2, "val/dice": 0.5}\n'
    path.write_text(kept + '{"step": 3, "loss": 1}\n' + end)
    cut_records(path, after=2)
    assert path.read_text() == kept


def test_a_run_without_a_log_has_nothing_to_cut(tmp_path):
    cut_records(tmp_path / "metrics.jsonl", after=2)
    assert list(tmp_path.iterdir()) == []


def test_row_40_a_log_that_cannot_be_written(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(BudgetError, match=r"metrics\.jsonl: the disk is full"):
        JsonLines(tmp_path / "metrics.jsonl").log_metrics({}, step=1)
