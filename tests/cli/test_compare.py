"""`medmargin compare`: files and run folders in, one JSON object or tables out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medmargin.cli.app import run


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the evaluations `good.json`, `bad.json` and the run `run/metrics.json`, of eight cases."""
    from medmargin.evaluation import measure_case, summarise
    from medmargin.imaging.volume import Grid

    folder = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    truth = np.zeros((10, 12, 8), np.uint8)
    truth[3:7, 3:9, 2:6] = 1
    for name, wrong in (("good", 0.01), ("bad", 0.1), ("run/metrics", 0.02)):
        measured = []
        for case in range(8):
            labels = np.where(rng.random(truth.shape) < wrong, 1 - truth, truth).astype(np.uint8)
            measured.append(measure_case(f"case_{case}", f"case_{case}", truth, labels,
                                         grid=Grid(truth.shape, np.eye(4)), structures={"organ": 1}))  # fmt: skip
        path = folder / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(summarise(measured)))
    return folder


def test_json_is_one_object_with_pairs_in_the_order_given(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(results / "good.json"), str(results / "bad.json"), "--metric", "dice", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [result["name"] for result in answer["results"]] == ["good", "bad"]
    (pair,) = answer["metrics"]["dice"]["rows"]["organ"]["pairs"]
    assert (pair["first"], pair["second"], pair["verdict"]) == ("good", "bad", "good is better")
    assert pair["p"] == pytest.approx(2 / 2**8)
    assert list(answer["metrics"]) == ["dice"]


def test_a_run_folder_stands_for_its_newest_evaluation(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(results / "run"), str(results / "good.json"), str(results / "bad.json"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [result["name"] for result in answer["results"]] == ["run", "good", "bad"]
    assert len(answer["metrics"]["nsd"]["rows"]["organ"]["pairs"]) == 3
    assert answer["metrics"]["band_ece"]["rows"]["all structures"]["reason"].endswith("no probabilities were given")


def test_tables_and_report(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", str(results / "good.json"), str(results / "bad.json"), "--report", str(tmp_path / "c.html")]
    assert run(words) == 0
    captured = capsys.readouterr()
    assert "8 common cases of 8 patients" in captured.out
    assert "1 is better" in " ".join(captured.out.split())
    assert "report:" in captured.err
    assert "good is best" in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_results_of_one_name_are_told_apart(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "good.json").write_bytes((results / "good.json").read_bytes())
    assert run(["compare", *(str(tmp_path / name / "good.json") for name in "ab"), "--metric", "dice", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [result["name"] for result in answer["results"]] == ["a/good", "b/good"]
    assert answer["metrics"]["dice"]["rows"]["organ"]["pairs"][0]["verdict"] == "no difference"


def test_errors_name_the_cure(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, empty = str(results / "good.json"), tmp_path / "empty-run"
    empty.mkdir()
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "broken.json").write_text('{"cases": [')
    (tmp_path / "case.json").write_text('{"cases": [{"case": "a"}], "conventions": {}, "summary": {}}')
    for words, code, expected in (
        ([good, str(empty)], 2, "medmargin evaluate"),
        ([good, "u-medsam"], 2, "no such file or run folder"),
        ([good, good], 2, "given twice"),
        ([good], 2, "at least two"),
        ([good, str(results / "bad.json"), "--metric", "dicee"], 2, "Did you mean 'dice'"),
        ([good, str(tmp_path / "list.json")], 3, "no 'cases'"),
        ([good, str(tmp_path / "broken.json")], 3, "not a JSON file"),
        ([good, str(tmp_path / "case.json")], 3, "case 0 has no 'patient'"),
    ):
        assert run(["compare", *words]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert expected in captured.err


def test_help_shows_an_example_and_comparing_needs_no_torch(results: Path) -> None:
    code = (
        "import sys; from medmargin.cli.app import run; assert run(['compare', '--help']) == 0; "
        f"assert run(['compare', {str(results / 'good.json')!r}, {str(results / 'bad.json')!r}]) == 0; "
        "assert 'torch' not in sys.modules"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "Example: medmargin compare" in " ".join(output.split())
