"""Answers on stdout: one JSON object for programs, a table for people. Progress goes to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_json(content: Any) -> None:
    """Print one JSON value and nothing else; numbers that are not finite are a programming error."""
    sys.stdout.write(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; columns whose name ends in a blank are aligned to the right."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.strip(), justify="right" if column.endswith(" ") else "left")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


def say(text: str) -> None:
    """Tell the person at the terminal something, on stderr."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(text, markup=False)
