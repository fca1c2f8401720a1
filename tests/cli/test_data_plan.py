"""`medmargin data plan`: reasons for people, one object for programs, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from medmargin.cli.app import run
from medmargin.datasets.phantoms.writing import write_phantom_dataset


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return str(
        write_phantom_dataset(tmp_path_factory.mktemp("data") / "phantom", dims=2, cases=3, test_cases=1, raters=1)
    )


def test_help_shows_an_example(capsys):
    assert run(["data", "plan", "--help"]) == 0
    assert "Example: medmargin data plan" in capsys.readouterr().out


def test_every_choice_is_printed_with_its_reason(phantom, capsys):
    assert run(["data", "plan", phantom, "--scale", "laptop"]) == 0
    output = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for choice in ("configuration", "axis_order", "normalisation of", "patch", "batch_size", "strides", "features"):
        assert choice in output
    assert "the images are single slices" in output
    assert "Estimate for 2d on" in output


def test_json_is_one_object(phantom, capsys):
    assert run(["data", "plan", phantom, "--no-timing", "--json", "--set", "batch_size=2"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["plans"]["paper"]["configurations"][0]["batch_size"] == 2
    assert answer["fingerprint"]["cases"] == 3
    assert answer["costs"] == {}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--memory", "1M"], 5, "needs about"),
        (["--set", "patch=31,32"], 2, "nearest"),
        (["--set", "pathc=32,32"], 2, "nearest: patch"),
        (["--dims", "3"], 2, "one slice"),
        (["--memory", "lots"], 2, "lots"),
    ],
)
def test_what_cannot_be_planned_is_one_line(phantom, words, code, message, capsys):
    assert run(["data", "plan", phantom, "--no-timing", *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_without_timing_torch_stays_out(phantom):
    program = (
        "import sys; from medmargin.cli.app import run; "
        f"code = run(['data', 'plan', {phantom!r}, '--no-timing', '--json']); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
