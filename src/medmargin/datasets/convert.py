"""One layout into another: images, labels, patients, attributes and splits; grids and voxel values stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medmargin.datasets.dataset import Dataset
from medmargin.datasets.layouts.writers import WRITERS
from medmargin.datasets.loading import load_case
from medmargin.datasets.new_folder import new_folder
from medmargin.errors import ConfigError, DataError


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        folder: the new data set.
        written: names of the cases in it.
        failed: case name -> why it could not be converted.
        left_out: what the new layout has no place for, one sentence each.
    """

    folder: Path
    written: tuple[str, ...]
    failed: dict[str, str]
    left_out: tuple[str, ...]


def convert_dataset(
    dataset: Dataset, target: Path | str, layout: str, *, progress: Callable[[int, int], None] | None = None
) -> ConversionReport:
    """Write a data set anew in another layout.

    Args:
        target: folder to make; it must not exist, or be empty.
        layout: "nnunet", "msd", "npz" or "manifest".
        progress: called with (cases done, cases in all).

    Returns:
        What was written; a case that cannot be read is named there and does not stop the others.

    Raises:
        ConfigError: unknown layout, one that cannot hold this data set, or `target` holds something.
        DataError: no case could be converted.
        BudgetError: the disk is full; nothing is left behind then.
    """
    if layout not in WRITERS:
        raise ConfigError(f"unknown layout '{layout}'; expected one of {', '.join(WRITERS)}")
    cases = [(case, False) for case in (*dataset.cases, *dataset.unlabelled_cases)]
    cases += [(case, True) for case in dataset.test_cases]
    failed: dict[str, str] = {}
    with new_folder(target) as folder:
        writer = WRITERS[layout](folder, dataset.task)
        for done, (case, is_test) in enumerate(cases, start=1):
            try:
                writer.add(case, *load_case(case, dataset.task), is_test=is_test)
            except DataError as error:
                failed[case.name] = str(error)
            if progress is not None:
                progress(done, len(cases))
        if len(failed) == len(cases):
            reason = next(iter(failed.values()), "it has no case")
            raise DataError(f"'{dataset.name}': none of {len(cases)} cases could be converted: {reason}")
        writer.finish(dataset.splits)
    written = tuple(case.name for case, _ in cases if case.name not in failed)
    return ConversionReport(Path(target), written, failed, _left_out(dataset, layout))


def _left_out(dataset: Dataset, layout: str) -> tuple[str, ...]:
    cases = (*dataset.cases, *dataset.unlabelled_cases, *dataset.test_cases)
    losses = {
        "labels of further raters": any(case.raters for case in cases),
        "scribbles": any(case.scribbles for case in cases),
        "texts": layout in ("msd", "npz") and any(case.text for case in cases),
        "origin and orientation (the spacing is kept), and intensities beyond 8 bits": layout == "npz"
        and dataset.task.dims == 3
        and dataset.layout != "npz",
    }
    return tuple(what for what, applies in losses.items() if applies)
