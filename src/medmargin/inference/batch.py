"""Many cases, one after the other: a bad one is listed and the others are finished."""

from __future__ import annotations

import errno
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from medmargin.errors import BudgetError, ConfigError, DataError, ToolkitError
from medmargin.imaging import Volume
from medmargin.inference.budget import peak_memory
from medmargin.inference.segmentation import PROMPTS_FROM_USER, Segmentation
from medmargin.inference.trust import CaseTrust
from medmargin.prompts.types import Prompt
from medmargin.storage import write_json

_SUFFIX = re.compile(r"\.(nii|nii\.gz|nrrd|mha|mhd|dcm|ima|png|tif|tiff|jpg|jpeg|npz)$", re.IGNORECASE)
FAILURES = "failed.json"


class Predictor(Protocol):
    """What segments a case: `PromptedPredictor`, which needs prompts, or `AutomaticPredictor`, which does not."""

    def predict(
        self,
        volume: Volume,
        prompts: Sequence[Prompt],
        *,
        labels: Mapping[str, int] | None = None,
        prompts_source: str = PROMPTS_FROM_USER,
        probabilities: bool = True,
    ) -> Segmentation:
        """Segment an image."""
        ...


@dataclass(frozen=True)
class Job:
    """One case to segment.

    Attributes:
        name: of the case; its files start with it.
        load: reads the image and its prompts (none where the predictor needs none), when its turn comes.
    """

    name: str
    load: Callable[[], tuple[Volume, Sequence[Prompt]]]


@dataclass(frozen=True)
class CaseResult:
    """A finished case.

    Attributes:
        case: its name. files: written for it. seconds: reading, predicting and writing.
        peak_memory: most bytes the process had held when the case was done, None where the system does not say.
        segmentation: the answer, for callers that keep it; None otherwise.
        trust: what to expect of it, from a calibrated run.
    """

    case: str
    files: tuple[Path, ...]
    seconds: float
    peak_memory: int | None
    segmentation: Segmentation | None = None
    trust: CaseTrust | None = None


@dataclass(frozen=True)
class Failure:
    """A case that could not be finished: its name, what happened, and the exit code of that kind of error."""

    case: str
    error: str
    exit_code: int


@dataclass(frozen=True)
class BatchResult:
    """Finished cases and failures, each in the order of the jobs."""

    results: tuple[CaseResult, ...]
    failures: tuple[Failure, ...]


def case_name(path: Path | str) -> str:
    """Name a case after its file or folder, without the image suffix and nnU-Net's number of the first channel."""
    return _SUFFIX.sub("", Path(path).name).removesuffix("_0000")


def predict_cases(
    predictor: Predictor,
    jobs: Sequence[Job],
    out: Path | str,
    *,
    labels: dict[str, int] | None = None,
    prompts_source: str = PROMPTS_FROM_USER,
    probabilities: bool = False,
    keep: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> BatchResult:
    """Segment cases and write each one's files as soon as it is done.

    Args:
        predictor: what segments them.
        jobs: the cases, with different names.
        out: folder of the files; the list of failures is written to `failed.json` there, where there are any.
        labels: structure name -> label value, see `predict` of the predictor.
        prompts_source: where the prompts come from, for the record.
        probabilities: also write a probability map per structure.
        keep: hold every segmentation in the result (memory grows with the number of cases).
        progress: called with (cases done, all cases, name of the next case or "").

    Returns:
        What was finished and what failed: the caller decides whether that is a `PartialFailure`.

    Raises:
        ConfigError: two cases have one name, so that one would overwrite the other.
        BudgetError: the folder cannot be written.
    """
    twice = [name for name, count in Counter(job.name for job in jobs).items() if count > 1]
    if twice:
        raise ConfigError(f"several inputs are called '{twice[0]}'. Rename them, or give each its own output folder.")
    folder = _writable(Path(out))
    results: list[CaseResult] = []
    failures: list[Failure] = []
    for done, job in enumerate(jobs):
        if progress is not None:
            progress(done, len(jobs), job.name)
        start = time.perf_counter()
        try:
            volume, prompts = job.load()
            segmentation = predictor.predict(
                volume, prompts, labels=labels, prompts_source=prompts_source, probabilities=probabilities or keep
            )
            files = segmentation.save(folder, job.name, probabilities=probabilities)
        except (ToolkitError, OSError, MemoryError, RuntimeError) as error:
            failures.append(_failure(job.name, error))
            write_json(folder / FAILURES, [asdict(failure) for failure in failures])
            continue
        seconds = time.perf_counter() - start
        kept = segmentation if keep else None
        results.append(CaseResult(job.name, tuple(files), seconds, peak_memory(), kept, segmentation.trust))
    if progress is not None:
        progress(len(jobs), len(jobs), "")
    return BatchResult(tuple(results), tuple(failures))


def _writable(folder: Path) -> Path:
    """Make the output folder, without a list of failures of an earlier batch."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILURES).unlink(missing_ok=True)
    except OSError as error:
        raise BudgetError(f"{folder}: cannot write results here ({error.strerror}). Choose another folder.") from error
    return folder


def _failure(case: str, error: Exception) -> Failure:
    """Describe an error of one case; a fault of the program itself is raised again."""
    known = _as_toolkit_error(error)
    if known is None:
        raise error
    return Failure(case, f"{type(known).__name__}: {known}", known.exit_code)


def _as_toolkit_error(error: Exception) -> ToolkitError | None:
    if isinstance(error, ToolkitError):
        return error
    # torch reports exhausted memory as a RuntimeError
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        return BudgetError(f"no memory left ({error or 'no details'}). Bound it with --memory, or crop the image.")
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return BudgetError(f"the disk is full ({error})") if full else DataError(f"the file cannot be used ({error})")
    return None
