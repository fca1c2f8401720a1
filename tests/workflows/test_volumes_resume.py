"""A training of a planned system that is killed, stopped and damaged on its way ends as if nobody had touched it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

STEPS = 8
# the command line, with a checkpoint after every step instead of every minute
_PROGRAM = """
import sys
from functools import partial
from medmargin.cli.app import run
from medmargin.workflows import train
train.fit = partial(train.fit, checkpoint_steps=1)
sys.exit(run(sys.argv[1:]))
"""


def started(data: Path, run: Path, *further: str) -> subprocess.Popen:
    settings = ("--set", "dropout=0.2", "--set", "average_decay=0.9", "--set", "augmentation=nnunet")
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "train", "plain-unet", str(data), "--run", str(run), "--steps", str(STEPS),
         "--scale", "laptop", *settings, *further],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def records(run: Path) -> list[dict]:
    """Read the log without the clock."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines]


def wait_for(run: Path, process: subprocess.Popen, step: int) -> None:
    """Wait until a step and its validation are recorded."""
    deadline = time.monotonic() + 250
    while not any(record["step"] >= step and "val/dice" in record for record in records_so_far(run)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def records_so_far(run: Path) -> list[dict]:
    try:
        return records(run)
    except json.JSONDecodeError:  # a line that is being written
        return []


@pytest.mark.slow
def test_killed_damaged_stopped_and_resumed(toy_volumes: Callable[..., Path], tmp_path: Path) -> None:
    data, cut = toy_volumes(tmp_path / "Dataset001_Balls", test_cases=0), tmp_path / "cut"
    whole = started(data, tmp_path / "whole")
    assert whole.wait(250) == 0, whole.communicate()
    killed = started(data, cut)
    wait_for(cut, killed, 2)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    cache = cut / "cache" / "volumes" / "train"
    image = cache / "00001.image.b2nd"
    image.write_bytes(image.read_bytes()[:100])  # as a power cut may leave it
    (cache / "00002.json").unlink()
    (cache / ".1.part.00002.image.b2nd").write_bytes(b"half")
    stopped = started(data, cut, "--resume")
    wait_for(cut, stopped, 4)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(250) == 130, stopped.communicate()
    assert not (cut / "model.safetensors").exists()
    again = started(data, cut, "--resume", "--workers", "1")
    assert again.wait(250) == 0, again.communicate()
    assert records(tmp_path / "whole") == records(cut)
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()
