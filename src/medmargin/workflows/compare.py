"""Compare: read the results of several evaluations, and say which differ by more than the patients do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmargin.errors import ConfigError, DataError
from medmargin.evaluation.comparison import compare_results

_EVALUATION = "metrics.json"  # of a run folder: its last evaluation
_NEEDED = {"cases": list, "conventions": dict, "summary": dict}
_NEEDED_OF_CASE = {"case": str, "patient": str, "structures": dict, "uncertainty": dict}


def compare(
    results: Sequence[Path | str], *, metrics: Sequence[str] | None = None, report: Path | str | None = None
) -> dict[str, Any]:
    """Compare evaluations, paired by patient.

    Args:
        results: files that `evaluate --json` printed, or run folders with a `metrics.json`.
        metrics: see `compare_results`.
        report: HTML file to write.

    Returns:
        The object of `compare --json`.

    Raises:
        ConfigError: a run without an evaluation, or one result given twice. DataError: a file that is no evaluation.
    """
    paths = [_file(Path(result)) for result in results]
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError("one of the results is given twice; a result differs from itself in nothing")
    answers = dict(zip(_names(paths), (_read(path) for path in paths), strict=True))
    comparison = compare_results(answers, metrics)
    for described, path in zip(comparison["results"], paths, strict=True):
        described["file"] = str(path)
    if report is not None:
        from medmargin.evaluation.comparison_report import write_comparison

        write_comparison(report, comparison)
    return comparison


def _file(result: Path) -> Path:
    if result.is_file():
        return result
    if (result / _EVALUATION).is_file():
        return result / _EVALUATION
    advice = f"Run: medmargin evaluate {result} DATASET --json > {result.name}.json, and pass that file."
    if result.is_dir():
        raise ConfigError(f"{result}: the folder holds no evaluation ({_EVALUATION}). {advice}")
    raise ConfigError(f"{result}: no such file or run folder. {advice}")


def _names(paths: Sequence[Path]) -> list[str]:
    """Name results by file, a run by its folder; longer where two are called alike."""
    parts = [(path.parent if path.name == _EVALUATION else path.with_suffix("")).resolve().parts for path in paths]
    length = 1
    while len({own[-length:] for own in parts}) < len(parts) and length < max(map(len, parts)):
        length += 1
    names = ["/".join(own[-length:]) for own in parts]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _read(path: Path) -> dict[str, Any]:
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a JSON file ({error}). Pass what `medmargin evaluate --json` printed.") from error
    _require(path, "the file", answer, _NEEDED)
    for position, entry in enumerate(answer["cases"]):
        _require(path, f"case {position}", entry, _NEEDED_OF_CASE)
    return answer


def _require(path: Path, where: str, found: Any, needed: Mapping[str, type]) -> None:
    for key, kind in needed.items():
        if not isinstance(found, dict) or not isinstance(found.get(key), kind):
            raise DataError(
                f"{path}: {where} has no '{key}' ({kind.__name__}): it is not a result of `medmargin evaluate --json`"
            )
