from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmargin.evaluation import CaseResult, summarise
from medmargin.evaluation.contrast_figure import errors_of
from medmargin.evaluation.glossary import GLOSSARY
from medmargin.evaluation.pictures import Gallery
from medmargin.evaluation.report import write_report
from medmargin.imaging.volume import Grid, Volume

MakeCase = Callable[..., CaseResult]
STRUCTURES = {"anterior": 1, "posterior": 2}


class Links(HTMLParser):
    """Collects everything a browser would fetch or follow, and checks that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert tag != "script"
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def written(path: Path, answer: dict[str, Any], **options: Any) -> str:
    write_report(path, answer, structures=STRUCTURES, title="u-medsam on <Hippocampus>", **options)
    return path.read_text(encoding="utf-8")


@pytest.fixture
def gallery(make_case: MakeCase) -> Gallery:
    gallery = Gallery()
    rng = np.random.default_rng(0)
    shape = (12, 14, 10)
    volume = Volume(rng.random((1, *shape)), Grid(shape, np.diag([1.0, 1.0, 2.0, 1.0])))
    truth = np.zeros(shape, np.uint8)
    truth[2:7, 3:10, 2:8] = 1
    gallery.offer(make_case(), volume, truth, np.roll(truth, 1, axis=0), rng.random(shape))
    return gallery


def test_report_is_one_self_contained_file(make_case: MakeCase, gallery: Gallery, tmp_path: Path) -> None:
    results = [make_case(seed, name=f"case_{seed}") for seed in range(4)]
    text = written(tmp_path / "report.html", summarise(results), pictures=gallery.pictures)
    links = Links()
    links.feed(text)
    assert links.open == []
    outside = [target for target in links.targets if not target.startswith(("data:image/png;base64,", "#"))]
    assert outside == []
    assert "url(" not in text
    assert "@import" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_pictures_are_real_images(make_case: MakeCase, gallery: Gallery, tmp_path: Path) -> None:
    results = [make_case(seed, name=f"case_{seed}") for seed in range(4)]
    text = written(tmp_path / "report.html", summarise(results), pictures=gallery.pictures)
    images = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text)
    assert len(images) == 5  # Dice, reliability, selective prediction, volumes, one case
    for image in images:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("L"))
        assert min(pixels.shape) > 100
        assert pixels.std() > 5


def test_report_says_the_result_the_floors_the_failures_and_the_terms(make_case: MakeCase, tmp_path: Path) -> None:
    answer = summarise(
        [make_case(seed, name=f"case_{seed}") for seed in range(20)],
        failed=[{"case": "case_x", "error": "DataError: <truncated>"}],
        run={"system": "u-medsam"},
    )
    text = written(tmp_path / "report.html", answer, warnings=["Prompts were derived from the truth."])
    assert f"{answer['summary']['mean']['dice']:.2f}" in text
    for words in (
        "the box alone",
        "ellipse alone",
        "1 case could not be measured",
        "Prompts were derived",
        "5 more cases",
    ):
        assert words in text
    for words in ("before and after calibration", "Errors beside uncertainty", "Groups of patients", "several experts"):
        assert words not in text
    assert "not a medical device" in text
    assert "&lt;truncated&gt;" in text
    assert "u-medsam on &lt;Hippocampus&gt;" in text
    for term in GLOSSARY:
        assert f"<dt>{term}</dt>" in text
    for value in (*answer["versions"].values(), str(answer["conventions"]["ece_bins"])):
        assert value in text


def test_cases_are_listed_the_worst_first(make_case: MakeCase, tmp_path: Path) -> None:
    truth = np.zeros((12, 14, 10), np.uint8)
    truth[2:8, 2:12, 2:8] = 1
    results = [
        make_case(name=f"shift{shift}", truth=truth, labels=np.roll(truth, shift, axis=0)) for shift in (0, 2, 1, 3)
    ]
    text = written(tmp_path / "report.html", summarise(results))
    assert re.findall(r"<td class=\"text\">(shift\d)</td>", text) == ["shift3", "shift2", "shift1", "shift0"]


@pytest.mark.parametrize(
    "changes",
    [
        {"unit": "px"},
        {"probabilities": None, "uncertainty": None, "volumes": None, "floors": None},
        {"truth": np.zeros((12, 14, 10), np.uint8), "labels": np.zeros((12, 14, 10), np.uint8)},
        {"labels": np.zeros((12, 14, 10), np.uint8)},
    ],
)
def test_report_of_incomplete_results(make_case: MakeCase, tmp_path: Path, changes: dict[str, Any]) -> None:
    text = written(tmp_path / "report.html", summarise([make_case(**changes)]))
    assert "None" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert "nan" not in re.findall(r">\s*(nan)\s*<", text)


def test_report_without_a_single_case(tmp_path: Path) -> None:
    text = written(tmp_path / "report.html", summarise([], failed=[{"case": "a", "error": "DataError: unreadable"}]))
    assert "No case could be measured" in text
    assert "unreadable" in text


def test_picture_without_uncertainty_and_structure_at_the_edge(make_case: MakeCase, tmp_path: Path) -> None:
    shape = (64, 80, 1)
    labels = np.zeros(shape, np.uint8)
    labels[:5, :6] = 1
    volume = Volume(
        np.random.default_rng(0).integers(0, 255, (3, *shape), dtype=np.uint8), Grid(shape, np.eye(4), "px"), 2
    )
    gallery = Gallery()
    gallery.offer(make_case(), volume, labels, labels)
    text = written(tmp_path / "report.html", summarise([make_case()]), pictures=gallery.pictures)
    assert "Cases in pictures" in text
    assert "sides of the patient" not in text


def test_failed_write_leaves_nothing_behind(make_case: MakeCase, tmp_path: Path) -> None:
    answer = summarise([make_case()])
    del answer["summary"]["mean"]
    with pytest.raises(KeyError):
        written(tmp_path / "report.html", answer)
    assert list(tmp_path.iterdir()) == []


def test_report_shows_groups_raters_calibration_and_errors_beside_uncertainty(
    make_case: MakeCase, gallery: Gallery, tmp_path: Path
) -> None:
    truth = np.zeros((12, 14, 10), np.uint8)
    truth[2:8, 2:12, 2:8] = 1
    results = [
        make_case(seed, name=f"case_{seed}", raters=[truth], attributes={"sex": "FM"[seed % 2], "scan": f"s{seed}"})
        for seed in range(13)
    ]
    answer = summarise(results)
    answer["calibration_before"] = answer["curves"]
    text = written(tmp_path / "report.html", answer, pictures=gallery.pictures, contrast=gallery.contrast)
    links = Links()
    links.feed(text)
    assert links.open == []
    for words in (
        "Groups of patients",
        "scan (13 different texts are too many to compare (at most 12))",
        "Compared with several experts",
        "16 level sets of the probability map",
        "before and after calibration",
        "Errors beside uncertainty",
        "Is it as close to the experts as they are to each other?",
    ):
        assert words in text
    for name in answer["conventions"]:
        assert answer["conventions"][name] is None or f"<code>{name}</code>" in text


def test_wrong_pixels_are_coloured_by_their_kind() -> None:
    colours = errors_of(np.array([[0, 1, 0, 1, 2]]), np.array([[0, 1, 2, 0, 1]]))[0]
    assert (colours[:2] == 0).all()
    assert len({tuple(colour) for colour in colours[2:]}) == 3
    assert (colours[2:, 3] > 0).all()
