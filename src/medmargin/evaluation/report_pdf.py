"""The report on paper: the findings, figures and tables of the HTML report, for the file of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmargin.evaluation.glossary import GLOSSARY
from medmargin.evaluation.palette import ALARM_COLOUR, QUIET_COLOUR
from medmargin.evaluation.paper import INK, Paper, paper
from medmargin.evaluation.pictures import Picture
from medmargin.evaluation.report_figures import (
    distance_unit,
    mean_dice,
    report_charts,
    report_contrast,
    report_pictures,
)
from medmargin.evaluation.wording import headlines

_GOOD_COLOUR = "#00664B"
_TONES = {"good": _GOOD_COLOUR, "bad": ALARM_COLOUR, "plain": INK}
_DISCLAIMER = "For research, not a medical device: do not base care on it."


def write_pdf(
    path: Path | str,
    answer: Mapping[str, Any],
    pictures: Sequence[Picture] = (),
    *,
    structures: Mapping[str, int | Sequence[int]],
    title: str,
    warnings: Sequence[str] = (),
    contrast: Mapping[str, Picture] | None = None,
) -> None:
    """Write the report of an evaluation as PDF; arguments and errors as in `write_report`."""
    charts = report_charts(answer)
    if (errors := report_contrast(contrast or {}, structures)) is not None:
        charts["contrast"] = errors
    with paper(path, title=title, footer=_DISCLAIMER) as sheet:
        _findings(sheet, answer, title, warnings)
        if answer["cases"]:
            _overlap(sheet, answer, charts)
        if pictures:
            _cases_in_pictures(sheet, pictures, structures)
        if answer["cases"]:
            _uncertainty(sheet, answer, charts)
            _volumes(sheet, answer, charts)
            _raters(sheet, answer["summary"]["raters"])
            _subgroups(sheet, answer["summary"]["subgroups"] or {})
            _all_cases(sheet, answer)
        _explanations(sheet, answer)


def _findings(sheet: Paper, answer: Mapping[str, Any], title: str, warnings: Sequence[str]) -> None:
    sheet.paragraph(title, size=17, weight="bold")
    count = answer["summary"]["n"]
    sheet.paragraph(
        "How well a program outlined structures in medical images, and whether it knew its margin of error. Measured "
        f"on {count} case{'' if count == 1 else 's'} with an expert's outline. {_DISCLAIMER}",
        colour=QUIET_COLOUR,
    )
    sheet.space(0.1)
    for statement in headlines(answer):
        sheet.heading(f"{statement.question} {statement.figure}", size=11)
        sheet.paragraph(statement.meaning, colour=_TONES[statement.tone])
    if answer["failed"]:
        sheet.heading(f"Could not be measured, and in no number here: {len(answer['failed'])}", size=11)
        for failure in answer["failed"]:
            sheet.paragraph(f"{failure['case']}: {failure['error']}", size=8)
    if warnings:
        sheet.heading("Please note", size=11)
        for warning in warnings:
            sheet.paragraph(warning, size=8)


def _overlap(sheet: Paper, answer: Mapping[str, Any], charts: Mapping[str, bytes]) -> None:
    summary, unit = answer["summary"], distance_unit(answer)
    floors = {name: floor["structures"] for name, floor in summary["floors"].items() if "structures" in floor}
    rows = []
    for name, figures in summary["structures"].items():
        volume = figures["relative_volume_error"]["mean"]
        rows.append([
            name, _number(figures["dice"]["mean"]), _interval(figures["dice"]["ci95"]),
            *(_number(floor[name]) for floor in floors.values()),
            _number(figures["iou"]["mean"]), _number(figures["nsd"]["mean"]), _interval(figures["nsd"]["ci95"]),
            *(_number(figures[f"{distance}_{unit}"]["mean"], 1) for distance in ("hd95", "assd")),
            "n/a" if volume is None else f"{100 * volume:+.0f} %",
            *(str(figures[f"n_{state}"]) for state in ("missed", "false", "absent")),
        ])  # fmt: skip
    columns = ["Structure", "Dice", "95 % interval", *(f"{floor} alone" for floor in floors), "IoU", "NSD",
               "95 % interval", f"HD95 ({unit})", f"ASSD ({unit})", "Volume", "Missed", "False", "Absent"]  # fmt: skip
    sheet.heading("Overlap and distance, structure by structure")
    sheet.paragraph("Means over the cases. A structure that is rightly absent counts with Dice 1.", colour=QUIET_COLOUR)
    sheet.table(columns, rows)
    sheet.pictures([charts["dice"]], width=0.85)


def _cases_in_pictures(
    sheet: Paper, pictures: Sequence[Picture], structures: Mapping[str, int | Sequence[int]]
) -> None:
    sheet.heading("Cases in pictures, the worst first", below=3.0)
    for shown, image in zip(pictures, report_pictures(pictures, structures), strict=True):
        sheet.pictures([image])
        dice = ", ".join(f"{name} {value:.2f}" for name, value in shown.dice.items())
        place = f", {shown.place}" if shown.place else ""
        sheet.paragraph(f"{shown.case}{place}. Dice of the case: {dice}.", size=8)


def _uncertainty(sheet: Paper, answer: Mapping[str, Any], charts: Mapping[str, bytes]) -> None:
    found = answer["summary"]["uncertainty"]
    rows = [
        [region, *(_number(figures[name], digits) for name, digits in
                   (("auroc", 2), ("ece", 3), ("brier", 3), ("nll", 3), ("aurc", 4))),
         "n/a" if figures["error_rate"] is None else f"{100 * figures['error_rate']:.1f} %"]
        for region, figures in (("near borders", found["band"]), ("all voxels", found))
    ]  # fmt: skip
    if "contrast" in charts:
        sheet.pictures([charts["contrast"]], width=0.8, heading="Errors beside uncertainty")
    source = f"Voxels of all cases together. Uncertainty: {found['source'] or 'not recorded'}"
    if found["forward_passes"]:
        source += f", {found['forward_passes']} network evaluations per image"
    sheet.heading("Can its uncertainty be trusted?")
    calibrated = "calibrated" if answer["calibrated"] else "not calibrated"
    sheet.paragraph(f"{source}; {calibrated} on held-out patients.", colour=QUIET_COLOUR)
    sheet.table(["Region", "AUROC of errors", "ECE", "Brier", "NLL (nats)", "AURC", "Wrong voxels"], rows)
    side_by_side = [charts[name] for name in ("reliability", "selective") if name in charts]
    if side_by_side:
        sheet.pictures(side_by_side, width=0.5 * len(side_by_side))


def _volumes(sheet: Paper, answer: Mapping[str, Any], charts: Mapping[str, bytes]) -> None:
    if "volumes" not in charts:
        return
    coverage = answer["summary"]["volume_coverage"]
    sheet.pictures([charts["volumes"]], heading="Volumes with their interval")
    sheet.paragraph(f"{coverage['n_covered']} of {coverage['n']} true volumes lie inside the predicted interval.")
    rows = [
        [name, f"{found['n_covered']} of {found['n']}", _percent(found["covered"]), _percents(found["ci95"]),
         _percent(found["level"]), _percent(found["mean_relative_width"])]
        for name, found in coverage["structures"].items()
    ]  # fmt: skip
    columns = ["Structure", "Inside", "Share", "95 % interval", "Promised", "Mean width (of truth)"]
    sheet.table(columns, rows)


def _raters(sheet: Paper, raters: Mapping[str, Any] | None) -> None:
    if raters is None:
        return
    figures = {"rater_dice": "Experts (Dice)", "mask_dice": "Program with expert (Dice)", "ged": "GED, squared",
               "hungarian_iou": "Hungarian IoU", "sample_diversity": "Diversity"}  # fmt: skip
    sheet.heading("Compared with several experts")
    rows = [
        [name, *(_number(found[figure]["mean"], 3) for figure in figures)]
        for name, found in (*raters["structures"].items(), ("mean", raters["mean"]))
    ]
    sheet.table(["Structure", *figures.values()], rows)


def _subgroups(sheet: Paper, attributes: Mapping[str, Any]) -> None:
    if not attributes:
        return
    sheet.heading("Groups of patients")
    rows = []
    for attribute, found in attributes.items():
        for position, (group, figures) in enumerate(found.get("groups", {}).items()):
            dice = figures["dice"]
            rows.append([
                attribute if position == 0 else "", f"{group} (worst)" if group == found["worst"] else group,
                str(figures["n"]), str(figures["n_patients"]), _number(dice["mean"]), _interval(dice["ci95"]),
                _number(figures["nsd"]["mean"]), _number(figures["band_ece"]["mean"], 3),
                _number(found["gap"]) if position == 0 else "",
                _interval(found["gap_ci95"]) if position == 0 else "",
            ])  # fmt: skip
    if rows:
        columns = ["Attribute", "Group", "Cases", "Patients", "Dice", "95 % interval", "NSD", "ECE (borders)",
                   "Best minus worst", "95 % interval"]  # fmt: skip
        sheet.table(columns, rows, words=2)
    for attribute, found in attributes.items():
        if "groups" not in found:
            sheet.paragraph(f"Not compared: {attribute} ({found['reason']}).", size=8, colour=QUIET_COLOUR)


def _all_cases(sheet: Paper, answer: Mapping[str, Any]) -> None:
    unit = distance_unit(answer)
    size, digits = ("px", 0) if unit == "px" else ("ml", 2)
    rows = []
    for entry in sorted(answer["cases"], key=mean_dice):
        for position, (name, figures) in enumerate(entry["structures"].items()):
            volume = (entry.get("volumes_px") or entry["volumes_ml"])[name]
            error = figures["relative_volume_error"]
            ends = None if volume["low"] is None else (volume["low"], volume["high"])
            rows.append([
                entry["case"] if position == 0 else "", name, figures["state"], _number(figures["dice"]),
                _number(figures["nsd"]), _number(figures.get(f"hd95_{unit}"), 1),
                "n/a" if error is None else f"{100 * error:+.0f} %",
                _number(volume["true"], digits), _number(volume["estimate"], digits), _interval(ends, digits),
            ])  # fmt: skip
    columns = ["Case", "Structure", "State", "Dice", "NSD", f"HD95 ({unit})", "Volume", f"True ({size})", "Predicted",
               "Interval"]  # fmt: skip
    sheet.heading("All cases, the worst first")
    sheet.table(columns, rows, words=3, size=7)


def _explanations(sheet: Paper, answer: Mapping[str, Any]) -> None:
    sheet.heading("Glossary")
    for term, meaning in GLOSSARY.items():
        sheet.paragraph(f"{term}: {meaning}", size=8)
    sheet.heading("How it was measured, and with what")
    for part in ("conventions", "run", "versions"):
        for name, text in answer[part].items():
            if text is not None:
                sheet.paragraph(f"{name}: {text}", size=7)


def _number(value: float | None, digits: int = 2) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _interval(ends: Sequence[float] | None, digits: int = 2) -> str:
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}" if ends else "n/a"


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.0f} %"


def _percents(ends: Sequence[float] | None) -> str:
    return f"{100 * ends[0]:.0f} to {100 * ends[1]:.0f} %" if ends else "n/a"
