"""Predictions of the cases that a run was validated on: made once, kept as small label maps while they are needed."""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.case import Case
from medmargin.datasets.dataset import Dataset
from medmargin.datasets.loading import load_case
from medmargin.datasets.task import Task
from medmargin.errors import ConfigError, DataError
from medmargin.evaluation.ignored import cleared
from medmargin.evaluation.overlap import dice
from medmargin.inference.segmentation import NO_PROMPTS
from medmargin.runs import Run
from medmargin.storage import atomic_path, sha256
from medmargin.uncertainty.boxes import box_around
from medmargin.workflows.evaluate import refuse_other_structures
from medmargin.workflows.model import Model, load

Done = Callable[[str], None]
_MARGIN = 1  # voxels around what is labelled, so that nothing that can be told from the outside touches the border


@dataclass(frozen=True)
class HeldOut:
    """A case that a run has not learned from, within the box of what is true or predicted in it.

    Attributes:
        truth, labels: values [i, j, k] of the task, `ignore` in the truth too.
        seconds: the prediction took.
    """

    truth: NDArray[Any]
    labels: NDArray[Any]
    seconds: float

    def dice(self, task: Task) -> dict[str, float]:
        """Structure -> Dice; 1 where it is neither there nor predicted."""
        (truth,), labels, _ = cleared((self.truth,), self.labels, task.ignore)
        return {name: dice(task.mask(truth, name), task.mask(labels, name)) for name in task.structures}


@dataclass(frozen=True)
class StoredAnswer:
    """A held-out case on disk.

    Attributes:
        case: of the data set. file: where its label maps are.
    """

    case: Case
    file: Path

    def read(self) -> HeldOut:
        """Read it back."""
        with np.load(self.file, allow_pickle=False) as stored:
            return HeldOut(stored["truth"], stored["labels"], float(stored["seconds"]))


def validation_cases(run: Run, data: Dataset) -> tuple[Case, ...]:
    """Give the cases that a run was validated on and has not learned from.

    Raises:
        ConfigError: the run was trained on another data set. DataError: it has no such cases, or the data lack one.
    """
    about = run.config.data
    if about.get("name") != data.name:
        raise ConfigError(f"{run.folder}: trained on '{about.get('name')}', not on '{data.name}'. Give its data set.")
    held = {case.name: case for case in (*data.cases, *data.test_cases)}
    names = [name for name in about.get("val", ()) if name not in set(about.get("train", ()))]
    if not names:
        raise DataError(f"{run.folder}: no case was held out for validation, so nothing can be chosen by it")
    if missing := [name for name in names if name not in held]:
        raise DataError(f"{run.folder}: validated on '{missing[0]}', which '{data.name}' does not hold with a label")
    return tuple(held[name] for name in names)


def predict_held_out(
    run: Run, data: Dataset, folder: Path, *, memory: int | None = None, done: Done | None = None
) -> tuple[StoredAnswer, ...]:
    """Predict a run's own validation cases, without rules and calibration; what `folder` holds already is taken.

    Args:
        memory: see `load`. done: called with the name of every case that is finished.

    Raises:
        ConfigError, DataError: see `validation_cases`, or a case cannot be predicted. BudgetError: not enough memory.
    """
    cases = validation_cases(run, data)
    weights = sha256(run.paths.weights)
    files = [folder / f"{_key(weights, case)}.npz" for case in cases]
    model: Model | None = None
    for case, file in zip(cases, files, strict=True):
        if not _is_whole(file):
            model = model or _model(run, data.task, memory)
            _predict(model, case, data.task, file)
        if done is not None:
            done(case.name)
    return tuple(StoredAnswer(case, file) for case, file in zip(cases, files, strict=True))


def _model(run: Run, task: Task, memory: int | None) -> Model:
    model = load(run.folder, memory=memory, calibrated=False)
    refuse_other_structures(model, task)
    if hasattr(model.predictor, "rules"):
        model.predictor.rules = ()
    return model


def _predict(model: Model, case: Case, task: Task, file: Path) -> None:
    image, label = load_case(case, task)
    if label is None:
        raise DataError(f"case '{case.name}' has no label to measure against")
    began = time.perf_counter()
    answer = model.predictor.predict(image, [], labels=task.structures, prompts_source=NO_PROMPTS, probabilities=False)
    seconds = time.perf_counter() - began
    truth = label.voxels[0]
    box = _box((truth != 0) | (answer.labels != 0))
    with atomic_path(file) as temporary:
        np.savez_compressed(temporary, truth=truth[box], labels=answer.labels[box], seconds=seconds)


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Give the box around a mask and a margin; of an empty one the first voxels."""
    return box_around(mask, (_MARGIN,) * mask.ndim) or (slice(0, 1 + _MARGIN),) * mask.ndim


def _key(weights: str, case: Case) -> str:
    """Name an answer by what it depends on: the weights, and the files of the case with their sizes and times."""
    return hashlib.sha256(repr((weights, case.name, case.stamps())).encode()).hexdigest()[:32]


def _is_whole(file: Path) -> bool:
    return file.exists() and zipfile.is_zipfile(file)
