"""The report: one HTML file that explains itself, with everything in it and no link out of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from medmargin.evaluation.case_figures import case_figure
from medmargin.evaluation.charts import dice_figure, reliability_figure, selective_figure, volume_figure
from medmargin.evaluation.glossary import GLOSSARY
from medmargin.evaluation.pictures import Picture
from medmargin.evaluation.wording import headlines
from medmargin.storage import atomic_path

_CASES_SHOWN = 15  # rows of the table before the rest is folded away


def write_report(
    path: Path | str,
    answer: Mapping[str, Any],
    pictures: Sequence[Picture] = (),
    *,
    structures: Mapping[str, int],
    title: str,
    warnings: Sequence[str] = (),
) -> None:
    """Write the report of an evaluation.

    Args:
        path: the HTML file.
        answer: what `summarise` returned.
        pictures: slices to show, the worst case first (see `Gallery`).
        structures: name -> label value.
        title: name of the system and the data set.
        warnings: what readers and predictors had to decide for the user, one sentence each.

    Raises:
        BudgetError: the file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("medmargin.evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": _number, "interval": _interval, "signed": _signed}
    text = environment.get_template("report.html.j2").render(
        answer=answer,
        summary=answer["summary"],
        title=title,
        warnings=list(warnings),
        headlines=headlines(answer),
        charts=_charts(answer),
        pictures=_case_pictures(pictures, structures),
        cases=sorted(answer["cases"], key=_quality),
        cases_shown=_CASES_SHOWN,
        unit="px" if any("volumes_px" in entry for entry in answer["cases"]) else "mm",
        glossary=GLOSSARY,
        mean_dice=_quality,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _charts(answer: Mapping[str, Any]) -> dict[str, str]:
    """Embedded charts by name; one whose numbers do not exist is left out."""
    charts: dict[str, str] = {}
    entries, curves = answer["cases"], answer["curves"]
    if entries:
        charts["dice"] = _embedded(dice_figure(entries, answer["summary"]["floors"]))
    if curves["reliability"]["whole"]:
        points = curves["reliability"]
        charts["reliability"] = _embedded(reliability_figure(points["whole"], points["band"]))
    if curves["risk_coverage"]:
        charts["selective"] = _embedded(selective_figure(curves["risk_coverage"]))
    volumes: dict[str, list[Mapping[str, float]]] = {}
    for entry in entries:
        for name, volume in (entry.get("volumes_px") or entry["volumes_ml"]).items():
            if volume["low"] is not None:
                volumes.setdefault(name, []).append(volume)
    if volumes:
        unit = "pixels" if any("volumes_px" in entry for entry in entries) else "ml"
        charts["volumes"] = _embedded(volume_figure(volumes, unit))
    return charts


def _case_pictures(pictures: Sequence[Picture], structures: Mapping[str, int]) -> list[dict[str, Any]]:
    maps = [shown.uncertainty for shown in pictures if shown.uncertainty is not None]
    most_uncertain = max((float(np.max(values)) for values in maps), default=0.0) or 1.0
    return [
        {
            "shown": shown,
            "image": _embedded(case_figure(shown, structures, most_uncertain=most_uncertain)),
        }
        for shown in pictures
    ]


def _embedded(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}"


def _quality(entry: Mapping[str, Any]) -> float:
    return float(np.mean([figures["dice"] for figures in entry["structures"].values()]))


def _number(value: float | None, digits: int = 2, reason: str | None = None) -> str:
    """A number, or "n/a" with the reason shown on hovering."""
    if value is not None:
        return f"{value:.{digits}f}"
    return Markup('<abbr title="{}">n/a</abbr>').format(reason) if reason else escape("n/a")


def _interval(ends: Sequence[float] | None, digits: int = 2) -> str:
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}" if ends else "n/a"


def _signed(value: float | None, reason: str | None = None) -> str:
    return _number(value, 0, reason) if value is None else f"{100 * value:+.0f} %"
