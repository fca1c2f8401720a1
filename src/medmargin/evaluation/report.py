"""The report: one HTML file that explains itself, with everything in it and no link out of it; or the same on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmargin.evaluation.error_overlap import UEO_THRESHOLD
from medmargin.evaluation.glossary import GLOSSARY
from medmargin.evaluation.page import embedded, write_page
from medmargin.evaluation.pictures import Picture
from medmargin.evaluation.report_figures import (
    distance_unit,
    mean_dice,
    report_charts,
    report_contrast,
    report_pictures,
)
from medmargin.evaluation.report_pdf import write_pdf
from medmargin.evaluation.subgroups import FEWEST_PATIENTS
from medmargin.evaluation.wording import headlines

_CASES_SHOWN = 15  # rows of the table before the rest is folded away


def write_report(
    path: Path | str,
    answer: Mapping[str, Any],
    pictures: Sequence[Picture] = (),
    *,
    structures: Mapping[str, int | Sequence[int]],
    title: str,
    contrast: Mapping[str, Picture] | None = None,
    warnings: Sequence[str] = (),
) -> None:
    """Write the report of an evaluation.

    Args:
        path: the file: a PDF where its suffix is .pdf, else HTML.
        answer: what `summarise` returned; its `calibration_before`, where it is added, holds the `curves` before
            calibration.
        pictures: slices to show, the worst case first (see `Gallery`).
        structures: name -> label value, or the values in a region.
        title: name of the system and the data set.
        contrast: the worst, median and best case by these words, to show errors beside uncertainty (see `Gallery`).
        warnings: what readers and predictors had to decide for the user, one sentence each.

    Raises:
        BudgetError: the file cannot be written.
    """
    if Path(path).suffix.lower() == ".pdf":
        write_pdf(
            path, answer, pictures, structures=structures, title=title, warnings=warnings, contrast=contrast
        )  # fmt: skip
        return
    images = report_pictures(pictures, structures)
    charts = report_charts(answer)
    if (errors := report_contrast(contrast or {}, structures)) is not None:
        charts["contrast"] = errors
    summary = answer["summary"]
    raters, subgroups = summary["raters"], summary["subgroups"] or {}
    write_page(
        path,
        "report.html.j2",
        answer=answer,
        summary=summary,
        regions=[("near borders", summary["uncertainty"]["band"]), ("all voxels", summary["uncertainty"])],
        ueo_threshold=UEO_THRESHOLD,
        rater_rows=[*raters["structures"].items(), ("mean", raters["mean"])] if raters else [],
        subgroups={name: found for name, found in subgroups.items() if "groups" in found},
        ungrouped={name: found for name, found in subgroups.items() if "groups" not in found},
        fewest_patients=FEWEST_PATIENTS,
        title=title,
        warnings=list(warnings),
        headlines=headlines(answer),
        charts={name: embedded(image) for name, image in charts.items()},
        pictures=[{"shown": s, "image": embedded(image)} for s, image in zip(pictures, images, strict=True)],
        cases=sorted(answer["cases"], key=mean_dice),
        cases_shown=_CASES_SHOWN,
        unit=distance_unit(answer),
        glossary=GLOSSARY,
    )
