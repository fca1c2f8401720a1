"""Evaluate files that were predicted before, by this program or another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medmargin.datasets.case import Case
from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.loading import load_image, load_label, mapped, on_grid_of
from medmargin.datasets.task import IGNORE, Task
from medmargin.errors import DataError, ToolkitError
from medmargin.evaluation.ignored import cleared
from medmargin.evaluation.measure import CaseResult, measure_case
from medmargin.evaluation.pictures import Gallery
from medmargin.evaluation.report import write_report
from medmargin.evaluation.summary import summarise
from medmargin.evaluation.volumes import VolumeInterval
from medmargin.imaging import Volume, read_image, read_label
from medmargin.inference.batch import case_name
from medmargin.workflows.evaluate import Progress
from medmargin.workflows.rater_labels import load_rater_labels

_SUFFIXES = (".nii.gz", ".png", ".npz", ".nrrd", ".mha")


def evaluate_files(
    folder: Path | str,
    labels: Path | str,
    *,
    split: str | None = None,
    report: Path | str | None = None,
    nsd_tolerance: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure predicted label maps against true ones.

    Args:
        folder: files `<case>_seg.*` or `<case>.*`; `<case>_uncertainty.nii.gz`, `<case>_prob_<label>.nii.gz` and
            `<case>_confidence.json` are used where they are.
        labels: a data set (its structures have names then), or a folder of label maps named like the cases.
        split: of the data set; by default every labelled case for which there is a prediction.
        report, nsd_tolerance, progress: as in `evaluate`.

    Raises:
        DataError: no prediction fits any label.
    """
    folder = Path(folder)
    predictions = _predictions(folder)
    task, truths = _truths(Path(labels), split)
    failed: list[dict[str, str]] = [
        {"case": name, "error": "DataError: there is a prediction but no label of this name"}
        for name in sorted(predictions.keys() - truths.keys())
        if split is None
    ]
    if split is None:
        missing = sorted(truths.keys() - predictions.keys())
        truths = {name: case for name, case in truths.items() if name in predictions}
    else:
        missing = []
    if not truths:
        raise DataError(f"{folder}: no prediction is named like a label in {labels}; expected <case>_seg.nii.gz")
    gallery = Gallery()
    results = _measured(folder, predictions, task, truths, failed, gallery, nsd_tolerance, progress)
    answer = summarise(results, failed=failed, source="files", run={"folder": str(folder)})
    answer["data"] = {"name": task.name, "split": split, "without_prediction": missing}
    if not answer["cases"]:
        raise DataError(f"none of the {len(failed)} cases could be measured. The first: {failed[0]['error']}")
    if report is not None:
        title = f"{folder.name} against {task.name}"
        write_report(report, answer, gallery.pictures, structures=task.members, title=title, contrast=gallery.contrast)
    return answer


def _measured(
    folder: Path,
    predictions: dict[str, Path],
    task: Task,
    truths: dict[str, Case],
    failed: list[dict[str, str]],
    gallery: Gallery,
    nsd_tolerance: float | None,
    progress: Progress | None,
) -> Iterator[CaseResult]:
    for done, (name, case) in enumerate(truths.items()):
        if progress is not None:
            progress(done, len(truths), name)
        try:
            if name not in predictions:
                raise DataError(f"case '{name}' has a label but no prediction in {folder}")
            result, layers = _measure(folder, predictions[name], case, task, nsd_tolerance)
        except (ToolkitError, OSError, MemoryError) as error:
            failed.append({"case": name, "error": f"{type(error).__name__}: {error}"})
            continue
        gallery.offer(result, *layers)
        yield result


def _measure(
    folder: Path, prediction: Path, case: Case, task: Task, nsd_tolerance: float | None
) -> tuple[CaseResult, tuple[Any, ...]]:
    # without an image the label map itself gives the grid, and the background of the pictures
    image = load_image(case, task) if case.images else read_label(_label_path(case))
    truth = load_label(case, task, image=image)
    found = on_grid_of(image, _in_unit(read_label(prediction), image))
    labels = _contiguous(found, task)
    uncertainty = _map(folder / f"{case.name}_uncertainty.nii.gz", image)
    probabilities = {
        name: values
        for name, value in (task.original_values or task.structures).items()
        if (values := _map(folder / f"{case.name}_prob_{value}.nii.gz", image)) is not None
    }
    result = measure_case(
        case.name,
        case.patient,
        truth.voxels[0],
        labels,
        grid=image.grid,
        structures=task.structures,
        regions=task.regions,
        ignore=task.ignore,
        probabilities=probabilities if len(probabilities) == len(task.structures) else None,
        uncertainty=uncertainty,
        volumes=_volumes(folder / f"{case.name}_confidence.json"),
        raters=load_rater_labels(case, task, image),
        attributes=case.attributes,
        nsd_tolerance=nsd_tolerance,
    )
    (clean,), shown, _ = cleared((truth.voxels[0],), labels, task.ignore)
    return result, (image, clean, shown, uncertainty)


def _predictions(folder: Path) -> dict[str, Path]:
    """Case name -> label file; `<case>_seg.*` where there are such files, else every image file."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of predictions")
    files = sorted(file for file in folder.iterdir() if file.name.lower().endswith(_SUFFIXES))
    marked = {case_name(file).removesuffix("_seg"): file for file in files if case_name(file).endswith("_seg")}
    return marked or {case_name(file): file for file in files}


def _truths(labels: Path, split: str | None) -> tuple[Task, dict[str, Case]]:
    """The task and the labelled cases of a data set, or of a bare folder of label maps."""
    bare = labels.is_dir() and not (labels / "dataset.json").exists() and not (labels / "imagesTr").exists()
    if bare and split is None:
        files = sorted(file for file in labels.iterdir() if file.name.lower().endswith(_SUFFIXES))
        if files:
            return _bare_task(labels, files), {
                case_name(file): Case(case_name(file), case_name(file), (), label=file) for file in files
            }
    dataset = open_dataset(labels)
    cases = dataset.split(split) if split else (*dataset.cases, *dataset.test_cases)
    return dataset.task, {case.name: case for case in cases if case.label is not None}


def _bare_task(labels: Path, files: list[Path]) -> Task:
    values = sorted({int(value) for file in files for value in np.unique(read_label(file).voxels)} - {0})
    names = {f"label {value}": index for index, value in enumerate(values, start=1)}
    first = read_label(files[0])
    return Task(
        labels.name, ("image",), names, first.dims, first.grid.unit,
        original_values={f"label {value}": value for value in values},
    )  # fmt: skip


def _label_path(case: Case) -> Path:
    if case.label is None:
        raise DataError(f"case '{case.name}' has no label")
    return case.label


def _in_unit(volume: Volume, image: Volume) -> Volume:
    return replace(volume, grid=replace(volume.grid, unit=image.grid.unit))


def _contiguous(found: Volume, task: Task) -> np.ndarray:
    """Bring a predicted map from the files' label values to 1..K; what nobody labelled is no answer."""
    if task.ignore is not None and (found.voxels == task.file_values.get(IGNORE, (task.ignore,))[0]).any():
        raise DataError(f"{found.source}: holds the '{IGNORE}' value of '{task.name}', which an answer cannot give")
    return mapped(found, task).voxels[0]


def _map(path: Path, image: Volume) -> np.ndarray | None:
    if not path.exists():
        return None
    found = read_image(path)
    if not replace(found.grid, unit=image.grid.unit).matches(image.grid):
        raise DataError(f"{path}: lies on another grid than the image: {image.grid.difference(found.grid)}")
    return found.voxels[0]


def _volumes(path: Path) -> dict[str, VolumeInterval]:
    if not path.exists():
        return {}
    structures = json.loads(path.read_text(encoding="utf-8"))["structures"]
    ml = [s for s in structures if s["volume_ml"] is not None]
    return {
        s["name"]: VolumeInterval(s["volume_ml"], s["low_ml"], s["high_ml"], s["level"]) for s in ml
    } or {s["name"]: VolumeInterval(s["voxels"], s["low_voxels"], s["high_voxels"], s["level"]) for s in structures}
