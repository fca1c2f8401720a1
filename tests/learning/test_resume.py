"""A run that was interrupted, in whatever way, ends like one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter

import pytest
import torch

from medmargin.learning.budget import Budget
from medmargin.runs import RunPaths

STEPS = 12


class Interruption(BaseException):
    """Not an error anything may catch."""


def outcome_of(folder) -> tuple[bytes, list]:
    """The weights and the metrics a run left."""
    paths = RunPaths(folder)
    return paths.weights.read_bytes(), [json.loads(line) for line in paths.metrics.read_text().splitlines()]


def assert_same_run(one, other) -> None:
    assert outcome_of(one) == outcome_of(other)


def interrupt_in(tiny, folder, step: int, *, in_validation: bool = False, **options) -> None:
    """Run until the next forward pass after `step` steps, and end there without any goodbye."""
    learner = options["network"]

    def fail(module, inputs):
        if learner.trainer.validating == in_validation and learner.trainer.global_step == step:
            raise Interruption

    for network in (learner.network, learner.best_network):
        network.register_forward_pre_hook(fail)
    with pytest.raises(Interruption):
        tiny.run(folder, **options)


@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_resuming_after_any_step_repeats_the_uninterrupted_run(tiny, tmp_path, rho):
    """Batch norm, dropout, moving averages, schedule, validation, best score and log are all in the comparison."""
    steps = 9
    tiny.run(tmp_path / "whole", steps=steps, network=tiny.learner(rho=rho))
    for step in range(1, steps):
        folder = tmp_path / f"cut{step}"
        interrupt_in(tiny, folder, step, steps=steps, network=tiny.learner(rho=rho), checkpoint_steps=1)
        torch.manual_seed(step)  # a fresh process would start from any random state
        outcome = tiny.run(folder, steps=steps, network=tiny.learner(rho=rho, seed=99), resume=True)
        assert outcome.steps == steps
        assert_same_run(tmp_path / "whole", folder)


def test_resuming_from_sparse_checkpoints_repeats_the_steps_between(tiny, tmp_path):
    """The best validation lies before the interruption, and its weights are the ones to keep."""
    options = {"steps": STEPS, "checkpoint_steps": 4, "validate_every": 2, "keep": "best"}
    learners = [tiny.spoiled(tiny.learner(lr=0.03, average_decay=None), after=8) for _ in range(3)]
    whole = tiny.run(tmp_path / "whole", network=learners[0], **options)
    interrupt_in(tiny, tmp_path / "cut", 9, network=learners[1], **options)
    resumed = tiny.run(tmp_path / "cut", network=learners[2], resume=True, **options)
    assert whole.best["step"] == 8
    assert resumed.best == whole.best
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_validation_that_was_interrupted_is_repeated(tiny, tmp_path):
    tiny.run(tmp_path / "whole", steps=STEPS)
    interrupt_in(
        tiny, tmp_path / "cut", 8, in_validation=True, steps=STEPS, network=tiny.learner(), checkpoint_steps=1
    )
    tiny.run(tmp_path / "cut", steps=STEPS, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_resuming_before_the_first_checkpoint_starts_at_the_beginning(tiny, tmp_path):
    tiny.run(tmp_path / "whole", steps=4)
    interrupt_in(tiny, tmp_path / "cut", 2, steps=4, network=tiny.learner())
    tiny.run(tmp_path / "cut", steps=4, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_resuming_a_finished_run_changes_nothing(tiny, tmp_path):
    whole = tiny.run(tmp_path / "whole", steps=4)
    before = outcome_of(tmp_path / "whole")
    again = tiny.run(tmp_path / "whole", steps=4, resume=True, network=tiny.learner(seed=5))
    assert again.steps == 4
    assert again.best == whole.best
    assert again.stopped_by == "steps"
    assert outcome_of(tmp_path / "whole") == before


def kill_when(process, metrics, *, records: int) -> None:
    """Send SIGKILL to the run and its loading processes once the log has so many records."""
    deadline = time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_bytes().splitlines()) < records:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_row_40_kill_9_and_resume(tiny, start_tiny, tmp_path):
    """A killed process with a loading process beside it; the resumed run uses none, which must not matter."""
    tiny.run(tmp_path / "whole", steps=STEPS, network=tiny.learner(rho=0.05))
    process = start_tiny(tmp_path / "cut", "--steps", STEPS, "--rho", 0.05, "--workers", 1, "--pause", 0.02)
    kill_when(process, tmp_path / "cut" / "metrics.jsonl", records=5)
    assert not RunPaths(tmp_path / "cut").weights.exists()
    tiny.run(tmp_path / "cut", steps=STEPS, network=tiny.learner(rho=0.05), resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    steps = Counter(record["step"] for record in outcome_of(tmp_path / "cut")[1] if "loss" in record)
    assert steps == dict.fromkeys(range(1, STEPS + 1), 1)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--rho", 0.05, "--workers", 1), ("--bf16", "--accumulate", 2)])
def test_killed_at_three_random_moments_in_a_row(start_tiny, tmp_path, options):
    """Every part of the run in its own process, killed wherever it happens to be: loading, stepping, writing."""
    whole = start_tiny(tmp_path / "whole", "--steps", 40, *options)
    assert whole.wait() == 0, whole.communicate()
    moments = sorted(random.SystemRandom().sample(range(2, 38), 3))
    for moment in moments:
        process = start_tiny(tmp_path / "cut", "--steps", 40, *options, "--resume", "--pause", 0.01)
        kill_when(process, tmp_path / "cut" / "metrics.jsonl", records=moment)
    last = start_tiny(tmp_path / "cut", "--steps", 40, *options, "--resume")
    assert last.wait() == 0, last.communicate()
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, 6), (signal.SIGTERM, 6), (signal.SIGINT, 7)])
def test_row_40_a_signal_stops_after_a_step_and_the_run_can_go_on(tiny, tmp_path, number, step):
    """Also after a step that a validation follows (the eighth)."""
    tiny.run(tmp_path / "whole", steps=STEPS)
    learner = tiny.learner()

    def press(module, inputs):
        if learner.training and learner.trainer.global_step == step:
            os.kill(os.getpid(), number)

    learner.network.register_forward_pre_hook(press)
    former = signal.getsignal(number)
    stopped = tiny.run(tmp_path / "cut", steps=STEPS, network=learner)
    assert stopped.stopped_by == "signal"
    assert stopped.steps == step + 1
    assert signal.getsignal(number) == former
    assert not RunPaths(tmp_path / "cut").weights.exists()
    assert tiny.run(tmp_path / "cut", steps=STEPS, resume=True).stopped_by == "steps"
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_second_ctrl_c_ends_at_once(tiny, tmp_path):
    learner = tiny.learner()

    def press_twice(module, inputs):
        if learner.training and learner.trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    learner.network.register_forward_pre_hook(press_twice)
    with pytest.raises(KeyboardInterrupt):
        tiny.run(tmp_path, steps=STEPS, network=learner)


def test_resume_continues_the_plan_of_a_budget_in_minutes(tiny, tmp_path):
    """Given the plan in the checkpoint, the resumed run is the run of that many steps."""
    learner = tiny.learner()

    pressed: list[int] = []

    def press(module, inputs):
        if learner.training and learner.progress > 0.3 and not pressed:
            pressed.append(learner.trainer.global_step)
            os.kill(os.getpid(), signal.SIGINT)

    learner.network.register_forward_pre_hook(press)
    budget = Budget(minutes=0.05)
    stopped = tiny.run(tmp_path, budget=budget, pause=0.001, network=learner)
    assert (stopped.steps, stopped.stopped_by) == (pressed[0] + 1, "signal")
    began = time.monotonic()
    ended = tiny.run(tmp_path, budget=budget, pause=0.001, resume=True)
    assert ended.stopped_by == "minutes"
    assert ended.steps > stopped.steps
    assert time.monotonic() - began < 3 + 2  # what is left of three seconds, and the start of a trainer
