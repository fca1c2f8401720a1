"""Row 40: two runs in one folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from medmargin.errors import BudgetError
from medmargin.runs import run_lock

_HOLDER = """
import os, sys, time
from medmargin.runs import run_lock
with run_lock(sys.argv[1]):
    if len(sys.argv) > 2 and os.fork() == 0:  # a loading process that outlives its parent
        time.sleep(30)
        os._exit(0)
    print("held", flush=True)
    time.sleep(30)
"""


@pytest.fixture
def holder(tmp_path):
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(tmp_path), *arguments],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):  # the test killed all of it
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_row_40_a_folder_in_use_is_refused_and_names_its_owner(tmp_path, holder):
    process = holder()
    with pytest.raises(BudgetError, match=f"in use by process {process.pid} on ") as caught, run_lock(tmp_path):
        pass
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("arguments", [(), ("with a child",)])
def test_row_40_the_lock_of_a_killed_process_is_free_at_once(tmp_path, holder, arguments):
    """Also while a child of the killed process is still alive."""
    process = holder(*arguments)
    process.send_signal(signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with run_lock(tmp_path):
        assert time.monotonic() - began < 1


def test_row_40_a_second_lock_in_the_same_process_is_refused_and_the_first_stays(tmp_path):
    with run_lock(tmp_path):
        with pytest.raises(BudgetError, match="in use by this process"), run_lock(tmp_path / ".." / tmp_path.name):
            pass
        program = "import sys\nfrom medmargin.runs import run_lock\nwith run_lock(sys.argv[1]): pass"
        command = [sys.executable, "-c", program, str(tmp_path)]
        other = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "in use by process" in other.stderr
    with run_lock(tmp_path):
        pass


def test_row_40_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BudgetError, match="cannot write here"), run_lock(tmp_path / "file" / "run"):
        pass
