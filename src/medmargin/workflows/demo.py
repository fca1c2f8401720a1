"""The whole journey: a data set is checked, U-MedSAM trained, unseen patients segmented, measured and shown."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmargin.datasets.check import check_dataset
from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.phantoms import write_phantom_dataset
from medmargin.errors import ConfigError, DataError
from medmargin.workflows.evaluate import evaluate
from medmargin.workflows.predict import predict
from medmargin.workflows.train import train

_MARKER = "medmargin-demo"


@dataclass(frozen=True)
class DemoOutcome:
    """What a demo leaves: the run, the report, and the answer of the evaluation."""

    run: Path
    report: Path
    answer: dict[str, Any]


def demo(
    data: str | None, out: Path, *, minutes: float = 2.0, seed: int = 0, say: Callable[[str], None]
) -> DemoOutcome:
    """Run the whole journey.

    Args:
        data: a data set, or None for the embedded phantom.
        out: folder of everything; an earlier demo in it is replaced, anything else is never touched.
        minutes: of training. seed: of every random choice.
        say: called with one sentence before each leg of the journey.

    Raises:
        ConfigError: `out` holds something that is not an earlier demo.
        DataError: the data set has unusable cases.
    """
    _clear(out)
    if data is None:
        say("1/5 making the embedded data set: 3-D phantom organs whose true uncertainty is known")
        data = str(write_phantom_dataset(out / "Dataset900_Phantom", dims=3, seed=seed))
    say(f"2/5 checking {data}")
    opened = open_dataset(data)
    found = check_dataset(opened)
    if found.errors:
        raise DataError(f"{data}: {len(found.errors)} faults; see them with: medmargin data check {data}")
    run, side = out / "run", "test" if any(case.label for case in opened.test_cases) else "val"
    say(f"3/5 training U-MedSAM at laptop scale for {minutes:g} minutes")
    train("u-medsam", data, run=run, minutes=minutes, seed=seed, scale="laptop")
    say(f"4/5 segmenting the patients of '{side}', which were not trained on")
    labels = {case.label.parent for case in opened.split(side) if case.label is not None}
    predict(run, [data], out / "predictions", prompts_from=labels.pop(), split=side)
    say("5/5 measuring, and writing the report")
    report = out / "report.html"
    answer = evaluate(run, data, split=side, report=report)
    return DemoOutcome(run, report, answer)


def _clear(out: Path) -> None:
    marker = out / f".{_MARKER}"
    if out.exists() and any(out.iterdir()):
        if not marker.exists():
            raise ConfigError(f"{out} is not empty and not an earlier demo: choose another folder with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text("folder of a medmargin demo: the next one replaces it\n", encoding="utf-8")
