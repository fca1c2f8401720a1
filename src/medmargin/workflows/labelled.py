"""A subset of the training cases whose labels are used, for learning from few labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medmargin.datasets.case import Case
from medmargin.errors import ConfigError, DataError


def labelled_subset(cases: Sequence[Case], labelled: str | float | Path | None, *, seed: int) -> tuple[Case, ...]:
    """Choose the cases whose labels are used.

    Args:
        cases: the training cases.
        labelled: None for all; a share of the patients in (0, 1]; or a file of case names, as lines or a JSON list.
        seed: of the choice of patients; a larger share holds every smaller one.

    Raises:
        ConfigError: a share out of range. DataError: the file cannot be read or names cases that are not there.
    """
    if labelled is None:
        return tuple(cases)
    share = _share(labelled)
    if share is not None:
        if not 0 < share <= 1:
            raise ConfigError(f"--labelled {labelled}: expected a share above 0 and up to 1, or a file of case names")
        patients = sorted({case.patient for case in cases})
        np.random.default_rng(seed).shuffle(patients)
        chosen = set(patients[: max(1, round(share * len(patients)))])
        return tuple(case for case in cases if case.patient in chosen)
    names = _names(Path(str(labelled)))
    known = {case.name: case for case in cases}
    if strange := [name for name in names if name not in known]:
        raise DataError(f"{labelled}: {len(strange)} cases are not training cases of this fold, e.g. {strange[0]}")
    return tuple(known[name] for name in names)


def _share(labelled: str | float | Path) -> float | None:
    try:
        return float(labelled)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _names(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a file of case names") from error
    if path.suffix == ".json":
        names = json.loads(text)
        if not isinstance(names, list):
            raise DataError(f"{path}: expected a JSON list of case names")
        return [str(name) for name in names]
    return [line.strip() for line in text.splitlines() if line.strip()]
