"""Errors beside uncertainty: the worst, the median and the best case, one row each, with the same outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from medmargin.evaluation.case_figures import (
    draw_colour_scale,
    draw_outlines,
    draw_scale_bar,
    draw_sides,
    draw_uncertainty,
    grey,
    outline_width,
    zoom,
)
from medmargin.evaluation.palette import MASK_COLOUR, MISTAKEN_COLOUR, TRUTH_COLOUR, png
from medmargin.evaluation.pictures import Picture

_WIDTH, _TITLE = 3.4, 0.3  # inches of a panel, and above it


def contrast_figure(
    pictures: Mapping[str, Picture], structures: Mapping[str, int | Sequence[int]], *, most_uncertain: float
) -> bytes:
    """Draw outlines, errors and uncertainty of each picture in a row.

    Args:
        pictures: "worst", "median" .. -> slice, in the order of the rows; all have an uncertainty map.
        structures: name -> label value, or the values in a region.
        most_uncertain: nats at the bright end of the colour scale.
    """
    shapes = [_shape(shown) for shown in pictures.values()]
    heights = [min(1.25, max(0.55, height / width)) for height, width in shapes]
    height = _WIDTH * sum(heights) + _TITLE * len(heights) + 0.4
    figure = Figure(figsize=(3 * _WIDTH + 0.9, height), facecolor="black")
    figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.05)
    rows = figure.subplots(len(pictures), 3, squeeze=False, height_ratios=heights)
    for axes, (word, shown) in zip(rows, pictures.items(), strict=True):
        _draw_row(axes, word, shown, structures, most_uncertain)
    draw_colour_scale(figure, rows.ravel().tolist(), most_uncertain, slimness=25 * len(rows))
    _draw_legend(figure)
    return png(figure)


def errors_of(truth: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Colour the wrong pixels [H, W, 4]: in the truth only, in the mask only, in both as another structure."""
    colours = np.zeros((*truth.shape, 4))
    wrong = truth != labels
    for chosen, colour in (
        (wrong & (labels == 0), TRUTH_COLOUR),
        (wrong & (truth == 0), MASK_COLOUR),
        (wrong & (truth > 0) & (labels > 0), MISTAKEN_COLOUR),
    ):
        colours[chosen] = (*to_rgb(colour), 0.9)
    return colours


def _draw_row(
    axes: NDArray[Any], word: str, shown: Picture, structures: Mapping[str, int | Sequence[int]], most_uncertain: float
) -> None:
    rows, columns = zoom(shown)
    aspect = shown.pixel_size[0] / shown.pixel_size[1]
    for axis in axes:
        axis.imshow(grey(shown), cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="bilinear")
        axis.set_axis_off()
    draw_outlines(axes[0], shown.truth, structures, TRUTH_COLOUR, outline_width(columns))
    draw_outlines(axes[0], shown.labels, structures, MASK_COLOUR, outline_width(columns))
    axes[1].imshow(errors_of(shown.truth, shown.labels), aspect=aspect, interpolation="nearest")
    draw_outlines(axes[1], shown.labels, structures, "white", linewidth=0.7)
    draw_uncertainty(axes[2], shown, structures, aspect, most_uncertain)
    dice = np.mean(list(shown.dice.values()))
    _title(axes[0], f"{word[0].upper()}{word[1:]}: {_short(shown.case)}, Dice {dice:.2f}")
    _title(axes[1], "Wrong voxels")
    _title(axes[2], "Uncertainty")
    for axis in axes:
        axis.set_xlim(columns.start - 0.5, columns.stop - 0.5)
        axis.set_ylim(rows.stop - 0.5, rows.start - 0.5)
    draw_scale_bar(axes[0], shown)
    draw_sides(axes[0], shown.sides)


def _title(axis: Axes, text: str) -> None:
    axis.set_title(text, color="white", fontsize=10)


def _short(case: str) -> str:
    return case if len(case) <= 24 else f"{case[:12]}…{case[-11:]}"


def _shape(shown: Picture) -> tuple[float, float]:
    """Height and width of the part that is shown, in its unit."""
    rows, columns = zoom(shown)
    return (rows.stop - rows.start) * shown.pixel_size[0], (columns.stop - columns.start) * shown.pixel_size[1]


def _draw_legend(figure: Figure) -> None:
    handles = [
        Line2D([], [], color=TRUTH_COLOUR, linewidth=2, label="expert (truth)"),
        Line2D([], [], color=MASK_COLOUR, linewidth=2, label="program (mask)"),
        Patch(color=TRUTH_COLOUR, label="wrong: expert only"),
        Patch(color=MASK_COLOUR, label="wrong: program only"),
        Patch(color=MISTAKEN_COLOUR, label="wrong structure"),
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, labelcolor="white", fontsize=9
    )
