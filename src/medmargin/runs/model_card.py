"""The model card of a run: `README.md`, written by the program from what it knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmargin.runs.folder import Run
from medmargin.storage import atomic_path

_CARD = """\
# {name}

{summary}

**Not a medical device.** For research; a qualified person checks every result before anyone acts on it.

## Intended use
Outlining {structures} in {dims}-D {channels} images like those it was trained on. Not for other organs, modalities or
scanners without a fresh measurement, and never for a diagnosis or a dose on its own.

## Data
{data}

## Training
| | |
|---|---|
{training}

## Performance
{performance}

## Repeat it
```
{command}
```
Every argument, the seed and the versions stand in `config.json`; the course of the training in `metrics.jsonl`.
`model.safetensors` holds weights only and carries the checksum of its content.
"""


def write_model_card(run: Run, *, summary: str, results: Mapping[str, Any] | None = None) -> Path:
    """Write `README.md` into a run folder.

    Args:
        run: the run it describes.
        summary: one paragraph on the system, with its citation.
        results: name -> number or text, measured on cases that were not trained on; a mapping inside becomes
            "outer / inner" rows. Without them the card says that nothing was measured.

    Returns:
        path of the card.

    Raises:
        BudgetError: the folder cannot be written.
    """
    config = run.config
    training = {
        "system": config.system,
        "seed": config.seed,
        "threads": config.threads,
        **config.budget,
        **config.versions,
        "git": config.git or "not a source tree",
    }
    card = _CARD.format(
        name=run.folder.resolve().name,
        summary=summary,
        structures=", ".join(config.task.get("structures", {})) or "any prompted structure",
        dims=config.task.get("dims", 2),
        channels="/".join(config.task.get("channels", ())) or "medical",
        data="\n".join(f"- {name}: {_shown(value)}" for name, value in config.data.items()) or "Not recorded.",
        training=_rows(training),
        performance=_performance(results),
        command=" ".join(config.command) or "not recorded",
    )
    with atomic_path(run.paths.card) as temporary:
        temporary.write_text(card, encoding="utf-8")
    return run.paths.card


def _shown(value: Any) -> Any:
    """Count what would be a long list; `config.json` has it whole."""
    if isinstance(value, list):
        return f"{len(value)} cases, listed in `config.json`"
    return "see `config.json`" if isinstance(value, Mapping) else value


def _performance(results: Mapping[str, Any] | None) -> str:
    if not results:
        return "Not measured yet: run `medmargin evaluate` on cases that were not trained on."
    return "| measure | value |\n|---|---|\n" + _rows(results)


def _rows(values: Mapping[str, Any], prefix: str = "") -> str:
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines.append(_rows(value, f"{prefix}{name} / "))
        else:
            shown = f"{value:.4g}" if isinstance(value, float) else value
            lines.append(f"| {prefix}{name} | {shown} |")
    return "\n".join(lines)
