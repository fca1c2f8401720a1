"""Cross-validation: one run folder per fold of a data set, trained one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medmargin.datasets.dataset import Dataset, open_dataset
from medmargin.errors import ConfigError
from medmargin.learning import TrainingOutcome, is_first_process
from medmargin.runs import RunPaths, read_run
from medmargin.storage import write_json
from medmargin.systems.registry import catalogue, resolve_arguments
from medmargin.workflows.plan import plan_for_training
from medmargin.workflows.scale import choose_scale
from medmargin.workflows.train import train


@dataclass(frozen=True)
class FoldOutcome:
    """What became of one fold.

    Attributes:
        fold: its number. run: its folder.
        outcome: of its training; None where it had ended before this call.
    """

    fold: int
    run: Path
    outcome: TrainingOutcome | None

    def to_dict(self) -> dict[str, Any]:
        """Give plain types only, for `--json`."""
        told = {"finished_before": True} if self.outcome is None else asdict(self.outcome)
        return {"fold": self.fold, "run": str(self.run), **told}


def train_folds(
    system: str,
    dataset: Path | str,
    *,
    run: Path | str,
    folds: str,
    minutes: float | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    split: Path | str | None = None,
    labelled: str | float | Path | None = None,
    scale: str | None = None,
    settings: Mapping[str, Any] | None = None,
    plan: Path | str | None = None,
    resume: bool = False,
    devices: int = 1,
    nodes: int = 1,
    workers: int = 0,
    snapshots: int = 0,
    memory: str | None = None,
    progress: bool = True,
) -> list[FoldOutcome]:
    """Train fold k into `run`/fold_k with the seed `seed` + k; each is a run folder of its own.

    Args:
        folds: "5", all folds of a split that has five; or numbers such as "0,2".
        minutes, steps, epochs: of every fold; at most one.
        resume: leave finished folds alone, continue an interrupted one, and start the others.
        Everything else: see `train`.

    Returns:
        The folds in order; after a signal the one that was interrupted is the last.

    Raises:
        ConfigError: folds that the data set does not have, or folders that are in the way. Also see `train`.
    """
    folder = Path(run)
    data = open_dataset(dataset, split_file=split)
    wanted = {number: folder / f"fold_{number}" for number in parse_folds(folds, data)}
    _require_room(folder, list(wanted.values()), resume=resume)
    chosen = choose_scale(scale, settings or {})
    arguments = resolve_arguments(system, chosen, settings or {})
    budget = {"minutes": minutes, "steps": steps, "epochs": epochs}
    finished = [number for number, path in wanted.items() if RunPaths(path).weights.exists()]
    for number in finished:
        _refuse_changes(wanted[number], system, arguments, seed + number, budget)
    if plan is None and "plan" in catalogue()[system].needs and len(finished) < len(wanted):
        plan = _shared_plan(folder, data, chosen, progress=progress and is_first_process())
    found = []
    for number, path in wanted.items():
        outcome = None
        if number not in finished:
            outcome = train(
                system, dataset, run=path, minutes=minutes, steps=steps, epochs=epochs, seed=seed + number, fold=number,
                split=split, labelled=labelled, scale=chosen, settings=settings, plan=plan, resume=resume,
                devices=devices, nodes=nodes, workers=workers, snapshots=snapshots, memory=memory,
                progress=progress,
            )  # fmt: skip
        found.append(FoldOutcome(number, path, outcome))
        if outcome is not None and outcome.stopped_by == "signal":
            break
    return found


def parse_folds(text: str, data: Dataset) -> list[int]:
    """Read "5" as all of five folds, "0,2" as some of them.

    Raises:
        ConfigError: neither form, or folds that the split does not have.
    """
    has = len(data.splits.folds)
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"--folds {text}: expected their number, as in 5, or which ones, as in 0,2") from error
    if "," not in text and numbers != [has]:
        raise ConfigError(
            f"--folds {text}: the split of '{data.name}' ({data.splits.source}) has {has} folds. Train all of them "
            f"with --folds {has} or some with --folds 0,1, or draw others: medmargin data split"
        )
    if "," not in text:
        return list(range(has))
    if not numbers or len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(has)):
        raise ConfigError(f"--folds {text}: expected different numbers from 0 to {has - 1}, the folds of '{data.name}'")
    return numbers


def _require_room(folder: Path, wanted: Sequence[Path], *, resume: bool) -> None:
    if RunPaths(folder).config.exists():
        raise ConfigError(f"{folder} holds a single run: choose another folder for the folds.")
    taken = [path for path in wanted if RunPaths(path).config.exists()]
    if taken and not resume:
        raise ConfigError(f"{taken[0]} holds a run already: continue with --resume, or choose another folder.")


def _refuse_changes(
    folder: Path, system: str, arguments: Mapping[str, Any], seed: int, budget: Mapping[str, float | None]
) -> None:
    """Refuse to put a finished fold beside folds that are trained otherwise."""
    config = read_run(folder).config
    wanted: dict[str, Any] = {"system": system, "arguments": dict(arguments), "seed": seed}
    given = {unit: amount for unit, amount in budget.items() if amount is not None}
    if given and len(catalogue()[system].stages) == 1:  # of several stages the run holds the last one's share
        wanted["budget"] = given
    if changes := config.differences(config.model_copy(update=wanted)):
        raise ConfigError(f"{folder}: the folds of one training are trained alike, but {'; '.join(changes)}.")


def _shared_plan(folder: Path, data: Dataset, scale: str, *, progress: bool) -> Path:
    """Plan the data set once for all folds, whose plans would be equal, or take the plan of an interrupted call."""
    path = folder / "plan.json"
    if not path.exists():
        write_json(path, plan_for_training(data, scale=scale, progress=progress).to_dict())
    return path
