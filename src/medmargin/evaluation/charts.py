"""The charts of the report: calibration, selective prediction, overlap per case, volume intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from medmargin.evaluation.palette import ALARM_COLOUR, DATA_COLOUR, INTERVAL_COLOUR, QUIET_COLOUR, dot, png

_FLOOR_MARKERS = "sDv^"
_REGIONS = {"whole": "all voxels", "band": "near borders"}
_Curves = Mapping[str, Sequence[Mapping[str, float]] | None]


def reliability_figure(after: _Curves, before: _Curves | None = None) -> bytes:
    """Draw the observed share of right voxels against the stated probability; beside it that before calibration.

    Args:
        after, before: "whole" and "band" -> points of `curves`, or None where there are none.
    """
    if before is None:
        figure, axis = _chart(5.2, 4.6)
        _draw_reliability(axis, after)
        return png(figure)
    figure = Figure(figsize=(9.6, 4.9), layout="constrained")
    for axis, curves, when in zip(figure.subplots(1, 2), (before, after), ("before", "after"), strict=True):
        _tidy(axis)
        _draw_reliability(axis, curves)
        errors = (f"{label} {_gap(points):.3f}" for key, label in _REGIONS.items() if (points := curves[key]))
        axis.set_title(f"{when} calibration\nECE: {', '.join(errors)}", fontsize=10, loc="left")
    return png(figure)


def _draw_reliability(axis: Axes, curves: _Curves) -> None:
    axis.plot([0, 1], [0, 1], color=QUIET_COLOUR, linestyle=(0, (4, 3)), linewidth=1, label="perfect")
    # Where only border voxels are unsure the two lines coincide: the lower one is drawn wider to stay visible.
    for region, colour, marker, size, width in (
        ("whole", INTERVAL_COLOUR, "s", 10, 4.0),
        ("band", DATA_COLOUR, "o", 4, 1.5),
    ):
        if points := curves[region]:
            confidence, observed = ([point[key] for point in points] for key in ("confidence", "observed"))
            label = _REGIONS[region]
            axis.plot(confidence, observed, color=colour, marker=marker, markersize=size, linewidth=width, label=label)
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axis.set_xlabel("probability the program stated")
    axis.set_ylabel("share of these voxels that were right")
    axis.text(0.97, 0.06, "below the line: too sure", ha="right", color=QUIET_COLOUR, fontsize=9)
    axis.text(0.03, 0.9, "above the line:\nnot sure enough", color=QUIET_COLOUR, fontsize=9)
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.1))


def _gap(points: Sequence[Mapping[str, float]]) -> float:
    """ECE of the points of a curve."""
    gaps = sum(point["voxels"] * abs(point["confidence"] - point["observed"]) for point in points)
    return gaps / sum(point["voxels"] for point in points)


def selective_figure(points: Mapping[str, Sequence[float]]) -> bytes:
    """Draw the mean Dice of the cases kept when the least certain ones go to a person."""
    figure, axis = _chart(5.2, 4.6)
    given_up, kept_dice = _selective(points["coverage"], points["risk"])
    best_given_up, best_dice = _selective(points["oracle_coverage"], points["oracle_risk"])
    axis.plot(best_given_up, best_dice, color=QUIET_COLOUR, linestyle=(0, (4, 3)), label="best possible order")
    axis.plot(given_up, kept_dice, color=DATA_COLOUR, marker="o", markersize=3, label="order by uncertainty")
    axis.axhline(kept_dice[0], color=QUIET_COLOUR, linewidth=1, linestyle=(0, (1, 2)), label="random order")
    axis.set(xlim=(0, 100))
    axis.set_xlabel("cases handed to a person, least certain first (%)")
    axis.set_ylabel("mean Dice of the cases kept")
    axis.legend(frameon=False, loc="best")
    return png(figure)


def dice_figure(entries: Sequence[Mapping[str, Any]], floors: Mapping[str, Any]) -> bytes:
    """Draw the Dice of every case, its median and the floors, one row per structure."""
    names = list(entries[0]["structures"])
    figure, axis = _chart(7.4, 0.7 * len(names) + 1.5)
    jitter = np.random.default_rng(0).uniform(-0.16, 0.16, len(entries))
    for row, name in enumerate(names):
        values = np.array([entry["structures"][name]["dice"] for entry in entries])
        axis.scatter(values, row + jitter, s=22, color=DATA_COLOUR, alpha=0.55, linewidths=0, zorder=3)
        axis.plot([np.median(values)] * 2, [row - 0.3, row + 0.3], color="black", linewidth=2.2, zorder=4)
        for marker, (_, floor) in zip(_FLOOR_MARKERS, floors.items(), strict=False):
            if floor.get("structures"):
                dice = floor["structures"][name]
                axis.scatter(dice, row, marker=marker, s=64, color=ALARM_COLOUR, edgecolors="white", zorder=5)
    handles = [dot(DATA_COLOUR, "o", "one case"), Line2D([], [], color="black", linewidth=2.2, label="median")]
    shown = [name for name, floor in floors.items() if floor.get("structures")]
    handles += [dot(ALARM_COLOUR, marker, f"{name} alone") for marker, name in zip(_FLOOR_MARKERS, shown, strict=False)]
    axis.legend(handles=handles, frameon=False, ncols=len(handles), loc="lower left", bbox_to_anchor=(0, 1.0))
    axis.set_yticks(range(len(names)), names)
    axis.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5))
    axis.set_xlabel("Dice (1 = identical to the expert's outline)")
    return png(figure)


def volume_figure(volumes: Mapping[str, Sequence[Mapping[str, float]]], unit: str) -> bytes:
    """Draw true volumes and predicted intervals, one panel per structure, the cases sorted by true volume."""
    columns = min(2, len(volumes))
    rows = math.ceil(len(volumes) / columns)
    figure = Figure(figsize=(5.2 * columns if columns > 1 else 6.4, 3.3 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, cases) in zip(axes, volumes.items(), strict=False):
        _tidy(axis)
        ordered = sorted(cases, key=lambda case: case["true"])
        low, high, true = (np.array([case[key] for case in ordered]) for key in ("low", "high", "true"))
        inside = (low <= true) & (true <= high)
        position = np.arange(len(ordered))
        size = min(18.0, max(5.0, 1000 / len(ordered)))  # many cases: dots that do not hide the next interval
        axis.vlines(position, low, high, color=INTERVAL_COLOUR, linewidth=max(0.8, min(6.0, 180 / len(ordered))))
        axis.scatter(position[inside], true[inside], s=size, color=DATA_COLOUR, zorder=3)
        axis.scatter(
            position[~inside],
            true[~inside],
            s=max(26.0, 1.9 * size),
            color=ALARM_COLOUR,
            marker="X",
            linewidths=0,
            zorder=4,
        )
        axis.set_title(f"{name}: {inside.sum()} of {inside.size} inside", fontsize=10, loc="left")
        axis.set_ylabel(f"size ({unit})")
        axis.set_xticks([])
        axis.set_xlabel("cases, by true volume")
    for axis in axes[len(volumes) :]:
        axis.set_axis_off()
    handles = [
        Line2D([], [], color=INTERVAL_COLOUR, linewidth=5, label="predicted interval"),
        dot(DATA_COLOUR, "o", "true volume"),
        dot(ALARM_COLOUR, "X", "true volume outside"),
    ]
    figure.legend(handles=handles, frameon=False, ncols=3, loc="outside upper left")
    return png(figure)


def _selective(coverage: Sequence[float], risk: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percent of cases given up and Dice of the rest, without the point at which nothing is left."""
    return 100.0 * (1.0 - np.array(coverage[:-1])), 1.0 - np.array(risk[:-1])


def _chart(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    _tidy(axis)
    return figure, axis


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#E5E7EB", linewidth=0.8)
    axis.set_axisbelow(True)
