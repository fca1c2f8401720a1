"""Evaluate: predict the cases of a split and measure them against their labels, one case at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medmargin.datasets.case import Case
from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.loading import load_case
from medmargin.datasets.task import Task
from medmargin.errors import ConfigError, DataError, ToolkitError
from medmargin.evaluation.ignored import cleared
from medmargin.evaluation.measure import CaseResult, measure_case
from medmargin.evaluation.pictures import Gallery
from medmargin.evaluation.report import write_report
from medmargin.evaluation.summary import summarise
from medmargin.evaluation.volumes import VolumeInterval
from medmargin.imaging import Volume
from medmargin.inference.budget import parse_memory
from medmargin.inference.segmentation import NO_PROMPTS, PROMPTS_FROM_LABELS, SINGLE_ANSWER, Segmentation
from medmargin.networks.starting_points import SHIPPED
from medmargin.storage import write_json
from medmargin.workflows.calibrated import switched_off
from medmargin.workflows.model import Model, describe, for_task, load
from medmargin.workflows.rater_labels import load_rater_labels
from medmargin.workflows.true_prompts import floors_of_labels, prompts_of_labels, require_boxes
from medmargin.workflows.trust import predicted_dice_entry, summarise_trust

Progress = Callable[[int, int, str], None]
Each = Callable[[Case, Volume, Segmentation | None], None]


def evaluate(
    run: Path | str,
    dataset: Path | str,
    *,
    split: str = "test",
    split_file: Path | str | None = None,
    fold: int = 0,
    prompts_from: str | None = None,
    uncertainty: str | None = None,
    members: Sequence[Path | str] = (),
    calibrated: bool = True,
    report: Path | str | None = None,
    memory: str | None = None,
    nsd_tolerance: float | None = None,
    each: Each | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predict and measure a split in one pass.

    Args:
        run: run folder, or slug of shipped weights.
        dataset: folder in any layout, or name under MEDMARGIN_DATA.
        split: which side of the split; split_file, fold: see `open_dataset`.
        prompts_from: "labels": the true box of every object (per slice in 3-D). The answer then holds the Dice that
            the boxes alone would score. None: so for a promptable system, and no prompt for an automatic one.
        uncertainty, members, calibrated, memory: see `load`.
        report: HTML or PDF file to write. A calibrated run is then measured once more without its calibration, and the
            answer holds that as `calibration_before`.
        nsd_tolerance: in mm (px where the spacing is unknown); by default 1 mm or 2 px.
        each: called with every case, its label and its answer (None where there was nothing to ask).
        progress: called with (cases done, all cases, name).

    Returns:
        The object of `evaluate --json`, which is also left in the run folder as `metrics.json` (for `compare`).

    Raises:
        DataError: no such split, or no case of it has a label. ConfigError: an unknown source of prompts.
    """
    if prompts_from not in (None, "labels"):
        raise ConfigError(f"--prompts-from '{prompts_from}': an evaluation takes prompts from 'labels'")
    data = open_dataset(dataset, split_file=split_file)
    limit = parse_memory(memory) if memory else None
    model = load(run, memory=limit, uncertainty=uncertainty, members=members, calibrated=calibrated)
    model = for_task(model, data.task)
    prompted = prompts_from == "labels" or not model.automatic
    refuse_other_structures(model, data.task)
    if prompted:
        require_boxes(data.task, to="evaluate")
    cases = data.split(split, fold)
    failed: list[dict[str, str]] = []
    gallery, warnings = Gallery(), [model.warning] if model.warning else []
    results = _measured(model, data.task, cases, prompted, failed, gallery, warnings, nsd_tolerance, each, progress)
    estimator = model.predictor.uncertainty
    answer = summarise(
        results,
        failed=failed,
        source=estimator.name if estimator else SINGLE_ANSWER,
        forward_passes=model.predictor.forward_passes,
        calibrated=model.calibrated,
        run=describe(model),
    )
    answer["summary"]["trust"] = summarise_trust(answer["cases"])
    if answer["summary"]["trust"] is None:
        answer["summary"]["trust_reason"] = "no Dice was predicted" if model.calibrated else "the run is not calibrated"
    if model.warning:
        answer["warning"] = model.warning
    source = PROMPTS_FROM_LABELS if prompted else NO_PROMPTS
    answer["data"] = {"name": data.name, "split": split, "fold": fold, "prompts": source}
    if not answer["cases"] and failed:
        raise DataError(f"none of the {len(failed)} cases could be measured. The first: {failed[0]['error']}")
    if report is not None and model.calibrated:
        answer["calibration_before"] = _before(model, data.task, cases, prompted, nsd_tolerance, progress)
    if report is not None:
        title = f"{model.run.config.system} on {data.name} ({split})"
        write_report(
            report, answer, gallery.pictures, structures=data.task.members, title=title, warnings=warnings,
            contrast=gallery.contrast,
        )  # fmt: skip
    if model.run.folder.parent != SHIPPED:
        write_json(model.run.paths.evaluation, answer)
    return answer


def _before(
    model: Model,
    task: Task,
    cases: tuple[Case, ...],
    prompted: bool,
    nsd_tolerance: float | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """Measure the same cases without calibration: the points of the curves and the figures of the uncertainty."""
    with switched_off(model.predictor):
        results = _measured(model, task, cases, prompted, [], Gallery(), [], nsd_tolerance, None, progress)
        before = summarise(results)
    summary = before["summary"]
    return {
        **before["curves"],
        "uncertainty": summary["uncertainty"],
        "volume_coverage": summary["volume_coverage"],
        "mean": summary["mean"],
    }


def _measured(
    model: Model,
    task: Task,
    cases: tuple[Case, ...],
    prompted: bool,
    failed: list[dict[str, str]],
    gallery: Gallery,
    warnings: list[str],
    nsd_tolerance: float | None,
    each: Each | None,
    progress: Progress | None,
) -> Iterator[CaseResult]:
    """Yield one result per case that could be measured; the others go to `failed`."""
    for done, case in enumerate(cases):
        if progress is not None:
            progress(done, len(cases), case.name)
        try:
            image, label = load_case(case, task)
            if label is None:
                raise DataError(f"case '{case.name}' has no label to measure against")
            began = time.perf_counter()
            answer = answered(model, image, label, task, prompted=prompted)
            seconds = time.perf_counter() - began
            result = _result(case, image, label, answer, task, nsd_tolerance, seconds, with_floors=prompted)
        except (ToolkitError, OSError, MemoryError) as error:
            failed.append({"case": case.name, "error": f"{type(error).__name__}: {error}"})
            continue
        if answer is not None and answer.trust is not None:
            result.entry["predicted_dice"] = predicted_dice_entry(answer.trust)
            result.entry["out_of_distribution"] = answer.trust.summary()["out_of_distribution"]
        if each is not None:
            each(case, label, answer)
        warnings += [f"{case.name}: {text}" for text in (*image.warnings, *label.warnings)]
        total = np.zeros(image.grid.shape, np.float32) if answer is None else answer.uncertainty["total"]
        edge = None if answer is None else answer.maps.get("edge")
        (truth,), shown, _ = cleared((label.voxels[0],), _labels(answer, label), task.ignore)
        gallery.offer(result, image, truth, shown, total, edge=edge)
        yield result
    if progress is not None:
        progress(len(cases), len(cases), "")


def answered(model: Model, image: Volume, label: Volume, task: Task, *, prompted: bool) -> Segmentation | None:
    """Ask, with the true boxes where wanted; None where a promptable system has nothing labelled to be asked for."""
    prompts = prompts_of_labels(label, task.structures, dims=image.dims) if prompted else []
    if not prompts and model.automatic:
        return model.predictor.predict(image, prompts, labels=task.structures, prompts_source=NO_PROMPTS)
    if not prompts:
        return None
    return model.predictor.predict(image, prompts, labels=task.structures, prompts_source=PROMPTS_FROM_LABELS)


def _result(
    case: Case,
    image: Volume,
    label: Volume,
    answer: Segmentation | None,
    task: Task,
    nsd_tolerance: float | None,
    seconds: float,
    *,
    with_floors: bool,
) -> CaseResult:
    """Measure an answer. Where a promptable system could not be asked, it is background, with certainty."""
    probabilities = {name: np.zeros(image.grid.shape, np.float32) for name in task.structures}
    volumes: dict[str, VolumeInterval] = {}
    if answer is not None and answer.probabilities is not None:
        probabilities |= {
            found.name: values for found, values in zip(answer.structures, answer.probabilities, strict=True)
        }
        volumes = {found.name: _interval(found) for found in answer.structures}
    return measure_case(
        case.name,
        case.patient,
        label.voxels[0],
        _labels(answer, label),
        grid=image.grid,
        structures=task.structures,
        regions=task.regions,
        ignore=task.ignore,
        probabilities=probabilities,
        uncertainty=np.zeros(image.grid.shape, np.float32) if answer is None else answer.uncertainty["total"],
        volumes=volumes,
        floors=floors_of_labels(label, task.structures, dims=image.dims) if with_floors else None,
        nsd_tolerance=nsd_tolerance,
        seconds=seconds,
        raters=load_rater_labels(case, task, image),
        attributes=case.attributes,
    )


def _labels(answer: Segmentation | None, label: Volume) -> np.ndarray:
    return np.zeros_like(label.voxels[0]) if answer is None else answer.labels


def _interval(found: Any) -> VolumeInterval:
    if found.volume_ml is None:
        return VolumeInterval(found.voxels, found.low_voxels, found.high_voxels, found.level)
    return VolumeInterval(found.volume_ml, found.low_ml, found.high_ml, found.level)


def refuse_other_structures(model: Model, task: Task) -> None:
    """Refuse a data set that asks for structures the run does not know, or for other overlaps of them."""
    trained = model.task.structures
    if trained and set(task.structures) - set(trained):
        raise ConfigError(
            f"the run {model.run.folder} knows the structures {', '.join(trained)}, the data set '{task.name}' asks "
            f"for {', '.join(task.structures)}. Evaluate it on the data set it was trained for, or use shipped weights."
        )
    known, asked = _overlaps(model.task), _overlaps(task)
    if trained and (different := [name for name in task.structures if asked[name] != known[name]]):
        name = different[0]
        raise ConfigError(
            f"the run {model.run.folder} knows '{name}' as {', '.join(sorted(known[name]))}, the data set "
            f"'{task.name}' as {', '.join(sorted(asked[name]))}: other regions. Evaluate it on the data set it was "
            "trained for."
        )


def _overlaps(task: Task) -> dict[str, set[str]]:
    """Structure name -> the structures that lie in it, itself among them."""
    names = {value: name for name, value in task.structures.items()}
    return {name: {names[value] for value in values} for name, values in task.members.items()}
