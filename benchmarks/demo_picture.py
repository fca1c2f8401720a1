"""Take the README's picture out of the report of a demo: the case in the middle and the worst one.

    make demo && python benchmarks/demo_picture.py demo/report.html
"""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

from PIL import Image

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "demo.png"
_FIGURE = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")


def main() -> None:
    """Stack two case figures; those of cases are the widest ones of a report."""
    page = Path(sys.argv[1]).read_text(encoding="utf-8")
    figures = [Image.open(io.BytesIO(base64.b64decode(code))) for code in _FIGURE.findall(page)]
    widest = max(figure.width for figure in figures)
    cases = [figure.convert("RGB") for figure in figures if figure.width == widest]
    chosen = [cases[len(cases) // 2], cases[0]]
    sheet = Image.new("RGB", (widest, sum(figure.height for figure in chosen)))
    top = 0
    for figure in chosen:
        sheet.paste(figure, (0, top))
        top += figure.height
    sheet.thumbnail((1200, 1200))
    sheet.save(TARGET, optimize=True)
    print(f"{TARGET}: {sheet.size}")


if __name__ == "__main__":
    main()
