"""Read a whole data set and report every fault, case by case, instead of stopping at the first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medmargin.datasets.case_check import CaseFindings, examine_case
from medmargin.datasets.dataset import Dataset, open_dataset
from medmargin.datasets.faults import CheckReport, Fault, sorted_faults
from medmargin.errors import DataError

WORKERS = 2
_SHOWN = 5
Progress = Callable[[int, int], None]  # (cases read, cases in all)


def check_dataset(dataset: Dataset | Path | str, *, progress: Progress | None = None) -> CheckReport:
    """Check every image and label of a data set, and what holds only between cases.

    Args:
        dataset: an open data set, or what `open_dataset` takes.
        progress: called after each case with the number of cases read and the total.

    Returns:
        Faults of kind "E" make a case (or the set) unusable, those of kind "W" deserve a look.

    Raises:
        DataError: the data set cannot be opened at all.
    """
    if not isinstance(dataset, Dataset):
        dataset = open_dataset(dataset)
    cases = (*dataset.cases, *dataset.unlabelled_cases, *dataset.test_cases)
    findings = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for found in pool.map(lambda case: examine_case(case, dataset.task), cases):
            findings.append(found)
            if progress is not None:
                progress(len(findings), len(cases))
    training = findings[: len(dataset.cases)]
    faults = [
        *dataset.faults,
        *(fault for found in findings for fault in found.faults),
        *_empty_set(dataset),
        *_absent_structures(dataset, training),
        *_unknown_spacing(dataset),
        *_split_faults(dataset),
        *_duplicates(dataset, findings),
    ]
    usable = [found.voxels for found in training if found.voxels is not None]
    return CheckReport(
        dataset=dataset.name,
        cases=len(cases),
        structures={name: sum(voxels[name] > 0 for voxels in usable) for name in dataset.task.structures},
        empty_labels=sum(not any(voxels.values()) for voxels in usable),
        faults=sorted_faults(faults),
    )


def _empty_set(dataset: Dataset) -> Iterable[Fault]:
    if not (dataset.cases or dataset.unlabelled_cases or dataset.test_cases):
        yield Fault("E", "no-cases", None, f"{dataset.folder}: no image found in this {dataset.layout} data set")


def _absent_structures(dataset: Dataset, training: Sequence[CaseFindings]) -> Iterable[Fault]:
    """Report structures that no training case holds, out of the labels that could be read."""
    usable = [found.voxels for found in training if found.voxels is not None]
    absent = [name for name in dataset.task.structures if not any(voxels[name] for voxels in usable)]
    if usable and len(absent) == len(dataset.task.structures):
        message = f"all {len(usable)} training labels are empty; nothing can be learned from them"
        yield Fault("E", "labels-empty", None, message)
    elif usable and absent:
        message = f"no training case holds {', '.join(absent)}; add cases, or remove the structure from the description"
        yield Fault("E", "structure-absent", None, message)


def _unknown_spacing(dataset: Dataset) -> Iterable[Fault]:
    if dataset.task.dims == 3 and dataset.task.unit == "px":
        message = "the voxel size is unknown; distances are given in voxels and volumes not at all"
        yield Fault("W", "spacing-unknown", None, message)


def _split_faults(dataset: Dataset) -> Iterable[Fault]:
    """Report patients on two sides, and names no case has; the first fold that fails is enough."""
    for fold in _folds(dataset):
        for part in dataset.parts(fold):
            try:
                dataset.split(part, fold)
            except DataError as error:
                yield Fault("E", "split", None, f"fold {fold}: {error}")
                return


def _duplicates(dataset: Dataset, findings: Sequence[CaseFindings]) -> Iterable[Fault]:
    """Report images that occur twice; on two sides of a split they make its results worthless."""
    groups: dict[str, list[str]] = defaultdict(list)
    for found in findings:
        if found.content is not None:
            groups[found.content].append(found.case)
    for names in groups.values():
        if len(names) == 1:
            continue
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        fold = next((fold for fold in _folds(dataset) if _is_divided(dataset, names, fold)), None)
        if fold is None:
            yield Fault("W", "duplicate", names[0], f"the same image under several names: {shown}; keep one")
        else:
            message = f"the same image on two sides of the split (fold {fold}): {shown}; keep one, or draw a new split"
            yield Fault("E", "duplicate", names[0], message)


def _folds(dataset: Dataset) -> range:
    """Number the folds; a data set without any still has its test side."""
    return range(max(len(dataset.splits.folds), 1))


def _is_divided(dataset: Dataset, names: Sequence[str], fold: int) -> bool:
    sides = {part for part, members in dataset.parts(fold).items() if not set(members).isdisjoint(names)}
    return len(sides) > 1
