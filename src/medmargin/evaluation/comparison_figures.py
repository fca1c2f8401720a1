"""The picture of a comparison: every patient's difference, and the mean difference with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medmargin.evaluation.palette import ALARM_COLOUR, DATA_COLOUR, QUIET_COLOUR, dot, png

_GOOD_COLOUR = "#009E73"
_ROW_HEIGHT = 0.42  # inches


def difference_figure(metric: Mapping[str, Any]) -> bytes:
    """Draw the differences of a metric, one line per structure and pair of results; dots are patients.

    Args:
        metric: an entry of `metrics` of `compare --json` with at least one pair.

    Returns:
        A PNG file. The direction is the same for all metrics: right of 0 the first result of the pair is better.
    """
    lines = [(name, row, pair) for name, row in metric["rows"].items() for pair in row["pairs"]]
    figure = Figure(figsize=(8.6, _ROW_HEIGHT * len(lines) + 1.5), layout="constrained")
    axis = figure.subplots()
    sign = 1 if metric["better"] == "higher" else -1
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, max(pair["n"] for _, _, pair in lines))
    for level, (_, row, pair) in enumerate(lines):
        differences = sign * (np.array(row["values"][pair["first"]]) - row["values"][pair["second"]])
        axis.scatter(
            differences,
            level + jitter[: differences.size],
            s=16,
            color=QUIET_COLOUR,
            alpha=0.45,
            linewidths=0,
            zorder=2,
        )
        _draw_mean(axis, pair, level, sign)
    _draw_frame(axis, lines, metric, sign)
    handles = [
        dot(QUIET_COLOUR, "o", "one patient"),
        Line2D([], [], color=DATA_COLOUR, linewidth=2.5, marker="D", markersize=6, label="mean, 95 % interval"),
        dot(_GOOD_COLOUR, "D", "first better (p, Holm, at most 0.05)"),
        dot(ALARM_COLOUR, "D", "second better"),
    ]
    figure.legend(handles=handles, frameon=False, ncols=len(handles), loc="outside upper left", fontsize=9)
    return png(figure)


def _draw_mean(axis: Axes, pair: Mapping[str, Any], level: int, sign: int) -> None:
    mean = sign * pair["difference"]["mean"]
    colour = DATA_COLOUR
    if pair["is_shown"]:
        colour = _GOOD_COLOUR if mean > 0 else ALARM_COLOUR
    if pair["difference"]["ci95"]:
        axis.plot(
            [sign * end for end in pair["difference"]["ci95"]], [level] * 2, color=colour, linewidth=2.5, zorder=3
        )
    axis.plot(mean, level, marker="D", markersize=6, color=colour, markeredgecolor="white", zorder=4)


def _draw_frame(axis: Axes, lines: list[tuple[str, Any, Any]], metric: Mapping[str, Any], sign: int) -> None:
    axis.axvline(0, color="black", linewidth=1, zorder=1)
    axis.set_yticks(range(len(lines)), [f"{name}: {pair['first']} / {pair['second']}" for name, _, pair in lines])
    for level in range(1, len(lines)):
        if lines[level][0] != lines[level - 1][0]:
            axis.axhline(level - 0.5, color="#D9DEE4", linewidth=1)
    widest = max(abs(end) for end in axis.get_xlim())
    axis.set(xlim=(-widest, widest), ylim=(len(lines) - 0.5, -0.5))
    order = "first minus second" if sign > 0 else "second minus first"
    axis.set_xlabel(f"← second better        {metric['title']}, {order}        first better →")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.grid(axis="x", color="#E5E7EB", linewidth=0.8)
    axis.set_axisbelow(True)
