"""Write the pages that come from the code: one per system, and their index.

    python docs/build_pages.py
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from medmargin.storage import atomic_path
from medmargin.systems.measured import measured
from medmargin.systems.registry import Entry, catalogue, describe_arguments, find

PAGES = Path(__file__).parent / "systems"


def main() -> None:
    """Write `systems/index.md` and `systems/<slug>.md`."""
    entries = catalogue()
    rows = [f"| [`{e.slug}`]({e.slug}.md) | {e.title} | {e.paper} |" for e in entries.values()]
    index = ["# Systems", "", "| slug | what it is | paper |", "|---|---|---|", *rows, ""]
    write("index", "\n".join(index))
    for entry in entries.values():
        write(entry.slug, page(entry))


def page(entry: Entry) -> str:
    """Compose the page of a system from its file's docstring, its signature and its measured results."""
    build = find(entry.slug)
    module = inspect.getmodule(build)
    about = inspect.getdoc(module) or ""
    summary = inspect.getdoc(build) or ""
    arguments = [
        f"| `{a['name']}` | {_choices(a['type'])} | `{a['default']}` | "
        + (f"`{a['laptop']}` |" if "laptop" in a else "|")
        for a in describe_arguments(entry.slug)
    ]
    results = [f"| {line['what']} | {line['result']} | `{line['command']}` |" for line in measured(entry.slug)]
    return "\n".join([
        f"# {entry.slug}", "", about, "", f"Paper: {entry.paper}. Needs: {', '.join(entry.needs)}.", "",
        "## What it does", "", summary.split("Args:")[0].strip(), "",
        "## Arguments", "", "```text", summary.split("Args:")[-1].strip("\n"), "```", "",
        "| name | type | paper | laptop, where it differs |", "|---|---|---|---|", *arguments, "",
        "## Measured here", "", "| what | result | command |", "|---|---|---|", *results, "",
    ])  # fmt: skip


def _choices(kind: str) -> str:
    """Write a type without the marks that would end a cell of a table."""
    return re.sub(r"Literal\[(.*?)\]", r"\1", kind).replace(" | ", ", ").replace("'", "")


def write(name: str, text: str) -> None:
    """Write one page, whole or not at all."""
    with atomic_path(PAGES / f"{name}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
