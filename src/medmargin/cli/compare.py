"""`medmargin compare`: which result is better, paired by patient."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medmargin.cli.answer import print_json, print_table, say


def compare(
    results: Annotated[list[Path], typer.Argument(help="Two or more files of evaluate --json, or run folders.")],
    metric: Annotated[
        list[str] | None, typer.Option(help="dice, nsd, hd95_mm, band_ece, band_auroc ...; may be given several times.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare evaluations on the same patients: differences, tests, effect sizes, stability of the ranking.

    Example: medmargin compare unet.json sam.json --report comparison.html
    """
    from medmargin.workflows.compare import compare as run_comparison

    answer = run_comparison(results, metrics=metric, report=report)
    if json:
        print_json(answer)
    else:
        print_comparison(answer)
    for item in answer["left_out"][:5]:
        say(f"left out: {item['case']} ({item['reason']})")
    if len(answer["left_out"]) > 5:
        say(f"left out: {len(answer['left_out']) - 5} more cases")
    for item in answer["structures_left_out"]:
        say(f"left out: structure {item['structure']} ({item['reason']})")
    for warning in answer["warnings"]:
        say(f"warning: {warning}")
    if report is not None:
        say(f"report: {report}")


def print_comparison(answer: dict[str, Any]) -> None:
    """Print who is compared, then per metric the means and the differences; results go by their number."""
    numbers = {described["name"]: str(index) for index, described in enumerate(answer["results"], start=1)}
    compared = [(numbers[found["name"]], found["name"], found["n"], found["n_failed"]) for found in answer["results"]]
    title = f"{answer['n']} common cases of {answer['n_patients']} patients"
    print_table(title, ("", "result", "cases ", "failed "), compared)
    for metric in answer["metrics"].values():
        title = f"{metric['title']}, {metric['better']} is better: means (how often it ranks first)"
        columns = ("structure", "patients ", *(f"{number} " for number in numbers.values()))
        print_table(title, columns, [_means(name, row, numbers) for name, row in metric["rows"].items()])
        rows = [line for name, row in metric["rows"].items() for line in _pairs(name, row, numbers)]
        columns = ("structure", "pair", "difference ", "95 % interval ", "p (Holm) ", "finding")
        print_table(f"{metric['title']}: differences", columns, rows)


def _means(name: str, row: dict[str, Any], numbers: dict[str, str]) -> list[str]:
    if not row["n"]:
        return [name, "0", row["reason"], *("-" for _ in list(numbers)[1:])]
    first = row["ranking"]["first"]
    shares = {result: f" ({100 * first[result]:.0f} %)" if first else "" for result in numbers}
    means = [f"{row['means'][result]['mean']:.3f}{shares[result]}" for result in numbers]
    return [name, str(row["n_patients"]), *means]


def _pairs(name: str, row: dict[str, Any], numbers: dict[str, str]) -> list[tuple[str, ...]]:
    return [
        (name if position == 0 else "", f"{numbers[pair['first']]} - {numbers[pair['second']]}",
         f"{pair['difference']['mean']:+.3f}", _interval(pair["difference"]["ci95"]), _p(pair["p_holm"]),
         _finding(pair, numbers))
        for position, pair in enumerate(row["pairs"])
    ]  # fmt: skip


def _finding(pair: dict[str, Any], numbers: dict[str, str]) -> str:
    return f"{numbers[pair['better']]} is better" if pair["is_shown"] else pair["verdict"]


def _interval(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:+.3f} to {ends[1]:+.3f}"


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
