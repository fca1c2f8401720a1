"""Who learns, who selects, who calibrates, who is tested: splits by patient, from a file or drawn from a seed.

Files are JSON: one split `{"train": [...], "val": [...], "calibration": [...], "test": [...]}` (any of the four), or a
list of such objects, one per fold (nnU-Net's `splits_final.json`). No patient may stand on two sides.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from medmargin.datasets.case import Case
from medmargin.errors import ConfigError, DataError
from medmargin.storage import write_json

PARTS = ("train", "val", "calibration", "test")
_CONTENT = TypeAdapter(list[dict[str, list[str]]] | dict[str, list[str]])


@dataclass(frozen=True)
class Splits:
    """The split of every fold.

    Attributes:
        folds: per fold, part name -> names of its cases.
        source: where it comes from, for reports: a file, or how it was drawn.
    """

    folds: tuple[Mapping[str, tuple[str, ...]], ...]
    source: str

    def fold(self, index: int) -> Mapping[str, tuple[str, ...]]:
        """Look up one fold.

        Raises:
            DataError: there is no such fold.
        """
        if not 0 <= index < len(self.folds):
            raise DataError(f"{self.source}: no fold {index}; it has {len(self.folds)} (counted from 0)")
        return self.folds[index]


def read_splits(path: Path | str) -> Splits:
    """Read a split file.

    Raises:
        DataError: not valid JSON of one of the two forms, an unknown part, or a case on two sides or twice on one.
    """
    path = Path(path)
    try:
        content = _CONTENT.validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot read the split file ({error.strerror})") from error
    except ValidationError as error:
        raise DataError(
            f'{path}: not a split file; expected {{"train": ["case", ...], "val": [...], ...}} or a list of such folds'
        ) from error
    folds = content if isinstance(content, list) else [content]
    for index, fold in enumerate(folds):
        _require_sound(f"{path}, fold {index}", fold)
    return Splits(tuple({part: tuple(names) for part, names in fold.items()} for fold in folds), str(path))


def write_splits(path: Path | str, splits: Splits) -> None:
    """Write a split file: one object for a single fold, otherwise a list of folds."""
    folds = [{part: list(names) for part, names in fold.items()} for fold in splits.folds]
    write_json(path, folds[0] if len(folds) == 1 else folds)


def make_folds(cases: Sequence[Case], *, folds: int = 5, seed: int = 0) -> Splits:
    """Draw folds for cross-validation: each patient is in the validation part of exactly one.

    With fewer patients than folds there are as many folds as patients; a single patient can only be trained on.

    Args:
        cases: labelled cases.
        folds: number of folds, at least 2.
    """
    if folds < 2:
        raise ConfigError(f"cross-validation needs at least 2 folds, found {folds}")
    names = [case.name for case in cases]
    folds = min(folds, len({case.patient for case in cases}))
    if folds < 2:
        return Splits(({"train": tuple(names)},), "a single patient: nothing to validate on")
    held_out = _drawn(cases, [1 / folds] * folds, seed)
    drawn = tuple({"train": tuple(n for n in names if n not in val), "val": val} for val in map(tuple, held_out))
    return Splits(drawn, f"drawn by patient: {folds} folds, seed {seed}")


def make_split(cases: Sequence[Case], *, fractions: Mapping[str, float], seed: int = 0) -> Splits:
    """Draw one split by patient.

    Args:
        cases: labelled cases.
        fractions: part name -> fraction of the cases, adding up to 1, e.g. {"train": 0.7, "val": 0.1, "test": 0.2}.

    Raises:
        ConfigError: unknown part, or fractions that are not positive or do not add up to 1.
        DataError: fewer patients than parts.
    """
    if unknown := set(fractions) - set(PARTS):
        raise ConfigError(f"unknown split {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}")
    if min(fractions.values(), default=0) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ConfigError(f"split fractions {dict(fractions)} must be positive and add up to 1")
    patients = len({case.patient for case in cases})
    if patients < len(fractions):
        raise DataError(f"{len(fractions)} parts need at least as many patients, found {patients}")
    drawn = zip(fractions, map(tuple, _drawn(cases, list(fractions.values()), seed)), strict=True)
    return Splits((dict(drawn),), f"drawn by patient: {dict(fractions)}, seed {seed}")


def refuse_leaks(parts: Mapping[str, Sequence[Case]], *, source: str) -> None:
    """Refuse a split in which one patient stands on two sides.

    Raises:
        DataError: names the patients, their cases and the two sides.
    """
    patients = {part: {case.patient: case.name for case in cases} for part, cases in parts.items()}
    for one, other in combinations(patients, 2):
        if shared := sorted(set(patients[one]) & set(patients[other])):
            shown = ", ".join(f"{p} ({patients[one][p]}, {patients[other][p]})" for p in shared[:5])
            raise DataError(
                f"{source}: '{one}' and '{other}' share patients ({len(shared)}): {shown}. Results would look "
                "better than they are; move all cases of a patient to one side or draw a split: 'medmargin data split'"
            )


def _require_sound(where: str, fold: Mapping[str, Sequence[str]]) -> None:
    if unknown := set(fold) - set(PARTS):
        raise DataError(f"{where}: unknown part {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}")
    counts = Counter(name for names in fold.values() for name in names)
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise DataError(f"{where}: cases are listed twice ({len(repeated)}), e.g. {repeated[0]}; a case has one side")


def _drawn(cases: Sequence[Case], fractions: Sequence[float], seed: int) -> list[list[str]]:
    """Deal shuffled patients, each time to the part that lacks most cases; every part gets at least one patient."""
    by_patient: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        by_patient[case.patient].append(case.name)
    patients = sorted(by_patient)
    np.random.default_rng(seed).shuffle(patients)
    parts: list[list[str]] = [[] for _ in fractions]
    for position, patient in enumerate(patients):
        empty = [index for index, part in enumerate(parts) if not part]
        lacking = [fraction * len(cases) - len(part) for fraction, part in zip(fractions, parts, strict=True)]
        waiting = empty if len(patients) - position <= len(empty) else range(len(parts))
        parts[max(waiting, key=lambda index: lacking[index])] += by_patient[patient]
    return [sorted(part) for part in parts]
