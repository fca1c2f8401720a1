"""A killed training of the real automatic system ends as if nobody had touched it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STEPS = 6
# the command line, with a checkpoint after every step instead of every minute, and a short validation
_PROGRAM = """
import sys
from functools import partial
from medmargin.cli.app import run
from medmargin.workflows import train
train.fit = partial(train.fit, checkpoint_steps=1)
train._VALIDATION_ITEMS = 8
sys.exit(run(sys.argv[1:]))
"""
_SETTINGS = ("init=none", "dropout=0.2", "prompted_share=0.5", "average_decay=0.9", "batch_size=4")


def started(phantoms: Path, run: Path, *further: str) -> subprocess.Popen:
    settings = [word for setting in _SETTINGS for word in ("--set", setting)]
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "train", "udeg-net", str(phantoms), "--run", str(run), "--steps", str(STEPS),
         "--scale", "laptop", *settings, *further],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def records(run: Path) -> list[dict]:
    """Read the log without the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines]


@pytest.mark.slow
def test_kill_9_and_resume_through_the_command_line(phantoms: Path, tmp_path: Path) -> None:
    whole = started(phantoms, tmp_path / "whole")
    assert whole.wait(250) == 0, whole.communicate()
    cut, log = started(phantoms, tmp_path / "cut"), tmp_path / "cut" / "metrics.jsonl"
    deadline = time.monotonic() + 250
    while not log.exists() or len(log.read_bytes().splitlines()) < 6:  # step 3: a record of loss and one of validation
        assert cut.poll() is None, cut.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    cut.send_signal(signal.SIGKILL)
    assert cut.wait() == -signal.SIGKILL
    assert (tmp_path / "cut" / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    again = started(phantoms, tmp_path / "cut", "--resume")
    assert again.wait(250) == 0, again.communicate()
    for name in ("model.safetensors", "adapter.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name
    assert records(tmp_path / "whole") == records(tmp_path / "cut")
