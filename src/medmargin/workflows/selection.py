"""Which of several ways of training does best on patients it has not learned from: cross-validation, paired by patient.

Isensee et al. 2021 (doi:10.1038/s41592-020-01008-z): every run predicts the validation cases of its own fold, and the
configuration with the highest mean Dice is taken. Deviations: a patient counts once, however many cases there are of
one; pairs of configurations are not tried, because members on different grids are not averaged here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.task import Task
from medmargin.errors import DataError
from medmargin.evaluation.paired_statistics import paired_difference
from medmargin.evaluation.statistics import patient_interval
from medmargin.runs import Run
from medmargin.workflows.held_out import StoredAnswer

_DECIMALS = 4  # means that agree so far are equal, and the cheaper candidate is taken


@dataclass(frozen=True)
class Candidate:
    """Runs that differ in fold and seed only.

    Attributes:
        name: by which the user knows them. runs: at least one. task: of the first.
    """

    name: str
    runs: tuple[Run, ...]
    task: Task

    @property
    def weights(self) -> int:
        """Number of weights of one member: what it costs to ask."""
        return int(self.runs[0].config.built.get("weights", 0))

    def described(self) -> dict[str, Any]:
        """Say who it is."""
        config = self.runs[0].config
        return {
            "name": self.name,
            "system": config.system,
            "configuration": None if self.task.plan is None else self.task.plan.chosen,
            "weights": self.weights,
            "members": [str(run.folder) for run in self.runs],
        }


def select(
    candidates: Sequence[Candidate], answers: Mapping[str, Sequence[StoredAnswer]], task: Task
) -> dict[str, Any]:
    """Compare candidates on the cases that all of them were validated on.

    Args:
        candidates: with different names. answers: name -> held-out predictions of all its runs; where several runs
            predicted a case, it counts with their mean.
        task: of the data set.

    Returns:
        The content of `selection.json`: figures of each candidate, differences to the chosen one, `chosen`, `reason`.

    Raises:
        DataError: they have no case in common.
    """
    scores = {each.name: _scores(answers[each.name], task) for each in candidates}
    common = [case for case in next(iter(scores.values())) if all(case in found for found in scores.values())]
    if not common:
        raise DataError("the candidates were validated on different cases: train them on the same folds")
    patients = {stored.case.name: stored.case.patient for found in answers.values() for stored in found}
    owners = [patients[case] for case in common]
    means = {name: _patient_means(found, common, owners, task) for name, found in scores.items()}  # [P, S]
    figures = [each.described() | _figures(means[each.name], answers[each.name], task) for each in candidates]
    ranked = sorted(figures, key=lambda found: (-round(found["dice"]["mean"], _DECIMALS), found["weights"]))
    best = ranked[0]["name"]
    pairs = [
        {"first": best, "second": other, **paired_difference(means[best].mean(axis=1), means[other].mean(axis=1))}
        for other in (found["name"] for found in ranked[1:])
    ]
    return {
        "measure": "mean Dice over patients and structures, of cases that the member was not trained on",
        "cases": len(common),
        "patients": len(set(owners)),
        "left_out": sorted({case for found in scores.values() for case in found} - set(common)),
        "candidates": figures,
        "differences": pairs,
        "chosen": best,
        "reason": _reason(ranked),
    }


def _scores(answers: Sequence[StoredAnswer], task: Task) -> dict[str, dict[str, float]]:
    """Case -> structure -> Dice, the mean over the runs that predicted the case."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for stored in answers:
        found[stored.case.name].append(stored.read().dice(task))
    return {
        case: {name: float(np.mean([dice[name] for dice in several])) for name in task.structures}
        for case, several in found.items()
    }


def _figures(scores: NDArray[np.float64], answers: Sequence[StoredAnswer], task: Task) -> dict[str, Any]:
    """Sum up the scores [P, S] of patients and structures."""
    return {
        "dice": _mean(scores.mean(axis=1)),
        "structures": {name: _mean(column) for name, column in zip(task.structures, scores.T, strict=True)},
        "seconds_per_case": float(np.mean([stored.read().seconds for stored in answers])),
    }


def _mean(values: NDArray[np.float64]) -> dict[str, Any]:
    interval = patient_interval(values.tolist(), [str(index) for index in range(len(values))])
    found: dict[str, Any] = {"mean": float(values.mean()), "ci95": None if interval is None else list(interval)}
    return found if interval else found | {"ci95_reason": "an interval needs at least two patients"}


def _patient_means(
    scores: Mapping[str, Mapping[str, float]], common: Sequence[str], owners: Sequence[str], task: Task
) -> NDArray[np.float64]:
    """Average the scores of each patient's cases: [P, S], patients in the order of their names."""
    table = np.array([[scores[case][name] for name in task.structures] for case in common], np.float64)
    return np.stack([table[np.asarray(owners) == patient].mean(axis=0) for patient in sorted(set(owners))])


def _reason(ranked: Sequence[Mapping[str, Any]]) -> str:
    if len(ranked) == 1:
        return "the only candidate"
    best, second = (round(found["dice"]["mean"], _DECIMALS) for found in ranked[:2])
    if best == second:  # the ranking put the cheaper one first
        return f"as good as {ranked[1]['name']} (Dice {best:.4f}), with no more weights"
    return f"highest mean Dice: {best:.4f}, the next best {second:.4f}"
