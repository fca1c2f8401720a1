"""`Model`: a trained system ready to answer, from a run folder or from the weights that ship with the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medmargin.datasets.planning import Plan
from medmargin.datasets.task import Task
from medmargin.errors import CheckpointError, ConfigError
from medmargin.imaging import Volume, from_array, read_image
from medmargin.networks.starting_points import SHIPPED
from medmargin.networks.weight_files import load_strictly
from medmargin.prompts.types import Box, Point, Prompt
from medmargin.runs import EnsembleRun, Run, open_run
from medmargin.systems.registry import build_system, catalogue, resolve_arguments
from medmargin.systems.system import System
from medmargin.workflows.members import refuse_unlike

if TYPE_CHECKING:
    from medmargin.inference import Segmentation
    from medmargin.systems.system import Predictor

_HISTORY = {"init": "none", "teacher": None}


@dataclass(frozen=True)
class Model:
    """A system with trained weights.

    Attributes:
        run: where it comes from. task: what it was trained for; without structures it answers any prompt.
        predictor: what it answers with.
        warning: why its calibration is not used, where it has one that does not fit.
    """

    run: Run
    task: Task
    predictor: Predictor
    warning: str = ""

    @property
    def calibrated(self) -> bool:
        """Whether its answers are calibrated by held-out patients."""
        return self.predictor.calibration is not None

    @property
    def automatic(self) -> bool:
        """Whether it finds the structures by itself; prompts are welcome then, and not needed."""
        return "boxes" not in catalogue()[self.run.config.system].needs

    @property
    def labels(self) -> dict[str, int] | None:
        """Structure name -> value in label files, or None where the model is not bound to a data set."""
        return (self.task.original_values or self.task.structures) or None

    def __call__(
        self,
        image: Volume | Path | str | np.ndarray,
        *,
        box: Sequence[float] | None = None,
        points: Sequence[tuple[Sequence[float], bool]] = (),
        prompts: Sequence[Prompt] | None = None,
        structure: str | None = None,
        spacing: tuple[float, ...] | None = None,
    ) -> Segmentation:
        """Segment one image.

        Args:
            image: a file, a folder of one DICOM series, a `Volume`, or an array: rows [H, W] of a picture, or
                [I, J, K] or [C, I, J, K] of a volume.
            box: (x_min, y_min, x_max, y_max) or with z, in voxels of the image's own grid.
            points: ((x, y[, z]), inside) clicks.
            prompts: any number of prompts instead of one box and points. An automatic system needs none.
            structure: what the box encloses; by default the task's first structure, or "object 1".
            spacing: of an array in mm, along (i, j, k) or (x, y); without it a voxel's size counts as unknown.

        Returns:
            The segmentation on the image's grid, with its uncertainty maps.

        Raises:
            PromptError: no prompt, or one outside the image. DataError, GeometryError: an image that cannot be used.
        """
        if isinstance(image, np.ndarray):
            image = from_array(image, spacing=spacing)
        elif not isinstance(image, Volume):
            image = read_image(image)
        if prompts is None and self.automatic and box is None and not points:
            prompts = []
        if prompts is None:
            name = structure or next(iter(self.task.structures), "object 1")
            corners = None if box is None else Box(tuple(box[: len(box) // 2]), tuple(box[len(box) // 2 :]))
            clicks = tuple(Point(tuple(position), bool(inside)) for position, inside in points)
            prompts = [Prompt(name, box=corners, points=clicks)]
        return self.predictor.predict(image, prompts, labels=self.labels)


def load(
    run: Path | str,
    *,
    memory: int | None = None,
    uncertainty: str | None = None,
    members: Sequence[Path | str] = (),
    calibrated: bool = True,
) -> Model:
    """Load a trained system.

    Args:
        run: a run folder, that of an ensemble too, or the slug of a system whose weights ship with the package
            ("u-medsam").
        memory: bytes the process may hold; None aims at 4 GiB.
        uncertainty: name of an estimator, see `workflows.uncertainty`; None takes the system's own.
        members: further runs of the same system and task, trained with other seeds or on other folds: a deep ensemble
            with `run`.
        calibrated: use the run's calibration, where it has one for this estimator; where it has one for another, the
            model warns and is not calibrated.

    Raises:
        CheckpointError: no such run, or its weights or its calibration are damaged or do not fit.
        ConfigError: unknown kind of uncertainty, or a run of a version with other arguments.
    """
    from medmargin.workflows.calibrated import attach_calibration
    from medmargin.workflows.rules import attach_rules

    found, *others = (open_run(find_run(folder)) for folder in (run, *members))
    predictor = assembled(found, others, uncertainty)
    predictor.memory = memory
    attach_rules(predictor, found)
    warning = attach_calibration(predictor, found, others) if calibrated else ""
    return Model(found, task_of(found), predictor, warning)


def assembled(found: Run, others: Sequence[Run] = (), uncertainty: str | None = None) -> Predictor:
    """Build the predictor of a run, or of an ensemble, with its trained networks; see `load`.

    Args:
        found: the run. others: further members. uncertainty: name of the estimator.

    Raises:
        CheckpointError, ConfigError: see `load`.
    """
    from medmargin.workflows.uncertainty import choose_uncertainty

    for other in others:
        if isinstance(other, EnsembleRun):
            raise ConfigError(f"{other.folder}: an ensemble cannot be a member; give the runs in its folder 'members'")
    first, *further = (*found.members, *others) if isinstance(found, EnsembleRun) else (found, *others)
    task, networks = task_of(first), []
    predictor = _trained(first, task).predictor()
    for other in further:
        its_task = task_of(other)
        refuse_unlike(first, task, other, its_task)
        networks.append(_trained(other, its_task).network)
    choose_uncertainty(uncertainty, predictor, found, networks)
    return predictor


def task_of(run: Run) -> Task:
    """Read back the task that a run's description holds as plain values.

    Raises:
        CheckpointError: its plan is damaged.
    """
    plain = dict(run.config.task)
    plain["channels"] = tuple(plain["channels"])
    for name in ("regions", "file_values"):
        plain[name] = {structure: tuple(values) for structure, values in plain.get(name, {}).items()}
    try:
        plain["plan"] = Plan.from_dict(plain["plan"]) if plain.get("plan") else None
    except ConfigError as error:
        raise CheckpointError(f"{run.paths.config}: {error}. The file is damaged or of another version.") from error
    return Task(**plain)


def _trained(run: Run, task: Task) -> System:
    """Build the system of a run and give it the run's weights; where its training started from is history."""
    history = {name: value for name, value in _HISTORY.items() if name in run.config.arguments}
    arguments = resolve_arguments(run.config.system, "paper", {**run.config.arguments, **history})
    system = build_system(run.config.system, task, arguments)
    load_strictly(system.network, run.weights(), origin=str(run.paths.weights))
    return system


def describe(model: Model) -> dict[str, Any]:
    """Say which run answers: system, folder, seed, arguments and where its training started from; or which runs."""
    config = model.run.config
    members = {"members": [run.folder.name for run in model.run.members]} if isinstance(model.run, EnsembleRun) else {}
    return members | {
        "system": config.system,
        "folder": str(model.run.folder),
        "seed": config.seed,
        "init": config.arguments.get("init"),
        "arguments": config.arguments,
        "versions": config.versions,
        "git": config.git,
    }


def for_task(model: Model, task: Task) -> Model:
    """Let a model that answers any prompt name the structures of a data set."""
    return model if model.task.structures else replace(model, task=task)


def find_run(run: Path | str) -> Path:
    """Find a run folder, or that of shipped weights by their slug.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(run)
    if path.is_dir():
        return path
    shipped = {folder.name: folder for folder in SHIPPED.iterdir() if folder.is_dir()} if SHIPPED.is_dir() else {}
    if str(run) in shipped:
        return shipped[str(run)]
    raise CheckpointError(
        f"{run}: no such run folder, and no weights of that name ship with the package "
        f"(available: {', '.join(sorted(shipped)) or 'none'}). Train one: medmargin train u-medsam DATASET --run {run}"
    )
