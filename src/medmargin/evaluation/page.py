"""Self-contained HTML pages: templates filled in, pictures embedded, numbers written out."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from medmargin.storage import atomic_path


def write_page(path: Path | str, template: str, **values: Any) -> None:
    """Fill in a template of this room; its filters `number`, `interval`, `signed` and `p_value` write numbers.

    Raises:
        BudgetError: the file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("medmargin.evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": number, "interval": interval, "signed": _signed, "p_value": p_value}
    text = environment.get_template(template).render(**values)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def embedded(image: bytes) -> str:
    """Turn a PNG file into the address of a picture that needs no file."""
    return f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}"


def number(value: float | None, digits: int = 2, reason: str | None = None, sign: str = "") -> str:
    """Write a number, or "n/a" with the reason shown on hovering."""
    if value is not None:
        return f"{value:{sign}.{digits}f}"
    return Markup('<abbr title="{}">n/a</abbr>').format(reason) if reason else escape("n/a")


def interval(ends: Sequence[float] | None, digits: int = 2, sign: str = "") -> str:
    """Write an interval."""
    return f"{ends[0]:{sign}.{digits}f} to {ends[1]:{sign}.{digits}f}" if ends else "n/a"


def p_value(value: float | None, reason: str | None = None) -> str:
    """Write a p-value; below 0.001 only that it is."""
    return "< 0.001" if value is not None and value < 0.001 else number(value, 3, reason)


def _signed(value: float | None, reason: str | None = None) -> str:
    return number(value, 0, reason) if value is None else f"{100 * value:+.0f} %"
