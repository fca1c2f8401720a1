"""`Dataset`: cases, task and splits of a folder in any layout, and the way to open one by path or by name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medmargin.datasets.case import Case
from medmargin.datasets.faults import Fault
from medmargin.datasets.layouts import manifest, msd, nnunet, npz
from medmargin.datasets.layouts.description import FILE_NAME, Object, read_description
from medmargin.datasets.layouts.listing import Listing
from medmargin.datasets.splits import Splits, make_folds, read_splits, refuse_leaks
from medmargin.datasets.task import Task
from medmargin.errors import ConfigError, DataError

DATA_VARIABLE = "MEDMARGIN_DATA"
SPLIT_FILES = ("splits.json", "splits_final.json")
_NUMBERED = re.compile(r"(?:Dataset(?P<number>\d{3})|Task(?P<task>\d{2}))_(?P<name>.+)")


@dataclass(frozen=True)
class Dataset:
    """An opened data set; voxels are read by `loading`, case by case.

    Attributes:
        folder: the folder, or the folder of the manifest.
        task: name, channels and structures.
        layout: "nnunet", "msd", "npz" or "manifest".
        cases: labelled training images.
        unlabelled_cases: training images without label.
        test_cases: images set apart for testing, labelled or not.
        splits: who trains, validates, calibrates and tests.
        faults: files that do not fit the layout; `check_dataset` reports them.
    """

    folder: Path
    task: Task
    layout: str
    cases: tuple[Case, ...]
    unlabelled_cases: tuple[Case, ...]
    test_cases: tuple[Case, ...]
    splits: Splits
    faults: tuple[Fault, ...] = ()

    @property
    def name(self) -> str:
        return self.task.name

    def split(self, name: str, fold: int = 0) -> tuple[Case, ...]:
        """Give the cases of one side of the split.

        Args:
            name: "train", "val", "calibration" or "test". Test cases of the layout (`imagesTs`) are the test side
                unless the split file lists another.
            fold: which fold, where there are several.

        Raises:
            DataError: this data set has no such side (the message lists those it has), the side names a case that does
                not exist, or one patient stands on two sides.
        """
        parts = self.parts(fold)
        if name not in parts:
            raise DataError(
                f"'{self.name}' has no split '{name}'; available: {', '.join(parts) or 'none'} ({self.splits.source}). "
                "Draw one with 'medmargin data split' and give it with --split"
            )
        if missing := [case for case in parts[name] if case not in self._by_name]:
            raise DataError(
                f"{self.splits.source}: '{name}' lists cases that '{self.name}' does not hold ({len(missing)}), e.g. "
                f"{missing[0]}; expected names such as {next(iter(self._by_name), 'none')}"
            )
        by_name = self._by_name
        known = {part: [by_name[case] for case in names if case in by_name] for part, names in parts.items()}
        refuse_leaks(known, source=f"'{self.name}' ({self.splits.source})")
        return tuple(known[name])

    def parts(self, fold: int = 0) -> dict[str, tuple[str, ...]]:
        """Give the case names of every side of the split of one fold."""
        parts = dict(self.splits.fold(fold)) if self.splits.folds else {}
        if self.test_cases:
            parts.setdefault("test", tuple(case.name for case in self.test_cases))
        return parts

    def fingerprint(self) -> dict[str, Any]:
        """Identify the data by the SHA-256 of every file that was read from; see `fingerprint.file_manifest`."""
        from medmargin.datasets.fingerprint import file_manifest

        return file_manifest(self)

    @cached_property
    def _by_name(self) -> dict[str, Case]:
        return {case.name: case for case in (*self.cases, *self.unlabelled_cases, *self.test_cases)}


def open_dataset(
    path_or_name: Path | str, *, split_file: Path | str | None = None, patient_pattern: str | None = None
) -> Dataset:
    """Open a data set.

    Args:
        path_or_name: a folder or CSV manifest, or the name of a folder under the environment variable MEDMARGIN_DATA:
            "Dataset004_Hippocampus", "Hippocampus" or "4".
        split_file: split to use; by default `splits.json` or `splits_final.json` of the folder, then what the layout
            states, then five folds by patient drawn with seed 0.
        patient_pattern: regular expression searched in each case name; its first group (or the whole match) is the
            patient. By default the patient comes from the column `patient` of the attributes, else each case is one.

    Raises:
        DataError: nothing is found (the message says what was looked for), or the layout's files are wrong.
        ConfigError: `patient_pattern` is no regular expression, or does not match a case.
    """
    path = _located(path_or_name)
    layout, listing = _listing(path)
    folder = path if path.is_dir() else path.parent
    cases, test_cases = listing.cases, listing.test_cases
    if patient_pattern is not None:
        cases, test_cases = (_regrouped(group, patient_pattern) for group in (cases, test_cases))
    labelled = tuple(case for case in cases if case.label is not None)
    return Dataset(
        folder=folder,
        task=listing.task,
        layout=layout,
        cases=labelled,
        unlabelled_cases=tuple(case for case in cases if case.label is None),
        test_cases=test_cases,
        splits=_splits(folder, split_file, listing, labelled),
        faults=listing.faults,
    )


def _located(path_or_name: Path | str) -> Path:
    """Find the folder or manifest; a path that exists wins over a name."""
    path = Path(path_or_name)
    if path.exists():
        return path
    looked_for = [f"the path {path}"]
    root = os.environ.get(DATA_VARIABLE)
    if root is None:
        looked_for.append(f"a name under {DATA_VARIABLE}, which is not set")
    else:
        found = [folder for folder in sorted(Path(root).glob("*")) if folder.is_dir() and _is_called(folder, path.name)]
        if len(found) == 1 and len(path.parts) == 1:
            return found[0]
        if len(found) > 1:
            raise DataError(f"'{path}' fits several data sets: {', '.join(map(str, found))}; give the folder")
        looked_for.append(f"a folder '{path}', 'DatasetNNN_{path}' or 'TaskNN_{path}' in {root} ({DATA_VARIABLE})")
    raise DataError(f"no data set '{path_or_name}': looked for {' and '.join(looked_for)}")


def _is_called(folder: Path, name: str) -> bool:
    match = _NUMBERED.fullmatch(folder.name)
    names = {folder.name.casefold()}
    if match:
        number = match["number"] or match["task"]
        names |= {match["name"].casefold(), number, str(int(number))}
    return name.casefold() in names


def _listing(path: Path) -> tuple[str, Listing]:
    """Recognise the layout and list the cases."""
    if path.is_file():
        if path.suffix.lower() != ".csv":
            raise DataError(f"{path}: not a data set; expected a folder or a CSV manifest")
        return "manifest", manifest.read(path)
    description = read_description(path / FILE_NAME, Object).root if (path / FILE_NAME).is_file() else {}
    if nnunet.matches(path, description):
        return "nnunet", nnunet.read(path)
    if msd.matches(description):
        return "msd", msd.read(path)
    if (path / manifest.FILE_NAME).is_file():
        return "manifest", manifest.read(path / manifest.FILE_NAME)
    if npz.matches(path):
        return "npz", npz.read(path)
    raise DataError(
        f"{path}: no data set layout recognised; looked for {FILE_NAME} with 'channel_names' and a folder imagesTr or "
        f"imagesTs (nnU-Net), {FILE_NAME} with 'training' and 'modality' (MSD), {manifest.FILE_NAME}, and *.npz files"
    )


def _regrouped(cases: tuple[Case, ...], pattern: str) -> tuple[Case, ...]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"patient pattern '{pattern}' is not a regular expression: {error}") from error
    regrouped = []
    for case in cases:
        match = compiled.search(case.name)
        if match is None:
            raise ConfigError(f"patient pattern '{pattern}' does not match the case '{case.name}'")
        regrouped.append(replace(case, patient=match[1] if compiled.groups else match[0]))
    return tuple(regrouped)


def _splits(folder: Path, split_file: Path | str | None, listing: Listing, labelled: tuple[Case, ...]) -> Splits:
    if split_file is not None:
        return read_splits(split_file)
    for name in SPLIT_FILES:
        if (folder / name).is_file():
            return read_splits(folder / name)
    if listing.splits is not None:
        return listing.splits
    return make_folds(labelled) if labelled else Splits((), "no labelled training case")
