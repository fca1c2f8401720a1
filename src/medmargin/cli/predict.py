"""`medmargin predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medmargin.cli.answer import print_json, print_table
from medmargin.cli.progress import progress_bar
from medmargin.cli.uncertainty import Members, Uncalibrated, Uncertainty
from medmargin.errors import PartialFailure


def predict(
    run: Annotated[str, typer.Argument(help="Run folder, or a system whose weights ship with the package: u-medsam.")],
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, folders, DICOM series, data sets.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("predictions"),
    box: Annotated[str | None, typer.Option(help="x_min,y_min,x_max,y_max (or with z) in voxels.")] = None,
    structure: Annotated[str | None, typer.Option(help="What --box encloses.")] = None,
    boxes: Annotated[Path | None, typer.Option(help="Boxes of all cases: CSV, JSON or challenge NPZ.")] = None,
    points: Annotated[Path | None, typer.Option(help="Points of all cases: CSV or JSON.")] = None,
    prompts_from: Annotated[Path | None, typer.Option(help="Label file or folder (evaluation only).")] = None,
    in_mm: Annotated[bool, typer.Option("--in-mm", help="Coordinates are RAS+ millimetres.")] = False,
    split: Annotated[str | None, typer.Option(help="Side of a data set's split.")] = None,
    series: Annotated[str | None, typer.Option(help="DICOM series of a folder that holds several.")] = None,
    volume_index: Annotated[int | None, typer.Option(help="Time point of a 4-D file, from 0.")] = None,
    to_gray: Annotated[bool, typer.Option("--to-gray", help="Turn colour pictures into grey ones.")] = False,
    uncertainty: Uncertainty = None,
    members: Members = None,
    uncalibrated: Uncalibrated = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write probability maps too.")] = False,
    memory: Annotated[str | None, typer.Option(help="Most memory to use, for example 4G.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Segment what the prompts point at, or everything a system finds by itself; write labels and uncertainty maps.

    Example: medmargin predict u-medsam scan.nii.gz --box 40,52,88,97 --out results
    """
    from medmargin.workflows.predict import predict as run_prediction

    with progress_bar("predicting") as bar:
        result, answer = run_prediction(
            run, inputs, out, box=box, structure=structure, boxes=boxes, points=points, prompts_from=prompts_from,
            in_mm=in_mm, split=split, series=series, volume_index=volume_index, to_gray=to_gray,
            uncertainty=uncertainty, members=members or (), calibrated=not uncalibrated, probabilities=probabilities,
            memory=memory, progress=lambda done, total, case: bar(done, total),
        )  # fmt: skip
    if json:
        print_json(answer)
    elif answer["cases"]:
        rows = [(case["case"], f"{case['seconds']:.1f}", len(case["files"])) for case in answer["cases"]]
        print_table(f"Written to {out} (prompts: {answer['prompts']})", ("case", "seconds ", "files "), rows)
    if not result.failures:
        return
    if not result.results and len(result.failures) == 1:
        raise typer.Exit(_reported(result.failures[0]))
    listed = "; ".join(f"{failure.case}: {failure.error}" for failure in result.failures[:5])
    raise PartialFailure(f"{len(result.failures)} of {len(inputs)} inputs failed, see {out / 'failed.json'}: {listed}")


def _reported(failure) -> int:  # type: ignore[no-untyped-def]
    """Say what happened to the only case, and give its exit code."""
    from medmargin.cli.answer import say

    say(failure.error)
    return failure.exit_code
