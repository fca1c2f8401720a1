"""The choice of rules for label maps, on cases that the runs have not learned from.

Isensee et al. 2021 (doi:10.1038/s41592-020-01008-z), "postprocessing". Deviations: a rule must also leave the mean Dice
of every single structure where it was, or raise it; holes are filled too; and each structure is looked at by itself,
never all of them as one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.task import Task
from medmargin.inference import Rule
from medmargin.inference.postprocessing import BACKGROUND, apply_rules
from medmargin.workflows.held_out import StoredAnswer
from medmargin.workflows.rules import ChosenRules

Progress = Callable[[int, int, str], None]
_ROUNDING = 1e-9  # a gain is more than this, a loss too
_OPTIONS = ((False, False), (True, False), (False, True), (True, True))  # keep the largest piece, fill holes


def choose_rules(
    answers: Sequence[StoredAnswer],
    task: Task,
    contained: Sequence[Sequence[int]],
    *,
    progress: Progress | None = None,
) -> ChosenRules:
    """Choose structure by structure, each beside the rules chosen before it; the answers are read once per structure.

    A rule is taken where it raises the mean Dice over structures and cases and lowers that of no structure.

    Args:
        answers: held-out predictions, before any rule.
        task: of their data set. contained: see `apply_rules`.
        progress: called with (structures done, all structures, name).
    """
    rules: list[Rule] = []
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    for done, name in enumerate(task.structures):
        if progress is not None:
            progress(done, len(task.structures), name)
        trials = [Rule(name, keep_largest=largest, fill_holes=holes) for largest, holes in _OPTIONS]
        means = _means(answers, task, contained, rules, trials)
        before = before or means[0]
        chosen = 0
        for step in (1, 2):  # the two bits of an option: first keep the largest piece, then fill holes on top
            if _is_better(means[chosen | step], means[chosen]):
                chosen |= step
        after = means[chosen]
        if chosen:
            rules.append(trials[chosen])
    if progress is not None:
        progress(len(task.structures), len(task.structures), "")
    return ChosenRules(tuple(rules), len(answers), before, after)


def _is_better(trial: dict[str, float], current: dict[str, float]) -> bool:
    gains = [trial[name] - current[name] for name in current]
    return float(np.mean(gains)) > _ROUNDING and min(gains) >= -_ROUNDING


def _means(
    answers: Sequence[StoredAnswer],
    task: Task,
    contained: Sequence[Sequence[int]],
    rules: Sequence[Rule],
    trials: Sequence[Rule],
) -> list[dict[str, float]]:
    """Give the mean Dice of each structure under `rules` and each of the trials on top."""
    sums = [dict.fromkeys(task.structures, 0.0) for _ in trials]
    for stored in answers:
        held_out = stored.read()
        ruled = _ruled(held_out.labels, task, contained, rules)
        same = replace(held_out, labels=ruled).dice(task)
        for total, trial in zip(sums, trials, strict=True):
            labels = _ruled(ruled, task, contained, [trial]) if trial.keep_largest or trial.fill_holes else ruled
            found = same if np.array_equal(labels, ruled) else replace(held_out, labels=labels).dice(task)
            for name, value in found.items():
                total[name] += value
    return [{name: value / len(answers) for name, value in total.items()} for total in sums]


def _ruled(labels: NDArray[Any], task: Task, contained: Sequence[Sequence[int]], rules: Sequence[Rule]) -> NDArray[Any]:
    """Correct a label map of values; the rules know structures by their index."""
    if not rules:
        return labels
    values = list(task.structures.values())
    to_index = np.full(max(values) + 1, BACKGROUND, np.int32)
    to_index[values] = np.arange(len(values))
    indices = to_index[labels]
    names = {name: index for index, name in enumerate(task.structures)}
    apply_rules(indices, np.zeros(labels.shape, np.float16), rules, names, contained)  # probabilities do not matter
    return np.array([*values, 0], labels.dtype)[indices]
