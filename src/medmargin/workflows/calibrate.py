"""Calibrate: from held-out patients to probabilities, regions, volumes and a trust in whole cases that hold.

The patients are halved by a seeded draw. The first half fits the rescaling of the probabilities; answers are then taken
again, rescaled, and the second half gives the guarantees, the predicted Dice and the figures before and after. With too
few patients for two halves all of them do both, which the record says (`patients.shared`). What even all of them cannot
carry is refused by name, with the number needed, and the rest is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.case import Case
from medmargin.datasets.dataset import Dataset, open_dataset
from medmargin.datasets.loading import load_case
from medmargin.datasets.task import Task
from medmargin.errors import ConfigError, DataError, ToolkitError
from medmargin.inference.budget import parse_memory
from medmargin.inference.segmentation import NO_PROMPTS, PROMPTS_FROM_LABELS, Segmentation
from medmargin.inference.trust import Trust, write_trust
from medmargin.networks.starting_points import SHIPPED
from medmargin.runs import Run, read_run
from medmargin.storage import atomic_path
from medmargin.uncertainty.calibration import Calibration, Patients, Unchanged, patients_needed, write_calibration
from medmargin.uncertainty.trust import OutOfDistribution
from medmargin.workflows.calibrated import estimator_name, weights_of
from medmargin.workflows.evaluate import answered, refuse_other_structures
from medmargin.workflows.guarantee_fit import FigureCounter, GuaranteeFit, recorded
from medmargin.workflows.model import Model, find_run, for_task, load
from medmargin.workflows.rescaling_fit import RescalingFit
from medmargin.workflows.true_prompts import require_boxes
from medmargin.workflows.trust import training_reference

Progress = Callable[[int, int, str], None]
_FEWEST = 2
_LONG = ("cases", "held_out_band_nll")  # parts of the record that the answer gives elsewhere or leaves out


class Halves(NamedTuple):
    """Patients that fit the rescaling, and those that give the guarantees."""

    rescaling: tuple[str, ...]
    guarantees: tuple[str, ...]

    @property
    def shared(self) -> bool:
        """Whether some do both."""
        return not set(self.rescaling).isdisjoint(self.guarantees)


class Answer(NamedTuple):
    """A case with its true labels and its answer."""

    case: Case
    truth: NDArray[Any]
    answer: Segmentation


def calibrate(
    run: Path | str,
    dataset: Path | str,
    *,
    split: str = "calibration",
    split_file: Path | str | None = None,
    fold: int = 0,
    level: float = 0.9,
    uncertainty: str | None = None,
    members: Sequence[Path | str] = (),
    local: bool = False,
    seed: int = 0,
    memory: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Calibrate a run on patients it has not seen, and write `calibration.json` and `trust.json` into it.

    Args:
        run: run folder. A promptable one is asked with prompts from the labels, and holds for prompts as good as those.
        dataset: folder in any layout, or name under MEDMARGIN_DATA.
        split: which side of the split; split_file, fold: see `open_dataset`.
        level: of regions, distances, volumes and the bound of the Dice, in (0, 1).
        uncertainty, members: see `load`; the calibration holds for this estimator alone.
        local: also try a temperature per pixel.
        seed: of the draw of the halves and of voxels.
        memory: such as "4G".
        progress: called with (predictions done, all predictions, case).

    Returns:
        The files, the patients, the rescaling chosen, figures before and after, what is guaranteed and what is refused.

    Raises:
        DataError: no such split, patients the run has learned from, or too few to give anything.
        ConfigError: a level out of range, weights that ship with the package, or `local` for a promptable system.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level {level}: expected a number between 0 and 1, for example 0.9")
    folder = find_run(run)
    _refuse_shipped(folder)
    limit = parse_memory(memory) if memory else None
    data = open_dataset(dataset, split_file=split_file)
    model = load(run, memory=limit, uncertainty=uncertainty, members=members, calibrated=False)
    model = for_task(model, data.task)
    refuse_other_structures(model, data.task)
    if not model.automatic:
        require_boxes(data.task, to="calibrate")
    if local and not _exclusive(model, data.task):
        raise ConfigError(
            "--local: a temperature per pixel needs classes that exclude each other, not prompts or regions"
        )
    model.predictor.level = level
    cases = data.split(split, fold)
    _refuse_seen(model.run, data, cases)
    names = sorted({case.patient for case in cases})
    halves = halve(names, level=level, seed=seed)
    journey = _Journey(model, data, cases, halves, level, local, seed, progress)
    calibration, trust, answer = journey.result(
        source={
            "name": data.name,
            "sha256": data.fingerprint()["sha256"],
            "split": split,
            "fold": fold,
            "seed": seed,
            "prompts": NO_PROMPTS if model.automatic else PROMPTS_FROM_LABELS,
            "weights": weights_of(model.run, [read_run(find_run(member)) for member in members]),
        }
    )
    paths = model.run.paths
    with atomic_path(paths.calibration) as first, atomic_path(paths.trust) as second:  # both, or none
        write_calibration(first, calibration)
        write_trust(second, trust)
    return {"run": str(folder), "calibration": str(paths.calibration), "trust": str(paths.trust), **answer}


def halve(patients: Sequence[str], *, level: float, seed: int) -> Halves:
    """Draw two halves; all patients are in both where a half could not carry a guarantee at the level.

    Raises:
        DataError: a single patient, or none.
    """
    needed = patients_needed(round(1 - level, 12))
    if len(patients) < _FEWEST:
        raise DataError(
            f"{len(patients)} patients to calibrate on: at least {_FEWEST} are needed to choose a rescaling, "
            f"{needed} to guarantee anything at level {level:g}, and {2 * needed} to keep the two apart"
        )
    drawn = tuple(np.random.default_rng(seed).permutation(np.asarray(patients)).tolist())
    half = len(drawn) // 2
    return Halves(drawn, drawn) if half < needed else Halves(drawn[:half], drawn[half:])


class _Journey:
    """One calibration: the cases are predicted once as they come, and those of the guarantees once more, rescaled."""

    def __init__(
        self,
        model: Model,
        data: Dataset,
        cases: Sequence[Case],
        halves: Halves,
        level: float,
        local: bool,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.model, self.data, self.cases, self.halves = model, data, cases, halves
        self.level, self.local, self.seed = level, local, seed
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.used: dict[str, list[str]] = {"rescaling": [], "guarantees": []}
        self._progress, self._done = progress, 0
        self._total = len(cases) + sum(case.patient in halves.guarantees for case in cases)

    @property
    def structures(self) -> tuple[str, ...]:
        """Names, in the order of the probability maps where the classes exclude each other."""
        return tuple(getattr(self.model.predictor, "structures", self.data.task.structures))

    def result(self, *, source: dict[str, Any]) -> tuple[Calibration, Trust, dict[str, Any]]:
        """Fit everything; `source` says what the calibration data are."""
        rescalings, held_out, before = self._rescalings()
        exclusive = _exclusive(self.model, self.data.task)
        estimator = estimator_name(self.model.predictor)
        draft = Calibration(
            level=self.level, estimator=estimator, structures=self.structures, exclusive=exclusive,
            rescalings=tuple(rescalings), data={},
            patients=Patients(rescaling=0, guarantees=0, shared=self.halves.shared),
        )  # fmt: skip
        fit, after = self._guarantees(draft)
        guarantees, refused = fit.guarantees()
        predicted_dice, no_dice = fit.predicted_dice()
        nothing = all(isinstance(each, Unchanged) for each in rescalings) and predicted_dice is None
        if nothing and not any(kind for each in guarantees.values() for kind in each.model_dump().values()):
            raise DataError("; ".join(["calibration can give nothing", *refused.values(), no_dice]))
        by_name = {case.name: case.patient for case in self.cases}
        patients = {side: {by_name[case] for case in used} for side, used in self.used.items()}
        calibration = draft.model_copy(
            update={
                "guarantees": guarantees,
                "refused": refused,
                "patients": Patients(
                    rescaling=len(patients["rescaling"]),
                    guarantees=len(patients["guarantees"]),
                    shared=self.halves.shared,
                ),
                "data": {**source, "cases": self.used, "held_out_band_nll": held_out},
                "before": recorded(before),
                "after": recorded(after),
            }
        )
        reference, no_reference = training_reference(self.model, self.data)
        trust = Trust(
            level=self.level,
            modality=self.data.task.modality,
            predicted_dice=predicted_dice,
            out_of_distribution=reference,
            reasons={
                name: reason
                for name, reason in (("predicted_dice", no_dice), ("out_of_distribution", no_reference))
                if reason
            },
        )
        return calibration, trust, self._answer(calibration, trust, before, after)

    def _rescalings(self) -> tuple[list[Any], dict[str, dict[str, float]], dict[str, Any]]:
        """Predict all cases as they come: the rescalings, what each candidate reached, and the figures before."""
        task = self.data.task
        fit = RescalingFit(
            self.structures, self.halves.rescaling, task, exclusive=_exclusive(self.model, task), local=self.local,
            seed=self.seed,
        )  # fmt: skip
        counter = FigureCounter(task)
        for case, truth, answer in self._answers(self.cases):
            if case.patient in self.halves.rescaling:
                fit.add(case.name, case.patient, answer, truth, self.model.predictor.normalise)
                self.used["rescaling"].append(case.name)
            if case.patient in self.halves.guarantees:
                counter.add(answer, truth)
        if not self.used["rescaling"]:
            reasons = {**self.failed, **self.skipped}
            first = next((f"{case}: {reason}" for case, reason in reasons.items()), "the split is empty")
            raise DataError(f"no case to fit a rescaling on. The first: {first}")
        rescalings, held_out = fit.choose()
        return rescalings, held_out, counter.figures()

    def _guarantees(self, draft: Calibration) -> tuple[GuaranteeFit, dict[str, Any]]:
        """Predict the cases of the guarantees again, rescaled: what they carry, and the figures after."""
        fit = GuaranteeFit(self.structures, self.data.task, level=self.level)
        counter = FigureCounter(self.data.task)
        chosen = [case for case in self.cases if case.patient in self.halves.guarantees]
        predictor = self.model.predictor
        predictor.calibration = draft
        try:
            for case, truth, answer in self._answers(chosen):
                fit.add(case.name, case.patient, answer, truth)
                counter.add(answer, truth)
                self.used["guarantees"].append(case.name)
        finally:
            predictor.calibration = None
        return fit, counter.figures()

    def _answers(self, cases: Sequence[Case]) -> Iterator[Answer]:
        """Predict cases one after the other; those that cannot be used are listed."""
        for case in cases:
            if self._progress is not None:
                self._progress(self._done, self._total, case.name)
            self._done += 1
            if case.name in self.failed or case.name in self.skipped:
                continue
            try:
                image, label = load_case(case, self.data.task)
                if label is None:
                    raise DataError(f"case '{case.name}' has no label to calibrate on")
                answer = answered(self.model, image, label, self.data.task, prompted=not self.model.automatic)
            except (ToolkitError, OSError, MemoryError) as error:
                self.failed[case.name] = f"{type(error).__name__}: {error}"
                continue
            if answer is None:
                self.skipped[case.name] = "nothing is labelled, so there was nothing to prompt for"
                continue
            yield Answer(case, label.voxels[0], answer)

    def _answer(
        self, calibration: Calibration, trust: Trust, before: dict[str, Any], after: dict[str, Any]
    ) -> dict[str, Any]:
        names = ["all classes"] if calibration.exclusive else list(calibration.structures)
        held_out = calibration.data["held_out_band_nll"]
        needed = patients_needed(round(1 - self.level, 12))
        return {
            "level": self.level,
            "estimator": calibration.estimator,
            "data": {key: value for key, value in calibration.data.items() if key not in _LONG},
            "patients": {**calibration.patients.model_dump(), "needed_for_a_guarantee": needed},
            "rescaling": {
                name: {**rescaling.model_dump(mode="json", exclude={"weights"}), "held_out_band_nll": held_out[name]}
                for name, rescaling in zip(names, calibration.rescalings, strict=True)
            },
            "before": before,
            "after": after,
            "guarantees": {name: each.model_dump(mode="json") for name, each in calibration.guarantees.items()},
            "refused": calibration.refused,
            "predicted_dice": _dice_models(trust),
            "out_of_distribution": None if trust.out_of_distribution is None else _reference(trust.out_of_distribution),
            **{f"{name}_reason": reason for name, reason in trust.reasons.items()},
            "skipped": [{"case": case, "reason": reason} for case, reason in self.skipped.items()],
            "failed": [{"case": case, "error": error} for case, error in self.failed.items()],
        }


def _exclusive(model: Model, task: Task) -> bool:
    """Tell whether one voxel has one class, so that all probabilities are rescaled together."""
    return model.automatic and not task.regions


def _dice_models(trust: Trust) -> dict[str, Any] | None:
    if trust.predicted_dice is None:
        return None
    pooled = trust.predicted_dice.pooled
    fits = {name: trust.predicted_dice.structures.get(name, pooled) for name in trust.predicted_dice.names}
    return {name: {"model": fit.chosen, "patients": fit.patients} for name, fit in fits.items()}


def _reference(reference: OutOfDistribution) -> dict[str, Any]:
    """Say how many patients images are compared with, and the groups of features compared."""
    return {"patients": len(next(iter(reference.distances.values()))), "groups": list(reference.distances)}


def _refuse_shipped(folder: Path) -> None:
    if SHIPPED in folder.resolve().parents:
        raise ConfigError(
            f"{folder.name}: the weights that ship with the package cannot hold a calibration. Copy their folder "
            f"({folder}) and calibrate the copy."
        )


def _refuse_seen(run: Run, data: Dataset, cases: Sequence[Case]) -> None:
    """Refuse patients that the run has learned from or was selected on."""
    for side, verb in (("train", "was trained"), ("val", "was selected")):
        names = set(run.config.data.get(side, ()))
        everyone = (*data.cases, *data.unlabelled_cases, *data.test_cases)
        patients = {case.patient for case in everyone if case.name in names}
        if seen := sorted({case.patient for case in cases if case.name in names or case.patient in patients}):
            listed = ", ".join(seen[:5]) + (" ..." if len(seen) > 5 else "")
            raise DataError(
                f"{run.folder} {verb} on {len(seen)} of these patients ({listed}): calibrated on them it would promise "
                "too much. Calibrate on patients it has not seen: another --split, or a --split-file with such a side."
            )
