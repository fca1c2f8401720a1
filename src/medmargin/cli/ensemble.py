"""`medmargin ensemble`: runs that answer together, or the best kind of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medmargin.cli.answer import print_json, print_table, say
from medmargin.cli.progress import progress_bar


def ensemble(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of folds.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    data: Annotated[
        str | None, typer.Option(help="Data set of the runs: choose the best kind of them, and rules.")
    ] = None,
    rules: Annotated[
        bool | None,
        typer.Option("--rules/--no-rules", help="Rules for label maps; default: chosen where there is --data."),
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Most memory to use, for example 4G.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put runs together into one that answers with all of them; with --data, the best of several kinds of runs.

    Example: medmargin ensemble runs/plain runs/residual --data Dataset004_Hippocampus --out runs/best
    """
    from medmargin.workflows.ensemble import ensemble as run_ensemble

    with progress_bar("predicting held-out cases") as bar:
        answer = run_ensemble(
            runs, out, data=data, rules=rules, memory=memory, progress=lambda done, total, what: bar(done, total)
        )
    if json:
        print_json(answer)
    else:
        _print_summary(answer)


def _print_summary(answer: dict[str, Any]) -> None:
    """Print the candidates, what the differences between them are worth, and the rules."""
    if answer["selection"] is not None:
        _print_selection(answer["selection"])
    if answer["rules"] is None:
        say(f"no rules: {answer['rules_reason']}")
    elif not answer["rules"]["rules"]:
        say("no rules: none raises the Dice of the held-out cases")
    else:
        before, after = answer["rules"]["before"], answer["rules"]["after"]
        rows = []
        for rule in answer["rules"]["rules"]:
            name, parts = rule["structure"], [part for part in ("keep_largest", "fill_holes") if rule[part]]
            rows.append((name, ", ".join(parts), f"{before[name]:.4f}", f"{after[name]:.4f}"))
        print_table("Rules", ("structure", "rule", "Dice before ", "after "), rows)
    count = len(answer["members"])
    say(f"{count} member{'s' if count > 1 else ''}, uncertainty by {answer['estimator']}: {answer['out']}")


def _print_selection(found: dict[str, Any]) -> None:
    rows = []
    for each in found["candidates"]:
        dice, chosen = each["dice"], "yes" if each["name"] == found["chosen"] else ""
        figures = (f"{dice['mean']:.4f}", _interval(dice["ci95"]), f"{each['weights']:,}")
        rows.append((each["name"], len(each["members"]), *figures, f"{each['seconds_per_case']:.1f}", chosen))
    columns = ("runs", "members ", "Dice ", "95 % interval ", "weights ", "s per case ", "chosen")
    print_table(f"Cross-validation: {found['cases']} cases of {found['patients']} patients", columns, rows)
    for pair in found["differences"]:
        difference, p = pair["difference"], "-" if pair["p"] is None else f"{pair['p']:.3g}"
        told = f"Dice {difference['mean']:+.4f} ({_interval(difference['ci95'])}), p {p}"
        say(f"{pair['first']} - {pair['second']}: {told}")


def _interval(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"
