"""`medmargin data`: check, repair, convert, split, plan, download and simulate data sets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmargin.cli.answer import print_json, print_table, say
from medmargin.cli.progress import progress_bar
from medmargin.cli.settings import parsed_settings
from medmargin.errors import ConfigError, PartialFailure

if TYPE_CHECKING:
    from medmargin.datasets.faults import CheckReport
    from medmargin.datasets.planning import Plan
    from medmargin.workflows.plan_cost import Cost

_LISTED_FAULTS = 50
_BAD_DATA = 3
_IDLE = 0.7  # share of the processor below which the machine counts as busy

app = typer.Typer(help="Check, repair, convert, split, plan, download and simulate data sets.", no_args_is_help=True)

Source = Annotated[str, typer.Argument(metavar="DATASET", help="Folder, CSV manifest, or name under MEDMARGIN_DATA.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Patients = Annotated[
    str | None, typer.Option("--patients", help="Regular expression that finds the patient in a case's name.")
]


@app.command()
def check(
    dataset: Source,
    split: Annotated[Path | None, typer.Option(help="Split file to check with the data.")] = None,
    patients: Patients = None,
    json: Json = False,
) -> None:
    """Read every image and label and list what is wrong; exit 3 where something is unusable.

    Example: medmargin data check Dataset004_Hippocampus
    """
    from medmargin.datasets.check import check_dataset
    from medmargin.datasets.dataset import open_dataset

    opened = open_dataset(dataset, split_file=split, patient_pattern=patients)
    with progress_bar(f"checking {opened.name}") as progress:
        report = check_dataset(opened, progress=progress)
    if json:
        print_json(report.to_dict())
    else:
        rows = [(name, count) for name, count in report.structures.items()]
        typer.echo(f"{report.dataset}: {report.cases} cases read")
        print_table("Structures", ("structure", "training cases "), rows)
        if report.empty_labels:
            say(f"{report.empty_labels} training labels are empty (allowed; they count as 'absent' in results)")
        if len(report.faults) > _LISTED_FAULTS:
            say(f"the first {_LISTED_FAULTS} of {len(report.faults)} findings follow; --json lists all")
        _print_faults(report)
    if report.errors:
        raise typer.Exit(_BAD_DATA)


@app.command()
def fix(
    dataset: Source,
    out: Annotated[Path, typer.Option(help="New folder for the repaired copy.")],
    resample_labels: Annotated[bool, typer.Option("--resample-labels", help="Labels to the image's grid.")] = False,
    resample_channels: Annotated[bool, typer.Option("--resample-channels", help="Channels to the first's.")] = False,
    to_gray: Annotated[bool, typer.Option("--to-gray", help="Colours to grey where one channel is expected.")] = False,
    map_label: Annotated[list[str] | None, typer.Option(metavar="FOUND=WANTED", help="Label value to replace.")] = None,
    json: Json = False,
) -> None:
    """Write a repaired copy of a data set; the source is never touched.

    Example: medmargin data fix my_set --out my_set_fixed --resample-labels --map-label 255=1
    """
    from medmargin.datasets.dataset import open_dataset
    from medmargin.datasets.fix import Repairs, fix_dataset

    repairs = Repairs(resample_labels, resample_channels, to_gray, _label_map(map_label or []))
    opened = open_dataset(dataset)
    with progress_bar(f"repairing {opened.name}") as progress:
        report = fix_dataset(opened, out, repairs, progress=progress)
    if json:
        print_json({"folder": str(report.folder), "repaired": report.repaired, "failed": report.failed})
    else:
        typer.echo(f"{len(report.repaired)} cases repaired in {report.folder}")
        rows = [(case, "; ".join(done)) for case, done in report.repaired.items()]
        rows += [(case, f"NOT repaired: {reason}") for case, reason in report.failed.items()]
        print_table("Repairs", ("case", "what was done"), rows)
    _require_all(report.failed, "repaired")


@app.command()
def convert(
    dataset: Source,
    to: Annotated[str, typer.Option(help="nnunet, msd, npz (challenge) or manifest.")],
    out: Annotated[Path, typer.Option(help="New folder.")],
    json: Json = False,
) -> None:
    """Write a data set anew in another layout; grids, values, patients and splits stay.

    Example: medmargin data convert Task04_Hippocampus --to nnunet --out Dataset004_Hippocampus
    """
    from medmargin.datasets.convert import convert_dataset
    from medmargin.datasets.dataset import open_dataset

    opened = open_dataset(dataset)
    with progress_bar(f"converting {opened.name}") as progress:
        report = convert_dataset(opened, out, to, progress=progress)
    for what in report.left_out:
        say(f"the layout '{to}' has no place for: {what}")
    if json:
        answer = {"folder": str(report.folder), "written": report.written, "failed": report.failed}
        print_json({**answer, "left_out": report.left_out})
    else:
        typer.echo(f"{len(report.written)} cases written to {report.folder}")
        if report.failed:
            print_table("Not converted", ("case", "why"), report.failed.items())
    _require_all(report.failed, "converted")


@app.command()
def split(
    dataset: Source,
    out: Annotated[Path, typer.Option(help="JSON file to write; give it to train and evaluate as --split.")],
    folds: Annotated[int, typer.Option(help="Number of folds for cross-validation.")] = 5,
    fractions: Annotated[
        str | None, typer.Option(help="One split instead of folds: train=0.6,val=0.1,calibration=0.1,test=0.2")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    patients: Patients = None,
    json: Json = False,
) -> None:
    """Draw a split by patient and write it to a file.

    Example: medmargin data split my_set --out split.json --fractions train=0.7,val=0.1,test=0.2
    """
    from medmargin.datasets.dataset import open_dataset
    from medmargin.datasets.splits import make_folds, make_split, write_splits

    opened = open_dataset(dataset, patient_pattern=patients)
    if fractions is None:
        drawn = make_folds(opened.cases, folds=folds, seed=seed)
    else:
        drawn = make_split(opened.cases, fractions=_fractions(fractions), seed=seed)
    write_splits(out, drawn)
    sizes = [{part: len(names) for part, names in fold.items()} for fold in drawn.folds]
    if json:
        print_json({"file": str(out), "source": drawn.source, "folds": sizes})
    else:
        rows = [(index, part, size) for index, fold in enumerate(sizes) for part, size in fold.items()]
        typer.echo(f"{out}: {drawn.source}")
        print_table("Split", ("fold ", "part", "cases "), rows)


@app.command()
def plan(
    dataset: Source,
    dims: Annotated[int | None, typer.Option(help="2 or 3: plan slices or volumes only.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory that training may hold, for example 16G.")] = None,
    scale: Annotated[str | None, typer.Option(help="paper or laptop; default: both.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Your choice in place of the rule's, or @FILE.yaml."),
    ] = None,
    split: Annotated[Path | None, typer.Option(help="Split file; its test and calibration cases stay unseen.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the foreground voxels drawn.")] = 0,
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Estimate time and memory here.")] = True,
    out: Annotated[Path | None, typer.Option(help="File for the plan of one --scale, for `train --plan`.")] = None,
    json: Json = False,
) -> None:
    """Plan spacing, patch, batch, network and normalisation from the training cases, with reasons and cost.

    Example: medmargin data plan Dataset004_Hippocampus --memory 16G --set batch_size=4
    """
    from medmargin.workflows.plan import plan_dataset

    limit = None
    if memory is not None:
        from medmargin.inference.budget import parse_memory

        limit = parse_memory(memory)
    with progress_bar(f"measuring {dataset}") as progress:
        planned = plan_dataset(
            dataset, dims=dims, memory=limit, scale=scale, settings=parsed_settings(settings), split=split, seed=seed,
            timing=timing, progress=progress,
        )  # fmt: skip
    if out is not None:
        planned.write(out)
    if json:
        print_json(planned.to_dict())
        return
    for name, found in planned.plans.items():
        _print_plan(found)
        if name in planned.costs:
            _print_cost(planned.costs[name], found)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="hippocampus (Medical Segmentation Decathlon, Task04).")],
    out: Annotated[Path, typer.Option(help="Folder that will hold the data set.")] = Path("data"),
    json: Json = False,
) -> None:
    """Download a public data set, verify its checksum and unpack it. The only command that uses the network.

    Example: medmargin data get hippocampus --out data
    """
    from medmargin.datasets.get import SOURCES, get_dataset

    with progress_bar(f"downloading {name}", is_download=True) as progress:
        folder = get_dataset(name, out, progress=progress)
    if json:
        print_json({"folder": str(folder), "url": SOURCES[name].url, "licence": SOURCES[name].licence})
    else:
        say(f"licence: {SOURCES[name].licence}")
        typer.echo(folder)


@app.command()
def phantom(
    out: Annotated[Path, typer.Option(help="New folder.")],
    dims: Annotated[int, typer.Option(help="2 for pictures, 3 for volumes.")] = 3,
    cases: Annotated[int, typer.Option(help="Training cases.")] = 24,
    test_cases: Annotated[int, typer.Option(help="Test cases, of other patients.")] = 6,
    raters: Annotated[int, typer.Option(help="Simulated raters of each case.")] = 3,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    json: Json = False,
) -> None:
    """Write a data set of simulated organs whose true uncertainty is known.

    Example: medmargin data phantom --out phantom --dims 2 --cases 12
    """
    from medmargin.datasets.phantoms.writing import write_phantom_dataset

    with progress_bar("simulating") as progress:
        folder = write_phantom_dataset(
            out, dims=dims, cases=cases, test_cases=test_cases, raters=raters, seed=seed, progress=progress
        )
    if json:
        print_json({"folder": str(folder), "cases": cases, "test_cases": test_cases})
    else:
        typer.echo(folder)


def _print_plan(plan: Plan) -> None:
    """Print every choice with its reason: what holds for all configurations, then each one."""
    common = {
        "configuration": plan.chosen,
        "axis_order": " ".join("RAS"[axis] for axis in plan.axis_order),
        "crop": "yes" if plan.crop else "no",
        "resampling": {None: "whole", 0.0: "slicewise"}.get(plan.resampling.slicewise_beyond, "by anisotropy"),
        **{f"normalisation of {one.channel}": one.scheme for one in plan.normalisation},
        "3d_lowres": "planned" if any(one.name == "3d_lowres" for one in plan.configurations) else "no",
    }
    rows = [(name, value, plan.reasons[name]) for name, value in common.items() if name in plan.reasons]
    title = f"{plan.dataset}, {plan.scale} scale: {plan.cases} cases, {plan.memory / 2**30:.3g} GB, {plan.precision}"
    print_table(title, ("choice", "value", "why"), rows)
    for one in plan.configurations:
        rows = [
            (
                "spacing",
                _by_axis(f"{pitch:.4g}" for pitch in one.spacing) + f" {plan.unit}",
                one.reasons.get("spacing", plan.reasons["spacing"]),
            ),
            ("median shape", _by_axis(one.median_shape), "of the cases at that spacing"),
            *((name, _choice(getattr(one, name)), why) for name, why in one.reasons.items() if name != "spacing"),
        ]
        print_table(f"{one.name}{' (chosen)' if one.name == plan.chosen else ''}", ("choice", "value", "why"), rows)


def _print_cost(cost: Cost, plan: Plan) -> None:
    typer.echo(
        f"Estimate for {cost.configuration} on {cost.device} ({cost.precision}, {cost.threads} threads): training "
        f"{cost.step_seconds:.2g} s and {cost.training_bytes / 2**30:.2f} GB a step, prediction "
        f"{cost.prediction_seconds:.2g} s and {cost.prediction_bytes / 2**30:.2f} GB a case ({cost.windows} windows, "
        "without mirroring; with all class scores held)"
    )
    if cost.processor_share is not None and cost.processor_share < _IDLE:
        say(
            f"the machine is busy, {cost.processor_share:.0%} of the processor was left: times may be several times "
            "too long; plan again when it is idle"
        )
    if cost.precision != plan.precision and cost.training_bytes > plan.memory:
        say(
            f"the plan fits {plan.memory / 2**30:.3g} GB in {plan.precision} precision; {cost.device} trains in "
            f"{cost.precision}: plan for it with --set precision={cost.precision}"
        )
    if cost.memory is not None and not cost.fits:
        say(
            f"this is more memory than the {cost.memory / 2**30:.1f} GB of this machine: plan with a smaller --memory, "
            "or with --scale laptop"
        )


def _choice(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple) and isinstance(value[0], tuple):
        return " / ".join(_by_axis(stage) for stage in value)
    return _by_axis(value) if isinstance(value, tuple) else str(value)


def _by_axis(values: Iterable[object]) -> str:
    return "x".join(map(str, values))


def _print_faults(report: CheckReport) -> None:
    typer.echo(f"{len(report.errors)} errors (E), {len(report.warnings)} warnings (W)")
    if report.faults:
        rows = [
            (fault.case or "data set", fault.kind, fault.code, fault.message, fault.repair or "")
            for fault in report.faults[:_LISTED_FAULTS]
        ]
        print_table("Findings", ("case", "kind", "cause", "what was found", "data fix"), rows)


def _label_map(entries: list[str]) -> dict[int, int]:
    try:
        return {int(found): int(wanted) for found, wanted in (entry.split("=") for entry in entries)}
    except ValueError as error:
        raise ConfigError(f"--map-label {' '.join(entries)}: expected two whole numbers, as in 255=1") from error


def _fractions(text: str) -> dict[str, float]:
    try:
        return {part.strip(): float(value) for part, value in (entry.split("=") for entry in text.split(","))}
    except ValueError as error:
        raise ConfigError(f"--fractions {text}: expected part=fraction,... as in train=0.8,val=0.2") from error


def _require_all(failed: dict[str, str], verb: str) -> None:
    if failed:
        raise PartialFailure(f"{len(failed)} cases were not {verb}, e.g. {next(iter(failed))}; all are listed above")
