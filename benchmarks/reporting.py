"""What every benchmark does with its numbers: a JSON file and a Markdown table side by side in `docs/results`."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmargin.runs import describe_environment
from medmargin.storage import atomic_path, write_json

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def command() -> str:
    """The command line that repeats a result."""
    return shlex.join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]])


def machine() -> dict[str, Any]:
    """Processor, threads and versions a figure was measured with."""
    import torch

    return {"processor": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
            "device": "cpu", **describe_environment()}  # fmt: skip


def publish(name: str, content: dict[str, Any], *, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]],
            notes: str = "") -> None:  # fmt: skip
    """Write `<name>.json` and `<name>.md`, and print the table."""
    write_json(RESULTS / f"{name}.json", {"command": command(), "machine": machine(), **content})
    lines = [f"**{title}**", "", " | ".join(["", *columns, ""]).strip(), "|" + "---|" * len(columns)]
    lines += [" | ".join(["", *(str(cell) for cell in row), ""]).strip() for row in rows]
    text = "\n".join([*lines, "", notes, "", f"Measured with `{command()}`.", ""])
    with atomic_path(RESULTS / f"{name}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds, as "0.871 ± 0.004"."""
    import numpy as np

    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"
