"""Predict: files and prompts in; label maps, uncertainty maps and a confidence table out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from medmargin.datasets.dataset import Dataset, open_dataset
from medmargin.datasets.loading import load_image
from medmargin.errors import ConfigError, DataError, PromptError
from medmargin.imaging import Volume, read_image, read_label
from medmargin.inference.batch import BatchResult, Job, case_name, predict_cases
from medmargin.inference.budget import parse_memory
from medmargin.inference.segmentation import NO_PROMPTS, PROMPTS_FROM_LABELS, PROMPTS_FROM_USER
from medmargin.prompts.files import parse_box, read_prompts
from medmargin.prompts.placement import to_voxels
from medmargin.prompts.types import Prompt
from medmargin.workflows.model import Model, load
from medmargin.workflows.true_prompts import prompts_of_labels
from medmargin.workflows.trust import write_review

_IMAGES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".npz")
PromptsOf = Callable[[str, Volume], Sequence[Prompt]]
Reader = Callable[[Path], Volume]


def predict(
    run: Path | str,
    inputs: Sequence[Path | str],
    out: Path | str,
    *,
    box: str | None = None,
    structure: str | None = None,
    boxes: Path | str | None = None,
    points: Path | str | None = None,
    prompts_from: Path | str | None = None,
    in_mm: bool = False,
    split: str | None = None,
    series: str | None = None,
    volume_index: int | None = None,
    to_gray: bool = False,
    uncertainty: str | None = None,
    members: Sequence[Path | str] = (),
    calibrated: bool = True,
    probabilities: bool = False,
    memory: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[BatchResult, dict[str, Any]]:
    """Segment images and write the results beside each other into one folder.

    Args:
        run: run folder, or slug of shipped weights.
        inputs: image files, folders of images, folders with one DICOM series, or data sets (their split `split`).
        out: folder of the results.
        box: "x_min,y_min,..." for one structure of every input; structure: its name.
        boxes, points: files of prompts (CSV, JSON, challenge NPZ). in_mm: their coordinates are RAS+ mm.
        prompts_from: label file, or folder of label files named like the cases: prompts are read off them (evaluation
            only, and said so in every result).
        split: of a data set: "train", "val", "test", ...
        series: which DICOM series of a folder. volume_index: which time point of a 4-D file.
        to_gray: turn colour pictures into grey ones.
        uncertainty, members, calibrated: see `load`. probabilities: write probability maps. memory: such as "4G".
        progress: called with (cases done, all cases, name).

    Returns:
        What was finished and what failed, and the JSON answer.

    Raises:
        ConfigError, PromptError: no input, no prompt, or prompts of two kinds that exclude each other.
    """
    limit = parse_memory(memory) if memory else None
    model = load(run, memory=limit, uncertainty=uncertainty, members=members, calibrated=calibrated)
    prompts_of = _prompt_source(model, box, structure, boxes, points, prompts_from, in_mm=in_mm)
    read = partial(read_image, series=series, volume_index=volume_index, to_gray=to_gray)
    jobs: list[Job] = []
    patients: dict[str, str] = {}
    for given in inputs:
        jobs += _jobs(given, prompts_of, read, patients, split=split)
    if not jobs:
        raise ConfigError(f"no image found in {', '.join(str(given) for given in inputs)}")
    is_asked = box is not None or boxes is not None or points is not None
    source = PROMPTS_FROM_LABELS if prompts_from else PROMPTS_FROM_USER if is_asked else NO_PROMPTS
    result = predict_cases(
        model.predictor, jobs, out, labels=model.labels, prompts_source=source, probabilities=probabilities,
        progress=progress,
    )  # fmt: skip
    return result, _answer(result, Path(out), source, model, patients)


def _answer(result: BatchResult, out: Path, source: str, model: Model, patients: Mapping[str, str]) -> dict[str, Any]:
    cases = [
        {"case": case.case, "files": [str(file) for file in case.files], "seconds": round(case.seconds, 3),
         "peak_memory_bytes": case.peak_memory}
        for case in result.results
    ]  # fmt: skip
    failed = [{"case": failure.case, "error": failure.error} for failure in result.failures]
    answer = {"out": str(out), "prompts": source, "calibrated": model.calibrated, "cases": cases, "failed": failed}
    if model.warning:
        answer["warning"] = model.warning
    reviewed = ((case.case, patients.get(case.case, case.case), case.trust) for case in result.results)
    files, reason = write_review(out, reviewed)
    answer["review"] = [str(file) for file in files] or None
    return answer if files else answer | {"review_reason": reason}


def _prompt_source(
    model: Model,
    box: str | None,
    structure: str | None,
    boxes: Path | str | None,
    points: Path | str | None,
    labels: Path | str | None,
    *,
    in_mm: bool,
) -> PromptsOf:
    """Return a function from a case to its prompts."""
    from_files = boxes is not None or points is not None
    kinds = sum((box is not None, from_files, labels is not None))
    if kinds == 0 and model.automatic:
        return lambda case, volume: []
    if kinds != 1:
        raise PromptError(
            "a promptable model needs prompts of one kind: --box, files with --boxes and/or --points, or "
            "--prompts-from labels (evaluation only)"
        )
    if labels is not None:
        folder = Path(labels)
        return lambda case, volume: prompts_of_labels(
            read_label(_label_of(case, folder)), model.labels or {}, dims=volume.dims
        )
    if box is not None:
        name = structure or next(iter(model.task.structures), "object 1")
        typed = Prompt(name, box=parse_box(box))
        return lambda case, volume: _placed([typed], volume, in_mm=in_mm)
    by_case: dict[str, list[Prompt]] = {}
    for file in (boxes, points):
        for case, prompts in (read_prompts(file) if file is not None else {}).items():
            by_case.setdefault(case_name(case), []).extend(prompts)

    def of_case(case: str, volume: Volume) -> Sequence[Prompt]:
        if case not in by_case:
            raise PromptError(f"{case}: no prompt in {boxes or points}; it names {', '.join(list(by_case)[:5])} ...")
        return _placed(by_case[case], volume, in_mm=in_mm)

    return of_case


def _placed(prompts: Sequence[Prompt], volume: Volume, *, in_mm: bool) -> list[Prompt]:
    return [to_voxels(prompt, volume.grid) if in_mm else prompt for prompt in prompts]


def _jobs(
    given: Path | str, prompts_of: PromptsOf, read: Reader, patients: dict[str, str], *, split: str | None
) -> list[Job]:
    """List the cases of one input; `patients` takes the patient of each, where it is known."""
    path = Path(given)
    if split is not None or not path.exists():
        dataset = open_dataset(given)
        cases = dataset.split(split or "test")
        patients |= {case.name: case.patient for case in cases}
        return [_case_job(dataset, case, prompts_of) for case in cases]
    if path.is_file():
        return [_file_job(path, prompts_of, read)]
    images = sorted(file for file in path.iterdir() if file.is_file() and file.name.lower().endswith(_IMAGES))
    if images:
        return [_file_job(file, prompts_of, read) for file in images]
    return [_file_job(path, prompts_of, read)]  # a folder of DICOM files


def _file_job(path: Path, prompts_of: PromptsOf, read: Reader) -> Job:
    name = case_name(path)

    def load_case() -> tuple[Volume, Sequence[Prompt]]:
        volume = read(path)
        return volume, prompts_of(name, volume)

    return Job(name, load_case)


def _case_job(dataset: Dataset, case: Any, prompts_of: PromptsOf) -> Job:
    def read() -> tuple[Volume, Sequence[Prompt]]:
        volume = load_image(case, dataset.task)
        return volume, prompts_of(case.name, volume)

    return Job(case.name, read)


def _label_of(case: str, labels: Path) -> Path:
    """Find the label file of a case."""
    if labels.is_file():
        return labels
    found = [file for file in labels.iterdir() if file.is_file() and case_name(file) in (case, f"{case}_seg")]
    if len(found) != 1:
        raise DataError(f"{case}: expected one label file named like the case in {labels}, found {len(found)}")
    return found[0]
