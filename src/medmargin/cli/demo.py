"""`medmargin demo`: the whole journey in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medmargin.cli.answer import print_json, say
from medmargin.cli.evaluate import print_summary


def demo(
    data: Annotated[str | None, typer.Option(help="Data set; default: the embedded phantom.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of everything the demo makes.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="Minutes of training.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a data set, train U-MedSAM on it, segment unseen patients, measure, and write the report.

    Example: medmargin demo --out demo
    """
    from medmargin.workflows.demo import demo as run_demo

    outcome = run_demo(data, out, minutes=minutes, seed=seed, say=say)
    if json:
        print_json({"run": str(outcome.run), "report": str(outcome.report), "evaluation": outcome.answer})
    else:
        print_summary(outcome.answer)
        typer.echo(f"Report: {outcome.report.resolve()}")
