"""The words of the command line: exit codes, and one JSON object and nothing else on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medmargin.cli.app import run
from medmargin.datasets.phantoms import write_phantom_dataset


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "Dataset901_Pictures"
    return write_phantom_dataset(folder, dims=2, cases=6, test_cases=2, raters=1)


@pytest.fixture(scope="module")
def run_folder(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pictures"
    words = ["train", "u-medsam", str(pictures), "--run", str(folder), "--steps", "2", "--set", "init=none"]
    assert run(words) == 0
    return folder


def answer(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    assert run(words) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "word", ["demo", "train", "predict", "evaluate", "calibrate", "compare", "ensemble", "systems", "verify"]
)
def test_help_shows_an_example(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([word, "--help"]) == 0
    assert f"Example: medmargin {word}" in " ".join(capsys.readouterr().out.split())


def test_help_and_listing_need_no_torch() -> None:
    code = (
        "import sys, medmargin; from medmargin.cli.app import run; assert run(['systems', '--json']) == 0; "
        "assert run(['--help']) == 0; assert 'torch' not in sys.modules"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert '"slug": "u-medsam"' in output


def test_version_and_systems_answer_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"version", "versions", "git"} <= answer(["version", "--json"], capsys).keys()
    listed = answer(["systems", "--json"], capsys)
    assert {"slug", "title", "paper", "dims", "needs", "stages", "measured"} == listed[0].keys()
    one = answer(["systems", "u-medsam", "--json"], capsys)
    assert "Deviations" in one["about"]
    assert "rho" in {argument["name"] for argument in one["arguments"]}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["frobnicate"], 2),
        (["train", "u-medsam"], 2),
        (["systems", "u-medsma"], 2),
        (["train", "u-medsam", "nowhere", "--run", "x", "--steps", "1"], 3),
        (["evaluate", "no-such-run", "nowhere"], 3),
        (["predict", "no-such-run", "image.png", "--box", "1,1,2,2"], 4),
        (["verify", "u-medsam", "--reference", "missing.safetensors"], 4),
    ],
)
def test_errors_are_one_line_with_their_exit_code(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert not list(tmp_path.iterdir())


def test_train_ends_with_the_promised_object(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "u-medsam", str(pictures), "--run", str(tmp_path / "run"), "--steps", "1", "--json"]
    found = answer([*words, "--set", "init=none", "--set", "members=2"], capsys)
    assert {"run", "steps", "seconds", "best", "stopped_by"} == found.keys()
    assert (found["steps"], found["stopped_by"]) == (1, "steps")


def test_evaluate_and_predict_answer_in_json(
    pictures: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "cases.csv"
    measured = answer(["evaluate", str(run_folder), str(pictures), "--table", str(table), "--json"], capsys)
    lines = table.read_text().splitlines()
    assert len(lines) == 1 + sum(len(case["structures"]) for case in measured["cases"])
    assert {"cases", "failed", "summary", "calibrated", "conventions", "run", "versions"} <= measured.keys()
    assert measured["summary"]["floors"].keys() == {"box", "ellipse"}
    words = ["predict", str(run_folder), str(pictures), "--split", "test", "--out", str(tmp_path)]
    predicted = answer([*words, "--prompts-from", str(pictures / "labelsTs"), "--json"], capsys)
    assert [case["case"] for case in predicted["cases"]] == [case["case"] for case in measured["cases"]]
    assert all(Path(file).exists() for case in predicted["cases"] for file in case["files"])


def test_some_failed_cases_exit_6(pictures: Path, run_folder: Path, tmp_path: Path) -> None:
    good = sorted((pictures / "imagesTs").iterdir())[0]
    (tmp_path / "broken.png").write_bytes(good.read_bytes()[:200])
    words = ["predict", str(run_folder), str(good), str(tmp_path / "broken.png"), "--box", "10,10,40,40"]
    assert run([*words, "--out", str(tmp_path / "out")]) == 6
    assert json.loads((tmp_path / "out" / "failed.json").read_text())[0]["case"] == "broken"


def test_a_lone_bad_case_exits_with_its_own_code(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    words = ["predict", str(run_folder), str(tmp_path / "empty.png"), "--box", "1,1,2,2"]
    assert run([*words, "--out", str(tmp_path / "out")]) == 3


def test_settings_come_from_options_and_files(tmp_path: Path) -> None:
    from medmargin.cli.settings import parsed_settings
    from medmargin.errors import ConfigError

    (tmp_path / "mine.yaml").write_text("lr: 0.001\nrho: 0.1\n")
    assert parsed_settings([f"@{tmp_path / 'mine.yaml'}", "rho=0.2"]) == {"lr": 0.001, "rho": "0.2"}
    for wrong in ("rho", "=3", f"@{tmp_path / 'missing.yaml'}"):
        with pytest.raises(ConfigError):
            parsed_settings([wrong])


def test_demo_never_touches_a_folder_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    assert run(["demo", "--out", str(tmp_path)]) == 2
    assert (tmp_path / "precious.txt").exists()


@pytest.mark.slow
def test_demo_goes_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--out", str(tmp_path / "demo"), "--minutes", "0.2"]) == 0
    assert "Report:" in capsys.readouterr().out
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000
    assert run(["demo", "--out", str(tmp_path / "demo"), "--minutes", "0.2", "--json"]) == 0
