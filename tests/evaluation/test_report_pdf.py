"""The report on paper: a PDF with the same figures, of any length, that is whole or absent."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rc_context

from medmargin.evaluation import CaseResult, summarise
from medmargin.evaluation.paper import broken, paper
from medmargin.evaluation.pictures import Gallery
from medmargin.evaluation.report import write_report
from medmargin.imaging.volume import Grid, Volume

MakeCase = Callable[..., CaseResult]
STRUCTURES = {"anterior": 1, "posterior": 2}


def written(path: Path, answer: dict[str, Any], **options: Any) -> bytes:
    write_report(path, answer, structures=STRUCTURES, title="u-medsam on Hippocampus", **options)
    return path.read_bytes()


def pages(document: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b", document))


def text(document: bytes) -> str:
    """All letters of the pages, in the order they were written."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", document, re.DOTALL)
    found = []
    for stream in streams:
        try:
            content = zlib.decompress(stream)
        except zlib.error:
            continue
        if b" Tf" in content:
            pieces = (bytes(piece) for piece in re.findall(rb"\((.*?)(?<!\\)\)|(?:BT)", content, re.DOTALL))
            letters = b"".join(piece or b"\n" for piece in pieces).replace(b"\0", b"")  # two bytes a letter
            found.append(re.sub(rb"\\(.)", rb"\1", letters).decode("latin-1"))
    return "\n".join(found)


@pytest.fixture
def gallery(make_case: MakeCase) -> Gallery:
    rng = np.random.default_rng(0)
    shape = (12, 14, 10)
    truth = np.zeros(shape, np.uint8)
    truth[2:7, 3:10, 2:8] = 1
    gallery = Gallery()
    volume = Volume(rng.random((1, *shape)), Grid(shape, np.diag([1.0, 1.0, 2.0, 1.0])))
    gallery.offer(make_case(), volume, truth, np.roll(truth, 1, axis=0), rng.random(shape))
    return gallery


def test_pdf_holds_findings_tables_and_pictures(make_case: MakeCase, gallery: Gallery, tmp_path: Path) -> None:
    answer = summarise([make_case(seed, name=f"case_{seed}") for seed in range(4)],
                       failed=[{"case": "lost", "error": "DataError: truncated (at $5 of $7)"}])  # fmt: skip
    document = written(tmp_path / "report.PDF", answer, pictures=gallery.pictures, warnings=["Mind the gap."])
    assert document.startswith(b"%PDF-")
    assert document.count(b"/Subtype /Image") >= 5  # Dice, reliability, selective prediction, volumes, one case
    words = text(document)
    assert f"How good are the masks? {answer['summary']['mean']['dice']:.2f}" in words
    for expected in ("not a medical device", "Mind the gap", "case_3", "lost: DataError: truncated (at $5 of $7)",
                     "Glossary", "nsd_tolerance_mm: 1.0", "page 1"):  # fmt: skip
        assert expected in words, expected
    assert [path.name for path in tmp_path.iterdir()] == ["report.PDF"]


def test_pdf_holds_groups_experts_and_volume_coverage(make_case: MakeCase, tmp_path: Path) -> None:
    other = np.zeros((12, 14, 10), np.uint8)
    other[2:6, 3:10, 2:8], other[6:10, 3:10, 2:8] = 1, 2
    results = [
        make_case(seed, name=f"case_{seed}", attributes={"sex": "fm"[seed % 2], "site": "A"}, raters=[other])
        for seed in range(6)
    ]
    words = text(written(tmp_path / "report.pdf", summarise(results)))
    for expected in ("Groups of patients", "(worst)", "Not compared: site", "Compared with several experts",
                     "Hungarian IoU", "Promised", "90 %"):  # fmt: skip
        assert expected in words, expected


def test_many_cases_take_more_pages_and_all_are_listed(make_case: MakeCase, tmp_path: Path) -> None:
    answer = summarise([make_case()])
    few = written(tmp_path / "few.pdf", answer)
    answer["cases"] = [answer["cases"][0] | {"case": f"case_{index}"} for index in range(50)]
    many = written(tmp_path / "many.pdf", answer)
    assert pages(many) >= pages(few) + 1
    assert set(re.findall(r"^case_\d+$", text(many), re.MULTILINE)) == {f"case_{index}" for index in range(50)}


@pytest.mark.parametrize(
    "changes",
    [
        {"unit": "px"},
        {"probabilities": None, "uncertainty": None, "volumes": None, "floors": None},
        {"truth": np.zeros((12, 14, 10), np.uint8), "labels": np.zeros((12, 14, 10), np.uint8)},
    ],
)
def test_pdf_of_incomplete_results(make_case: MakeCase, tmp_path: Path, changes: dict[str, Any]) -> None:
    words = text(written(tmp_path / "report.pdf", summarise([make_case(**changes)])))
    assert "None" not in words
    assert not re.search(r"\bnan\b", words)


def test_pdf_without_a_single_case(tmp_path: Path) -> None:
    document = written(tmp_path / "report.pdf", summarise([], failed=[{"case": "a", "error": "DataError: unreadable"}]))
    assert "No case could be measured" in text(document)


def test_failed_write_leaves_nothing_behind(make_case: MakeCase, tmp_path: Path) -> None:
    answer = summarise([make_case()])
    del answer["summary"]["mean"]
    with pytest.raises(KeyError):
        written(tmp_path / "report.pdf", answer)
    assert list(tmp_path.iterdir()) == []


def test_lines_fit_the_width_and_lose_no_letter() -> None:
    words = "short " * 30 + "w" * 400 + " Ünïcode $x$ end"
    for width in (1.0, 6.0):
        lines = broken(words, width, 9)
        assert "".join("".join(lines).split()) == "".join(words.split())
        assert all(len(line) * 9 * 0.3 / 72 <= width for line in lines)  # no letter here is narrower than 0.3 em


def test_same_content_same_file_whatever_the_caller_set(tmp_path: Path) -> None:
    for name, settings in (("a", {}), ("b", {"font.family": "monospace", "pdf.fonttype": 3})):
        with rc_context(settings), paper(tmp_path / f"{name}.pdf", title="t", footer="f") as sheet:
            sheet.table(["x", "y"], [["1", "2"]])
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
