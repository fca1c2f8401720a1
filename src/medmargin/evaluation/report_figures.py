"""The pictures of a report by name, for whichever form it takes (HTML, PDF)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medmargin.evaluation.case_figures import case_figure
from medmargin.evaluation.charts import dice_figure, reliability_figure, selective_figure, volume_figure
from medmargin.evaluation.contrast_figure import contrast_figure
from medmargin.evaluation.pictures import Picture


def report_charts(answer: Mapping[str, Any]) -> dict[str, bytes]:
    """Draw the charts of an `evaluate --json` answer as PNG: dice, reliability, selective, volumes.

    One whose numbers do not exist is left out.
    """
    charts: dict[str, bytes] = {}
    entries, curves = answer["cases"], answer["curves"]
    if entries:
        charts["dice"] = dice_figure(entries, answer["summary"]["floors"])
    if curves["reliability"]["whole"]:
        before = answer.get("calibration_before")
        charts["reliability"] = reliability_figure(curves["reliability"], before and before["reliability"])
    if curves["risk_coverage"]:
        charts["selective"] = selective_figure(curves["risk_coverage"])
    volumes: dict[str, list[Mapping[str, float]]] = {}
    for entry in entries:
        for name, volume in (entry.get("volumes_px") or entry["volumes_ml"]).items():
            if volume["low"] is not None:
                volumes.setdefault(name, []).append(volume)
    if volumes:
        unit = "pixels" if any("volumes_px" in entry for entry in entries) else "ml"
        charts["volumes"] = volume_figure(volumes, unit)
    return charts


def report_pictures(pictures: Sequence[Picture], structures: Mapping[str, int | Sequence[int]]) -> list[bytes]:
    """Draw slices of cases as PNG, their uncertainty on one colour scale."""
    most_uncertain = _most_uncertain(pictures)
    return [case_figure(shown, structures, most_uncertain=most_uncertain) for shown in pictures]


def report_contrast(contrast: Mapping[str, Picture], structures: Mapping[str, int | Sequence[int]]) -> bytes | None:
    """Draw errors beside uncertainty (see `Gallery.contrast`) as PNG; None without uncertainty maps."""
    shown = {word: picture for word, picture in contrast.items() if picture.uncertainty is not None}
    if not shown:
        return None
    return contrast_figure(shown, structures, most_uncertain=_most_uncertain([*shown.values()]))


def _most_uncertain(pictures: Sequence[Picture]) -> float:
    maps = [shown.uncertainty for shown in pictures if shown.uncertainty is not None]
    return max((float(np.max(values)) for values in maps), default=0.0) or 1.0


def mean_dice(entry: Mapping[str, Any]) -> float:
    """Compute the mean Dice over the structures of a case: reports list the worst first."""
    return float(np.mean([figures["dice"] for figures in entry["structures"].values()]))


def distance_unit(answer: Mapping[str, Any]) -> str:
    """Tell the unit of the distances: "px" where a file does not say how large a pixel is, else "mm"."""
    return "px" if any("volumes_px" in entry for entry in answer["cases"]) else "mm"
