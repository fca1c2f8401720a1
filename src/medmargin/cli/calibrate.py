"""`medmargin calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medmargin.cli.answer import print_json, print_table, say
from medmargin.cli.progress import progress_bar
from medmargin.cli.uncertainty import Members, Uncertainty
from medmargin.errors import PartialFailure


def calibrate(
    run: Annotated[str, typer.Argument(help="Run folder; it takes calibration.json and trust.json.")],
    dataset: Annotated[str, typer.Argument(help="Data set with labelled patients the run has not seen.")],
    split: Annotated[str, typer.Option(help="Side of the split.")] = "calibration",
    split_file: Annotated[Path | None, typer.Option(help="Split file instead of the data set's own.")] = None,
    fold: Annotated[int, typer.Option(help="Fold of the split.")] = 0,
    level: Annotated[float, typer.Option(help="Level of every guarantee; 0.9 needs 9 patients, better 18.")] = 0.9,
    uncertainty: Uncertainty = None,
    members: Members = None,
    local: Annotated[bool, typer.Option("--local", help="Also try a temperature per pixel (slower).")] = False,
    seed: Annotated[int, typer.Option(help="Of the draw of the two halves of patients.")] = 0,
    memory: Annotated[str | None, typer.Option(help="Most memory to use, for example 4G.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Learn from held-out patients how sure the run may be; every later prediction of the run uses it.

    Example: medmargin calibrate runs/hippocampus Dataset004_Hippocampus --split-file split.json
    """
    from medmargin.workflows.calibrate import calibrate as run_calibration

    with progress_bar("calibrating") as bar:
        answer = run_calibration(
            run, dataset, split=split, split_file=split_file, fold=fold, level=level, uncertainty=uncertainty,
            members=members or (), local=local, seed=seed, memory=memory,
            progress=lambda done, total, case: bar(done, total),
        )  # fmt: skip
    if json:
        print_json(answer)
    else:
        _print_summary(answer)
    if answer["failed"]:
        listed = "; ".join(f"{failure['case']}: {failure['error']}" for failure in answer["failed"][:5])
        raise PartialFailure(f"{len(answer['failed'])} cases could not be used: {listed}")


def _print_summary(answer: dict[str, Any]) -> None:
    """Print what was learned as tables, and what was refused line by line."""
    patients = answer["patients"]
    told = f"{patients['rescaling']} patients for the rescaling, {patients['guarantees']} for the guarantees"
    kinds = ", ".join(f"{name}: {found['kind']}" for name, found in answer["rescaling"].items())
    say(f"{told}{' (the same ones)' if patients['shared'] else ''}; rescaling of {kinds}")
    before, after = answer["before"], answer["after"]
    rows = [
        (where, *(_figure(figures[name]) for name in ("ece", "nll") for figures in pair))
        for where, pair in (
            ("whole image", (before, after)),
            ("band of 3 voxels around borders", (before["band"], after["band"])),
        )
    ]
    columns = ("where", "calibration error before ", "after ", "-ln p before ", "after ")
    print_table("Probabilities", columns, rows)
    promised = [(name, *_promises(found)) for name, found in answer["guarantees"].items()]
    kinds_of_promise = ("structure", "thresholds out / in ", "distance out / in ", "volume stretch ")
    print_table(f"Guaranteed at level {answer['level']:g}", kinds_of_promise, promised)
    for what, reason in answer["refused"].items():
        say(f"refused: {what}: {reason}")
    for part in ("predicted_dice", "out_of_distribution"):
        if f"{part}_reason" in answer:
            say(f"none: {part.replace('_', ' ')}: {answer[f'{part}_reason']}")
    say(f"written: {answer['calibration']}, {answer['trust']}")


def _promises(found: dict[str, Any]) -> tuple[str, str, str]:
    thresholds, distances, volume = found["thresholds"], found["distances"], found["volume"]
    return (
        "-" if thresholds is None else f"{thresholds['outer']:.3g} / {thresholds['inner']:.3g}",
        "-" if distances is None else f"{distances['outer']:.1f} / {distances['inner']:.1f} {distances['unit']}",
        "-" if volume is None else f"{volume['stretch']:.2f}",
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
