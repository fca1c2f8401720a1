"""The page of a comparison: whole, self-contained, and saying what the numbers say."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmargin.evaluation import CaseResult, summarise
from medmargin.evaluation.comparison import compare_results
from medmargin.evaluation.comparison_report import GLOSSARY, write_comparison

MakeCase = Callable[..., CaseResult]


def compared(make_case: MakeCase, *seeds: int, cases: int = 8, **changes: object) -> dict:
    answers = {}
    for number, seed in enumerate(seeds):
        made = [make_case(seed + case, name=f"case_{case}", **changes) for case in range(cases)]
        answers[f"<run {number}>"] = summarise(made)
    del answers["<run 0>"]["cases"][0]
    return compare_results(answers)


def test_page_is_self_contained_and_names_what_is_left_out(make_case: MakeCase, tmp_path: Path) -> None:
    comparison = compared(make_case, 0, 50, 100)
    write_comparison(tmp_path / "page.html", comparison)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;run 0&gt;" in text
    assert "<run 0>" not in text
    assert "case_0: missing in &lt;run 0&gt;" in text
    assert "not a medical device" in text
    for term in GLOSSARY:
        assert f"<dt>{term.replace(chr(39), '&#39;')}</dt>" in text
    for target in re.findall(r'(?:src|href)="([^"]*)"', text):
        assert target.startswith(("data:image/png;base64,", "#"))
    for metric in comparison["metrics"].values():
        for row in metric["rows"].values():
            for pair in row["pairs"]:
                assert f"{pair['difference']['mean']:+.3f}" in text


def test_one_real_picture_per_metric(make_case: MakeCase, tmp_path: Path) -> None:
    comparison = compared(make_case, 0, 50)
    write_comparison(tmp_path / "page.html", comparison)
    images = re.findall(r"base64,([A-Za-z0-9+/=]+)", (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(images) == len(comparison["metrics"]) == 5
    for image in images:
        assert np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("L")).std() > 5


@pytest.mark.parametrize(
    "changes", [{"cases": 2}, {"unit": "px"}, {"probabilities": None, "uncertainty": None, "volumes": None}]
)
def test_page_of_little(make_case: MakeCase, tmp_path: Path, changes: dict) -> None:
    write_comparison(tmp_path / "page.html", compared(make_case, 0, 50, **changes))
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "None" not in text
    assert not re.search(r">\s*nan\b", text)
    if changes == {"cases": 2}:
        assert "too few to tell" in text


def test_the_finding_names_the_best_only_where_it_is_shown(make_case: MakeCase, tmp_path: Path) -> None:
    comparison = compared(make_case, 0, 50, cases=14)
    for metric in comparison["metrics"].values():
        for row in metric["rows"].values():
            for pair in row["pairs"]:
                pair |= {"is_shown": False, "verdict": "no difference shown"}
    write_comparison(tmp_path / "page.html", comparison)
    assert "is best" not in (tmp_path / "page.html").read_text(encoding="utf-8")
