"""The tiny run: as a module, and as a program that can be killed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

_PROGRAM = Path(__file__).with_name("tiny.py")


@pytest.fixture(scope="session")
def tiny():
    """The module `tiny.py`."""
    spec = importlib.util.spec_from_file_location("tiny", _PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start_tiny():
    """Start `tiny.py` in a process group of its own; whatever is left of it is killed afterwards."""
    started: list[subprocess.Popen] = []

    def start(*arguments: object, launcher: tuple[str, ...] = (), **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, *launcher, str(_PROGRAM), *(str(argument) for argument in arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.communicate()


@pytest.fixture(autouse=True)
def _one_thread():
    """Compare runs of one thread each, and keep out of the way of tests beside this one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
