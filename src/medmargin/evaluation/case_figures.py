"""A case as a picture: the slice, both outlines, the uncertainty, the probability of an edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from medmargin.datasets.task import mask_of
from medmargin.evaluation.palette import MASK_COLOUR, TRUTH_COLOUR, png
from medmargin.evaluation.pictures import Picture

_LINE_STYLES: tuple[Any, ...] = ("solid", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
_UNCERTAINTY_COLOURS, _EDGE_COLOURS = "inferno", "viridis"
_ZOOM_MARGIN = 0.35  # of the structure's extent, on each side
_SMALLEST_ZOOM = 32  # pixels
_WHOLE_ENOUGH = 0.6  # a zoom that shows more of the slice than this is the slice itself
_BAR_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def case_figure(shown: Picture, structures: Mapping[str, int | Sequence[int]], *, most_uncertain: float) -> bytes:
    """Draw the slice, both outlines, and what maps there are of uncertainty and edges, side by side.

    Args:
        shown: the slice.
        structures: name -> label value, or the values in a region.
        most_uncertain: nats at the bright end of the colour scale, the same for all pictures of a report.
    """
    panels = 2 + (shown.uncertainty is not None) + (shown.edge is not None)
    height, width = shown.truth.shape
    rows, columns = zoom(shown)
    is_zoomed = (rows, columns) != (slice(0, height), slice(0, width))
    aspect = shown.pixel_size[0] / shown.pixel_size[1]
    tallest = min(1.35, max(0.6, aspect * max(height / width, _length(rows) / _length(columns))))
    figure = Figure(figsize=(3.7 * min(panels, 3) + 0.6, 3.5 * min(1, 3 / panels) * tallest + 0.75), facecolor="black")
    figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.06)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis, background in zip(axes, (shown.image, *[grey(shown)] * (panels - 1)), strict=True):
        axis.imshow(background, cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="bilinear")
        axis.set_axis_off()
    linewidth = outline_width(columns)
    axes[0].set_title("Whole image (frame: enlarged part)" if is_zoomed else "Image", color="white", fontsize=10)
    axes[1].set_title("Outlines", color="white", fontsize=10)
    draw_outlines(axes[1], shown.truth, structures, TRUTH_COLOUR, linewidth)
    draw_outlines(axes[1], shown.labels, structures, MASK_COLOUR, linewidth)
    if shown.uncertainty is not None:
        draw_uncertainty(axes[2], shown, structures, aspect, most_uncertain)
        draw_colour_scale(figure, list(axes), most_uncertain)
    if shown.edge is not None:
        _draw_edge(axes[-1], shown, aspect)
    for axis in axes[1:] if is_zoomed else []:
        axis.set_xlim(columns.start - 0.5, columns.stop - 0.5)
        axis.set_ylim(rows.stop - 0.5, rows.start - 0.5)
    if is_zoomed:
        corner = (columns.start - 0.5, rows.start - 0.5)
        axes[0].add_patch(Rectangle(corner, _length(columns), _length(rows), fill=False, color="white", linewidth=0.8))
    for axis in axes:
        draw_scale_bar(axis, shown)
        draw_sides(axis, shown.sides)
    _draw_legend(figure, structures)
    return png(figure)


def grey(shown: Picture) -> NDArray[Any]:
    """Take the colours out of a picture [H, W]: outlines and maps are hard to see on orange or pink."""
    return shown.image if shown.image.ndim == 2 else shown.image.mean(axis=2)


def outline_width(columns: slice) -> float:
    """Points of an outline: thinner where many pixels are shown, so that fine structures are not painted over."""
    return float(np.clip(400.0 / _length(columns), 0.6, 1.6))


def draw_outlines(
    axis: Axes,
    labels: NDArray[Any],
    structures: Mapping[str, int | Sequence[int]],
    colour: str,
    linewidth: float = 1.6,
) -> None:
    """Draw the border of every structure of a label map [H, W], each in a line style of its own."""
    for index, value in enumerate(structures.values()):
        inside = mask_of(labels, value)
        if inside.any():
            style = _LINE_STYLES[index % len(_LINE_STYLES)]
            padded = np.pad(inside, 1).astype(float)  # closes outlines that touch the edge of the slice
            rows, columns = (np.arange(size) - 1 for size in padded.shape)
            axis.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=linewidth, linestyles=[style])


def draw_uncertainty(
    axis: Axes, shown: Picture, structures: Mapping[str, int | Sequence[int]], aspect: float, most_uncertain: float
) -> None:
    """Lay the uncertainty over the image, bright at `most_uncertain` nats, with the mask's outline."""
    share = np.clip(np.asarray(shown.uncertainty) / most_uncertain, 0.0, 1.0)
    opacity = np.sqrt(share)  # certain voxels show the image, slightly uncertain ones are still seen
    axis.imshow(share, cmap=_UNCERTAINTY_COLOURS, vmin=0, vmax=1, alpha=opacity, aspect=aspect, interpolation="nearest")
    draw_outlines(axis, shown.labels, structures, "white", linewidth=0.7)
    axis.set_title("Uncertainty, with the mask's outline", color="white", fontsize=10)


def _draw_edge(axis: Axes, shown: Picture, aspect: float) -> None:
    probability = np.clip(np.asarray(shown.edge), 0.0, 1.0)
    axis.imshow(
        probability, cmap=_EDGE_COLOURS, vmin=0, vmax=1, alpha=probability, aspect=aspect, interpolation="nearest"
    )
    axis.set_title("Edge probability (yellow: 1)", color="white", fontsize=10)


def draw_colour_scale(figure: Figure, axes: list[Axes], most_uncertain: float, *, slimness: float = 25) -> None:
    """Draw the scale of the uncertainty beside the panels; `slimness` is its height over its width."""
    scale = ScalarMappable(Normalize(0.0, most_uncertain), _UNCERTAINTY_COLOURS)
    bar = figure.colorbar(scale, ax=axes, shrink=0.75, pad=0.015, aspect=slimness)
    bar.set_label("uncertainty (nats)", color="white", fontsize=9)
    bar.ax.tick_params(colors="white", labelsize=8)


def draw_scale_bar(axis: Axes, shown: Picture) -> None:
    """Draw a bar of a round length, at most 30 % of the panel."""
    left, right = axis.get_xlim()
    bottom, top = axis.get_ylim()
    width = (right - left) * shown.pixel_size[1]
    length = max((length for length in _BAR_LENGTHS if length <= 0.3 * width), default=_BAR_LENGTHS[0])
    start = left + 0.05 * (right - left)
    y = bottom - 0.05 * (bottom - top)
    end = start + length / shown.pixel_size[1]
    for colour, thickness in (("black", 4.5), ("white", 2.2)):
        axis.plot([start, end], [y, y], color=colour, linewidth=thickness, solid_capstyle="butt")
    _halo_text(axis, (start + end) / 2, y - 0.02 * (bottom - top), f"{length} {shown.unit}", va="bottom", fontsize=8)


def draw_sides(axis: Axes, sides: tuple[str, str, str, str] | None) -> None:
    """Write the letters of the patient's sides at the edges, where they are known."""
    if sides is None:
        return
    for letter, x, y in zip(sides, (0.03, 0.97, 0.5, 0.5), (0.5, 0.5, 0.96, 0.04), strict=True):
        _halo_text(axis, x, y, letter, transform=axis.transAxes, va="center", fontsize=11, fontweight="bold")


def _halo_text(axis: Axes, x: float, y: float, text: str, **options: Any) -> None:
    halo = {"boxstyle": "round,pad=0.12", "facecolor": "black", "alpha": 0.55, "linewidth": 0}
    axis.text(x, y, text, color="white", ha="center", bbox=halo, **options)


def _draw_legend(figure: Figure, structures: Mapping[str, int | Sequence[int]]) -> None:
    handles = [
        Line2D([], [], color=TRUTH_COLOUR, linewidth=2, label="expert (truth)"),
        Line2D([], [], color=MASK_COLOUR, linewidth=2, label="program (mask)"),
    ]
    if len(structures) > 1:
        styles = (_LINE_STYLES[index % len(_LINE_STYLES)] for index in range(len(structures)))
        handles += [
            Line2D([], [], color="white", linewidth=1.5, linestyle=style, label=name)
            for name, style in zip(structures, styles, strict=True)
        ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, labelcolor="white", fontsize=9
    )


def zoom(shown: Picture) -> tuple[slice, slice]:
    """Rows and columns around the structures, or the whole slice where that is nearly the same."""
    height, width = shown.truth.shape
    inside = (shown.truth > 0) | (shown.labels > 0)
    if not inside.any():
        return slice(0, height), slice(0, width)
    spans = []
    for axis, size in ((1, height), (0, width)):
        occupied = np.flatnonzero(inside.any(axis=axis))
        extent = int(occupied[-1] - occupied[0]) + 1
        wanted = max(_SMALLEST_ZOOM, round(extent * (1 + 2 * _ZOOM_MARGIN)))
        start = max(0, (int(occupied[0]) + int(occupied[-1]) + 1 - wanted) // 2)
        spans.append(slice(start, min(size, start + wanted)))
    if _length(spans[0]) * _length(spans[1]) > _WHOLE_ENOUGH * height * width:
        return slice(0, height), slice(0, width)
    return spans[0], spans[1]


def _length(span: slice) -> int:
    return int(span.stop - span.start)
