"""Colours and drawing habits that all figures of the report share; safe for colour blindness (Okabe and Ito 2008)."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

TRUTH_COLOUR, MASK_COLOUR, MISTAKEN_COLOUR = "#56B4E9", "#E69F00", "#CC79A7"
DATA_COLOUR, ALARM_COLOUR, QUIET_COLOUR, INTERVAL_COLOUR = "#0072B2", "#D55E00", "#6B7280", "#B9C2CC"
_DOTS_PER_INCH = 110


def dot(colour: str, marker: str, label: str) -> Line2D:
    """Make a legend entry for a marker."""
    return Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=7, label=label)


def png(figure: Figure) -> bytes:
    """Render a figure without a window."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    background = figure.get_facecolor()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor=background, metadata={"Software": None})
    return buffer.getvalue()
