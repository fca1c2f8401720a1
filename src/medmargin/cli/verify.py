"""`medmargin verify`: the authors' numbers, recomputed on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medmargin.cli.answer import print_json, print_table


def verify(
    slug: Annotated[str, typer.Argument(help="Published system or part, for example medsam-lite.")],
    reference: Annotated[Path, typer.Option(help="safetensors file with the authors' inputs, weights and outputs.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recompute every output of a reference file; exit 0 only within the published tolerance.

    Example: medmargin verify u-medsam --reference golden/u-medsam.safetensors
    """
    from medmargin.verification import verify as recompute

    result = recompute(slug, reference)
    outputs = [
        {"name": o.name, "max_abs": o.max_abs, "max_rel": o.max_rel, "passed": o.passed, "reason": o.reason}
        for o in result.outputs
    ]
    if json:
        print_json(
            {"slug": slug, "reference": str(reference), "passed": result.passed, "tolerance": result.tolerance,
             "outputs": outputs}
        )  # fmt: skip
    else:
        rows = [
            (o.name, _number(o.max_abs), _number(o.max_rel), "yes" if o.passed else f"NO: {o.reason}")
            for o in result.outputs
        ]
        verdict = "all within tolerance" if result.passed else "NOT within tolerance"
        columns = ("output", "largest absolute error ", "relative ", "passed")
        print_table(f"{slug}: {verdict} ({result.tolerance:g})", columns, rows)
    if not result.passed:
        raise typer.Exit(1)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"
