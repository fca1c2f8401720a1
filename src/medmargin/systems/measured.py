"""Results measured here, one line each, written by the commands in `benchmarks/` and shipped with the package."""

from __future__ import annotations

import json
from pathlib import Path

from medmargin.storage import write_json

_RESULTS = Path(__file__).with_name("results.json")


def measured(slug: str) -> list[dict[str, str]]:
    """List the results of a system: `what` was measured, the `result`, and the `command` that repeats it."""
    if not _RESULTS.exists():
        return []
    return json.loads(_RESULTS.read_text(encoding="utf-8")).get(slug, [])


def record(slug: str, *, what: str, result: str, command: str) -> None:
    """Add or replace one result of a system (the same `what` is replaced)."""
    results = json.loads(_RESULTS.read_text(encoding="utf-8")) if _RESULTS.exists() else {}
    kept = [line for line in results.get(slug, []) if line["what"] != what]
    results[slug] = [*kept, {"what": what, "result": result, "command": command}]
    write_json(_RESULTS, results)
