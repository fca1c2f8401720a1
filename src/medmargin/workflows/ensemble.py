"""Ensemble: from finished runs to one run folder that answers with all of them, or with the best kind of them.

With a data set the runs are cross-validated: every run predicts its own validation cases, once. By these answers the
best candidate is chosen where there are several, and rules for its label maps.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medmargin.datasets.dataset import Dataset, open_dataset
from medmargin.errors import CheckpointError, ConfigError
from medmargin.inference import VolumePredictor
from medmargin.inference.budget import parse_memory
from medmargin.runs import EnsembleRun, Run, RunConfig, copy_run, open_run, write_ensemble, write_model_card
from medmargin.storage import write_json
from medmargin.systems.registry import catalogue
from medmargin.workflows.calibrated import estimator_name
from medmargin.workflows.held_out import StoredAnswer, predict_held_out, validation_cases
from medmargin.workflows.members import described, refuse_unlike
from medmargin.workflows.model import assembled, task_of
from medmargin.workflows.rule_choice import choose_rules
from medmargin.workflows.rules import ChosenRules, write_rules
from medmargin.workflows.selection import Candidate, select

Progress = Callable[[int, int, str], None]
_FOLD = re.compile(r"fold_(\d+)")
_WORK = ".held-out"  # predictions of an unfinished call, in the folder it writes


def ensemble(
    runs: Sequence[Path | str],
    out: Path | str,
    *,
    data: Path | str | None = None,
    rules: bool | None = None,
    memory: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Put runs together into the run folder `out`; an interrupted call goes on where it was.

    Args:
        runs: finished run folders, and folders of folds as `train --folds` leaves them. Runs that differ only in fold
            and seed make a candidate; of several candidates the best is taken, which needs `data`.
        out: new folder. One run is copied, with its rules; of several the members are.
        data: the data set of the runs; None leaves cross-validation and rules out.
        rules: choose rules for label maps; None: where there is a data set and the system uses them.
        memory: such as "4G". progress: called with (steps done, all steps, what is at work), for predictions first and
            then for rules.

    Returns:
        The object of `ensemble --json`: out, members, selection (or None) and rules (or None, with the reason).

    Raises:
        ConfigError: runs that cannot answer together, several candidates without `data`, or `out` is a run already.
        CheckpointError: a run that is not finished, or damaged. DataError: cases or labels that are missing.
    """
    if rules and data is None:
        raise ConfigError("--rules: rules are chosen on the validation cases: give the data set with --data")
    folder = Path(out)
    if (folder / "config.json").exists():
        raise ConfigError(f"{folder} holds a run already: choose another folder for the ensemble.")
    candidates = _candidates(runs)
    if len(candidates) > 1 and data is None:
        _refuse_several(candidates)
    chosen, selection, found = candidates[0], None, None
    for each in candidates:
        assembled(each.runs[0], each.runs[1:])  # refuses what does not fit before anything is predicted
    if data is not None:
        opened = open_dataset(data)
        answers = _answers(candidates, opened, folder / _WORK, parse_memory(memory) if memory else None, progress)
        selection = select(candidates, answers, opened.task)
        chosen = next(each for each in candidates if each.name == selection["chosen"])
    predictor = assembled(chosen.runs[0], chosen.runs[1:])
    reason = _no_rules(rules, data, predictor)
    if not reason and isinstance(predictor, VolumePredictor):
        found = choose_rules(answers[chosen.name], opened.task, predictor.contained, progress=progress)
    _write(chosen, folder, selection, found)
    shutil.rmtree(folder / _WORK, ignore_errors=True)
    answer: dict[str, Any] = {"out": str(folder), "members": [str(each.folder) for each in chosen.runs]}
    answer |= {"estimator": estimator_name(predictor), "selection": selection}
    return answer | ({"rules": None, "rules_reason": reason} if found is None else {"rules": found.to_dict()})


def _candidates(given: Sequence[Path | str]) -> list[Candidate]:
    """Read the runs and group those that differ in fold and seed only."""
    groups: dict[str, Candidate] = {}
    seen: set[Path] = set()
    for name, run in (found for each in given for found in _runs_in(Path(each))):
        if run.folder.resolve() in seen:
            raise ConfigError(f"{run.folder} is given twice; a member differs from itself in nothing")
        seen.add(run.folder.resolve())
        task = task_of(run)
        key = json.dumps([described(run, task), run.config.model_dump(mode="json")["arguments"]], default=str)
        before = groups.get(key, Candidate(name, (), task))
        groups[key] = Candidate(before.name, (*before.runs, run), before.task)
    if not groups:
        raise ConfigError("an ensemble needs at least one run folder")
    candidates = list(groups.values())
    if len({each.name for each in candidates}) < len(candidates):  # candidates from one folder go by their first run
        candidates = [Candidate(str(each.runs[0].folder), each.runs, each.task) for each in candidates]
    return candidates


def _runs_in(folder: Path) -> list[tuple[str, Run]]:
    """Give the run of a folder, or those of its folds, each with the name the user knows it by."""
    if (folder / "config.json").exists() or not folder.is_dir():
        return [(str(folder), _finished(folder))]
    folds = {int(found[1]): path for path in folder.iterdir() if (found := _FOLD.fullmatch(path.name))}
    if not folds:
        raise CheckpointError(f"{folder}: neither a run folder nor a folder of folds (fold_0, fold_1, ...)")
    return [(str(folder), _finished(folds[number])) for number in sorted(folds)]


def _finished(folder: Path) -> Run:
    run = open_run(folder)
    if isinstance(run, EnsembleRun):
        raise ConfigError(f"{folder}: an ensemble already; give the runs in its folder 'members'")
    entry = catalogue().get(run.config.system)
    if entry is not None and "boxes" in entry.needs:
        raise ConfigError(f"{folder}: '{entry.slug}' is asked with prompts; ensembles are of automatic systems")
    if not run.paths.weights.exists():
        raise CheckpointError(f"{folder}: its training has not ended. Continue it: medmargin train ... --resume")
    return run


def _refuse_several(candidates: Sequence[Candidate]) -> None:
    """Say in what the first two candidates differ."""
    first, second = candidates[:2]
    advice = "Give --data DATASET to choose the better kind by cross-validation"
    try:
        refuse_unlike(first.runs[0], first.task, second.runs[0], second.task)
    except ConfigError as error:
        raise ConfigError(f"{error} {advice}.") from error
    mine, theirs = (each.runs[0].config.model_dump(mode="json")["arguments"] for each in (first, second))
    unlike = [f"{name} {mine[name]} and {theirs.get(name)}" for name in mine if mine[name] != theirs.get(name)]
    raise ConfigError(
        f"{second.runs[0].folder} was trained with other arguments than {first.runs[0].folder}: {', '.join(unlike)}. "
        f"{advice}, or leave it out."
    )


def _answers(
    candidates: Sequence[Candidate], data: Dataset, work: Path, memory: int | None, progress: Progress | None
) -> dict[str, tuple[StoredAnswer, ...]]:
    """Predict the validation cases of every run, or take what an interrupted call left."""
    runs = [run for each in candidates for run in each.runs]
    total, done = sum(len(validation_cases(run, data)) for run in runs), 0

    def count(case: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, case)

    return {
        each.name: tuple(
            stored for run in each.runs for stored in predict_held_out(run, data, work, memory=memory, done=count)
        )
        for each in candidates
    }


def _no_rules(asked: bool | None, data: Path | str | None, predictor: Any) -> str:
    """Say why no rules are chosen; empty where they are.

    Raises:
        ConfigError: they were asked for, and the system uses none.
    """
    if asked is False:
        return "not asked for"
    if data is None:
        return "rules are chosen on validation cases, and no data set was given"
    if isinstance(predictor, VolumePredictor):
        return ""
    reason = "rules correct the answers of systems that follow a plan, and this one does not"
    if asked:
        raise ConfigError(f"--rules: {reason}")
    return reason


def _write(candidate: Candidate, folder: Path, selection: Mapping[str, Any] | None, rules: ChosenRules | None) -> None:
    """Write the folder; what makes it a run folder comes last."""
    runs = candidate.runs
    target = Run(folder, runs[0].config)
    if selection is not None:
        write_json(target.paths.selection, selection)
    if rules is not None and rules.rules:
        write_rules(target, rules)
    else:
        target.paths.rules.unlink(missing_ok=True)
    run = copy_run(runs[0], folder) if len(runs) == 1 else write_ensemble(folder, _config(runs), _names(runs))
    results = {}
    if selection is not None:
        dice = next(found for found in selection["candidates"] if found["name"] == selection["chosen"])["dice"]
        results = {"mean Dice of single members, each on its own validation cases": dice["mean"]}
    entry = catalogue()[runs[0].config.system]
    count = "" if len(runs) == 1 else f"An ensemble of {len(runs)} runs. "
    write_model_card(run, summary=f"{count}{entry.title} ({entry.paper}).", results=results)


def _config(runs: Sequence[Run]) -> RunConfig:
    """Describe an ensemble by its first member, with all that the members learned from and were selected on."""
    first, about = runs[0].config, [run.config.data for run in runs]
    learned = sorted({case for each in about for case in each.get("train", ())})
    selected = sorted({case for each in about for case in each.get("val", ())} - set(learned))
    shared = {name: first.data[name] for name in ("name", "sha256", "split") if name in first.data}
    data = shared | {"folds": [each.get("fold") for each in about], "train": learned, "val": selected}
    built = {**first.built, "weights": sum(int(run.config.built.get("weights", 0)) for run in runs)}
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return first.model_copy(update={"data": data, "built": built, "command": command})


def _names(runs: Sequence[Run]) -> dict[str, Run]:
    """Name the folder of each member: by its own name, with a number before it where two are called alike."""
    own = [run.folder.resolve().name.lstrip(".") or "run" for run in runs]
    if len(set(own)) == len(own):
        return dict(zip(own, runs, strict=True))
    return {f"{number}_{name}": run for number, (name, run) in enumerate(zip(own, runs, strict=True))}
