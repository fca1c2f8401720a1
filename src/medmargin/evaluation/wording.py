"""The headline of the report: the result in sentences that need no training in statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_USEFUL_AUROC, _USELESS_AUROC = 0.65, 0.55
_NOTICEABLE_GAP = 0.05
_LARGE_DOUBT = 0.02
_CHANCE = 0.05


@dataclass(frozen=True)
class Statement:
    """One headline: what was asked, the figure, and what it means. `tone` is "good", "bad" or "plain"."""

    question: str
    figure: str
    meaning: str
    tone: str = "plain"


def headlines(answer: Mapping[str, Any]) -> list[Statement]:
    """Say the result of an `evaluate --json` answer in words, the most important first."""
    summary = answer["summary"]
    if not summary["n"]:
        return [Statement("How good are the masks?", "no result", "No case could be measured.", "bad")]
    statements = [_overlap(summary, answer["conventions"]), _floors(summary), _missed(summary)]
    statements += [_error_detection(summary["uncertainty"]), _calibration(answer), _volumes(summary["volume_coverage"])]
    statements += [_raters(summary["raters"]), _subgroups(summary["subgroups"])]
    return [statement for statement in statements if statement is not None]


def _overlap(summary: Mapping[str, Any], conventions: Mapping[str, Any]) -> Statement:
    mean = summary["mean"]
    tolerances = ((conventions[f"nsd_tolerance_{unit}"], unit) for unit in ("mm", "px"))
    near = " or ".join(f"{tolerance:g} {unit}" for tolerance, unit in tolerances if tolerance is not None)
    meaning = (
        f"Mean Dice over {_count(summary['n'], 'case')} of {_count(summary['n_patients'], 'patient')}: the overlap of "
        "the masks with the expert's outlines, where 1 is identical. "
    )
    if mean["dice_ci95"]:
        low, high = mean["dice_ci95"]
        meaning += f"With other patients of this kind the mean would be {low:.2f} to {high:.2f}. "
    meaning += f"{100 * mean['nsd']:.0f} % of the outlines lie within {near} of each other (NSD)."
    return Statement("How good are the masks?", f"{mean['dice']:.2f}", meaning)


def _floors(summary: Mapping[str, Any]) -> Statement | None:
    floors = {name: floor["dice"] for name, floor in summary["floors"].items() if floor["dice"] is not None}
    if not floors:
        return None
    name, best = max(floors.items(), key=lambda pair: pair[1])
    gain = summary["mean"]["dice"] - best
    others = " and ".join(f"the {floor} alone {dice:.2f}" for floor, dice in floors.items())
    meaning = f"The boxes were taken from the truth and give part of the answer away: {others}. "
    if gain > 0:
        meaning += f"The model adds {gain:.2f} Dice to the better of them."
    else:
        meaning += f"The model does not even reach the {name}: it has shown nothing yet."
    return Statement("Is it more than the prompt?", f"{gain:+.2f}", meaning, "good" if gain > 0 else "bad")


def _missed(summary: Mapping[str, Any]) -> Statement | None:
    missed = sum(figures["n_missed"] for figures in summary["structures"].values())
    false = sum(figures["n_false"] for figures in summary["structures"].values())
    if not missed and not false:
        return None
    meaning = (
        f"{_count(missed, 'structure')} in the truth got no mask, {_count(false, 'mask')} marked a structure that is "
        "not there. They count with Dice 0 and with the image diagonal as distance."
    )
    return Statement("Was anything missed?", f"{missed + false}", meaning, "bad")


def _error_detection(uncertainty: Mapping[str, Any]) -> Statement:
    question = "Does it know where it is wrong?"
    near = uncertainty["band"]["auroc"]
    if near is None:
        return Statement(question, "not known", _sentence(uncertainty["band"]["auroc_reason"]))
    meaning = (
        f"Near borders, in {100 * near:.0f} of 100 pairs of a wrong and a right voxel the wrong one is the more "
        "uncertain (AUROC; 50 is a coin toss)."
    )
    if near >= _USEFUL_AUROC:
        return Statement(question, f"{near:.2f}", meaning, "good")
    meaning += " That is only a hint." if near > _USELESS_AUROC else " The map says nothing about errors."
    return Statement(question, f"{near:.2f}", meaning, "plain" if near > _USELESS_AUROC else "bad")


def _calibration(answer: Mapping[str, Any]) -> Statement:
    question = "Can its probabilities be believed?"
    near = answer["summary"]["uncertainty"]["band"]
    if near["ece"] is None:
        return Statement(question, "not known", _sentence(near["ece_reason"]))
    points = answer["curves"]["reliability"]["band"]
    voxels = sum(point["voxels"] for point in points)
    excess = sum(point["voxels"] * (point["confidence"] - point["observed"]) for point in points) / voxels
    tendency = "no clear tendency"
    if abs(excess) > _LARGE_DOUBT:
        tendency = "on the whole too sure" if excess > 0 else "on the whole not sure enough"
    meaning = (
        f"Near borders the stated probability and the share that was right differ by {100 * near['ece']:.0f} points on "
        f"average (ECE), {tendency}. " + ("" if answer["calibrated"] else "It was not calibrated on held-out patients.")
    )
    return Statement(question, f"{near['ece']:.2f}", meaning, "bad" if near["ece"] > _NOTICEABLE_GAP else "good")


def _volumes(coverage: Mapping[str, Any]) -> Statement | None:
    if not coverage["n"]:
        return None
    figure = f"{coverage['n_covered']} of {coverage['n']}"
    meaning = "of the true volumes lie inside the predicted interval"
    if coverage["level"] is None:
        return Statement("Do the volume intervals hold?", figure, f"{meaning}.")
    holds = coverage["covered"] >= coverage["level"]
    meaning += f"; {100 * coverage['level']:.0f} % should."
    return Statement("Do the volume intervals hold?", figure, meaning, "good" if holds else "bad")


def _raters(raters: Mapping[str, Any] | None) -> Statement | None:
    if raters is None:
        return None
    experts, program = (raters["mean"][name]["mean"] for name in ("rater_dice", "mask_dice"))
    if experts is None or program is None:
        return None
    meaning = (
        f"The program agrees with an expert with a Dice of {program:.2f}, two experts with each other with "
        f"{experts:.2f} (mean over {_count(raters['n'], 'case')}): more than that cannot be asked for."
    )
    question = "Is it as close to the experts as they are to each other?"
    return Statement(question, f"{program - experts:+.2f}", meaning, "good" if program >= experts else "plain")


def _subgroups(subgroups: Mapping[str, Any] | None) -> Statement | None:
    ranked = {name: found for name, found in (subgroups or {}).items() if found.get("gap_ci95")}
    if not ranked:
        return None
    question = "Is any group of patients served worse?"
    compared = f"{_count(len(ranked), 'attribute')} compared"
    name, found = min(ranked.items(), key=lambda pair: pair[1]["gap_p"])
    chance = min(1.0, len(ranked) * found["gap_p"])  # Bonferroni
    if chance > _CHANCE:
        meaning = f"No difference between groups is larger than chance can explain ({compared})."
        return Statement(question, "not shown", meaning)
    meaning = (
        f"By {name}, '{found['worst']}' has a mean Dice {found['gap']:.2f} lower than '{found['best']}' ({compared}; "
        f"groups drawn by lot differ as much with p = {chance:.3f})."
    )
    return Statement(question, f"{-found['gap']:+.2f}", meaning, "bad")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _sentence(reason: str) -> str:
    return f"{reason[0].upper()}{reason[1:]}."
