"""`medmargin evaluate`: a run on a data set, or files that were predicted before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medmargin.cli.answer import print_json, print_table, say
from medmargin.cli.progress import progress_bar
from medmargin.cli.uncertainty import Members, Uncalibrated, Uncertainty
from medmargin.errors import PartialFailure


def evaluate(
    run: Annotated[str, typer.Argument(help="Run folder, shipped system, or a folder of predicted label maps.")],
    dataset: Annotated[str, typer.Argument(help="Data set, or a folder of true label maps.")],
    split: Annotated[str | None, typer.Option(help="Side of the split (default of a run: test).")] = None,
    split_file: Annotated[Path | None, typer.Option(help="Split file instead of the data set's own.")] = None,
    fold: Annotated[int, typer.Option(help="Fold of the split.")] = 0,
    prompts_from: Annotated[
        str | None, typer.Option(help="labels: true boxes, with the floors they give away (promptable: default).")
    ] = None,
    uncertainty: Uncertainty = None,
    members: Members = None,
    uncalibrated: Uncalibrated = False,
    report: Annotated[Path | None, typer.Option(help="HTML or PDF report to write.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV to write: a line per case and structure.")] = None,
    nsd_tolerance: Annotated[float | None, typer.Option(help="In mm, or px where the spacing is unknown.")] = None,
    memory: Annotated[str | None, typer.Option(help="Most memory to use, for example 4G.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict and measure a split in one pass, or measure a folder of predictions.

    Example: medmargin evaluate runs/hippocampus Dataset004_Hippocampus --split val --report report.html
    """
    with progress_bar("evaluating") as bar:

        def progress(done: int, total: int, case: str) -> None:
            bar(done, total)

        if _holds_predictions(run):
            from medmargin.workflows.evaluate_files import evaluate_files

            answer = evaluate_files(
                run, dataset, split=split, report=report, nsd_tolerance=nsd_tolerance, progress=progress
            )
        else:
            from medmargin.workflows.evaluate import evaluate as run_evaluation

            answer = run_evaluation(
                run, dataset, split=split or "test", split_file=split_file, fold=fold, prompts_from=prompts_from,
                uncertainty=uncertainty, members=members or (), calibrated=not uncalibrated, report=report,
                memory=memory, nsd_tolerance=nsd_tolerance, progress=progress,
            )  # fmt: skip
    if table is not None:
        from medmargin.evaluation.table import write_case_table

        write_case_table(table, answer)
    if json:
        print_json(answer)
    else:
        print_summary(answer)
    if report is not None:
        say(f"report: {report}")
    if answer["failed"]:
        listed = "; ".join(f"{failure['case']}: {failure['error']}" for failure in answer["failed"][:5])
        raise PartialFailure(f"{len(answer['failed'])} cases could not be measured: {listed}")


def print_summary(answer: dict[str, Any]) -> None:
    """Print the summary of an evaluation as tables: overlap with its floors, then uncertainty."""
    summary = answer["summary"]
    floors = summary["floors"]
    rows = []
    for name, figures in summary["structures"].items():
        dice, nsd = figures["dice"], figures["nsd"]
        alone = [_figure(floors[floor].get("structures", {}).get(name)) for floor in ("box", "ellipse")]
        rows.append((name, _figure(dice["mean"]), _interval(dice["ci95"]), _figure(nsd["mean"]), *alone))
    columns = ("structure", "Dice ", "95 % interval ", "NSD ", "box alone ", "ellipse alone ")
    print_table(f"{summary['n']} cases", columns, rows)
    found = summary["uncertainty"]
    rows = [
        ("whole image", _figure(found["ece"]), _figure(found["auroc"])),
        ("band of 3 voxels around borders", _figure(found["band"]["ece"]), _figure(found["band"]["auroc"])),
    ]
    print_table(f"Uncertainty ({found['source']})", ("where", "calibration error ", "finds errors (AUROC) "), rows)


def _holds_predictions(folder: str) -> bool:
    path = Path(folder)
    return path.is_dir() and not (path / "config.json").exists()


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
