"""Pages of paper filled from top to bottom with text, tables and pictures, and written as one PDF file."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from medmargin.evaluation.palette import QUIET_COLOUR
from medmargin.storage import atomic_path

INK, _RULE_COLOUR = "#1F2933", "#D9DEE4"
_WIDTH, _HEIGHT, _MARGIN = 8.27, 11.69, 0.75  # inches, A4
_POINTS = 72.0  # an inch
_FONT = "DejaVu Sans"  # comes with matplotlib
_LINE = 1.35  # line height in font sizes
_GAP = 0.22  # inches between the columns of a table
_WIDEST_CELL = 2.2  # inches
_SMALLEST = 5.0  # points


class Paper:
    """A PDF that grows downwards; what does not fit on a page goes to the next one."""

    def __init__(self, pages: PdfPages, footer: str) -> None:
        self._pages, self._footer = pages, footer
        self._number = 0
        self._turn()

    @property
    def width(self) -> float:
        """Inches between the margins."""
        return _WIDTH - 2 * _MARGIN

    def heading(self, text: str, size: float = 13, below: float = 1.0) -> None:
        """Write a heading on a page that has room for `below` inches after it."""
        self._need(0.3 + below)
        self.space(0.12)
        self.paragraph(text, size=size, weight="bold")

    def paragraph(self, text: str, *, size: float = 9.5, colour: str = INK, weight: str = "normal") -> None:
        """Write a text, broken into lines."""
        for line in broken(text, self.width, size, weight):
            self._need(_LINE * size / _POINTS)
            self._write(_MARGIN, line, size, colour, weight)
            self._down += _LINE * size / _POINTS
        self.space(0.06)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1, size: float = 8) -> None:
        """Write a table; its first `words` columns are aligned to the left. The head is repeated on every page."""
        cells = [[_clipped(cell, size) for cell in row] for row in (columns, *rows)]
        # bold for all: the head is bold, and a little air does the numbers good
        widths = np.array([[_text_width(cell, size, "bold") for cell in row] for row in cells]).max(axis=0) + _GAP
        shrink = max(min(1.0, self.width / widths.sum()), _SMALLEST / size)
        size, widths = size * shrink, widths * min(1.0, self.width / widths.sum())
        self._row(cells[0], widths, words, size, "bold")
        for row in cells[1:]:
            if self._row(row, widths, words, size, "normal", fits=True):
                continue
            self._turn()
            self._row(cells[0], widths, words, size, "bold")
            self._row(row, widths, words, size, "normal")
        self.space(0.15)

    def pictures(self, images: Sequence[bytes], *, width: float = 1.0, heading: str | None = None) -> None:
        """Place PNG pictures side by side over a share of the width, equally high, below a heading."""
        pixels = [imread(io.BytesIO(image), format="png") for image in images]
        shapes = [array.shape[1] / array.shape[0] for array in pixels]
        height = min(self.width * width / sum(shapes), _HEIGHT - 2 * _MARGIN - 0.4)
        if heading:
            self.heading(heading, below=height)
        self._need(height)
        left = _MARGIN
        for array, shape in zip(pixels, shapes, strict=True):
            bottom = _HEIGHT - self._down - height
            box = (left / _WIDTH, bottom / _HEIGHT, shape * height / _WIDTH, height / _HEIGHT)
            axis = self._page.add_axes(box)
            axis.imshow(array, aspect="auto", interpolation="none")
            axis.set_axis_off()
            left += shape * height
        self._down += height
        self.space(0.12)

    def space(self, inches: float) -> None:
        """Leave some room."""
        self._down += inches

    def close(self) -> None:
        """Write the last page."""
        self._page.text(0.5, 0.4 / _HEIGHT, f"{self._footer}   page {self._number}", fontsize=7, color=QUIET_COLOUR,
                        ha="center", parse_math=False)  # fmt: skip
        self._pages.savefig(self._page)

    def _turn(self) -> None:
        if self._number:
            self.close()
        self._page = Figure(figsize=(_WIDTH, _HEIGHT))
        self._number += 1
        self._down = _MARGIN

    def _need(self, inches: float) -> None:
        if self._down + inches > _HEIGHT - _MARGIN:
            self._turn()

    def _row(self, cells: Sequence[str], widths: Sequence[float], words: int, size: float, weight: str,
             fits: bool = False) -> bool:  # fmt: skip
        """Write a row with a line below it; with `fits` only where it fits on the page."""
        height = 1.6 * size / _POINTS
        if fits and self._down + height > _HEIGHT - _MARGIN:
            return False
        self._need(height)
        left = _MARGIN
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            is_word = index < words
            self._write(left if is_word else left + width - _GAP / 2, cell, size, INK, weight, right=not is_word)
            left += width
        self._down += height
        level = 1 - (self._down - 0.2 * size / _POINTS) / _HEIGHT
        ends = [_MARGIN / _WIDTH, left / _WIDTH]
        self._page.add_artist(Line2D(ends, [level, level], color=_RULE_COLOUR, linewidth=0.6))
        return True

    def _write(self, left: float, text: str, size: float, colour: str, weight: str, right: bool = False) -> None:
        self._page.text(
            left / _WIDTH, 1 - (self._down + size / _POINTS) / _HEIGHT, text, fontsize=size, color=colour,
            fontweight=weight, ha="right" if right else "left", va="baseline", parse_math=False,
        )  # fmt: skip


@contextmanager
def paper(path: Path | str, *, title: str, footer: str) -> Iterator[Paper]:
    """Open a PDF that stands whole on disk when the block ends, or not at all; its letters can be searched.

    Raises:
        BudgetError: the file cannot be written.
    """
    # 42: fonts as TrueType, whose text programs can read. No date, so that the same report is the same file.
    fonts, about = rc_context({"pdf.fonttype": 42, "font.family": _FONT}), {"Title": title, "CreationDate": None}
    with fonts, atomic_path(path) as temporary, PdfPages(temporary, metadata=about) as pages:
        written = Paper(pages, footer)
        yield written
        written.close()


def broken(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Break a text into lines of at most `width` inches; a word that is longer is broken itself."""
    lines = [""]
    for word in text.split():
        for piece in _pieces(word, width, size, weight):
            longer = f"{lines[-1]} {piece}".strip()
            if lines[-1] and _text_width(longer, size, weight) > width:
                lines.append(piece)
            else:
                lines[-1] = longer
    return lines


def _pieces(word: str, width: float, size: float, weight: str) -> list[str]:
    pieces = [word]
    while len(pieces[-1]) > 1 and (wide := _text_width(pieces[-1], size, weight)) > width:
        end = max(1, int(len(pieces[-1]) * width / wide) - 1)
        pieces[-1:] = [pieces[-1][:end], pieces[-1][end:]]
    return pieces


def _clipped(cell: str, size: float) -> str:
    """Shorten a cell in its middle, where names differ least."""
    wide = _text_width(cell, size, "normal")
    if wide <= _WIDEST_CELL:
        return cell
    kept = max(2, int(len(cell) * _WIDEST_CELL / wide) - 1)
    return f"{cell[: kept // 2]}…{cell[-(kept - kept // 2) :]}"


def _text_width(text: str, size: float, weight: str) -> float:
    """Inches a text takes, without kerning."""
    return sum(_letter_width(letter, weight) for letter in text) * size / _POINTS


@lru_cache(maxsize=2000)
def _letter_width(letter: str, weight: str) -> float:
    """Width of a letter in font sizes."""
    font = FontProperties(family=_FONT, weight=weight, size=100)
    return float(text_to_path.get_text_width_height_descent(letter, font, ismath=False)[0]) / 100
