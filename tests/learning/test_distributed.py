"""Two processes on one processor do what one process does with the same global batch."""

from __future__ import annotations

import json
import os
import signal
import socket
from itertools import chain

import pytest
import torch

from medmargin.errors import ConfigError
from medmargin.learning.batches import StepBatches
from medmargin.runs import RunPaths, read_weights


def assert_close_runs(one, other) -> None:
    weights, other_weights = read_weights(RunPaths(one).weights), read_weights(RunPaths(other).weights)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, other_weights[name], rtol=1e-4, atol=1e-5, msg=name)
    scores, other_scores = (validations(folder) for folder in (one, other))
    assert [score["step"] for score in scores] == [score["step"] for score in other_scores]
    for score, other_score in zip(scores, other_scores, strict=True):
        assert score == pytest.approx(other_score, abs=1e-3)


def validations(folder) -> list[dict]:
    records = [json.loads(line) for line in RunPaths(folder).metrics.read_text().splitlines()]
    return [record for record in records if "val/dice" in record]


def plain(tiny, rho):
    """No batch norm and no dropout: their values depend on which process sees an item."""
    return tiny.learner(rho=rho, norm=False, dropout=0.0)


def test_two_processes_started_from_here_equal_one(tiny, start_tiny, tmp_path):
    """`devices=2`, with sharpness-aware minimisation and accumulation: both passes must agree between the processes."""
    process = start_tiny(tmp_path / "two", "--plain", "--rho", 0.05, "--devices", 2, "--accumulate", 2)
    tiny.run(tmp_path / "one", network=plain(tiny, 0.05), checkpoint_steps=1)
    assert process.wait(timeout=120) == 0, process.communicate()
    assert_close_runs(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_torchrun_and_resuming_with_another_number_of_processes(tiny, start_tiny, tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port", str(free_port()))
    tiny.run(tmp_path / "one", network=plain(tiny, 0.0), steps=16)
    learner = plain(tiny, 0.0)
    learner.network.register_forward_pre_hook(
        lambda module, inputs: os.kill(os.getpid(), signal.SIGINT) if learner.trainer.global_step == 5 else None
    )
    assert tiny.run(tmp_path / "two", network=learner, steps=16).stopped_by == "signal"
    process = start_tiny(
        tmp_path / "two", "--plain", "--devices", 2, "--steps", 16, "--resume", launcher=torchrun
    )
    assert process.wait(timeout=240) == 0, process.communicate()
    assert_close_runs(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_slurm_tasks_equal_one_process(tiny, start_tiny, tmp_path):
    """The environment `srun --ntasks=2` gives its tasks."""
    port = str(free_port())
    tasks = [
        start_tiny(
            tmp_path / "two", "--plain", "--devices", 2,
            SLURM_NTASKS="2", SLURM_JOB_NAME="train", SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), SLURM_NODEID="0",
            SLURM_NODELIST="localhost", SLURM_NTASKS_PER_NODE="2", SLURM_JOB_ID="1", MASTER_PORT=port,
            MASTER_ADDR="127.0.0.1",
        )
        for rank in range(2)
    ]  # fmt: skip
    tiny.run(tmp_path / "one", network=plain(tiny, 0.0))
    for task in tasks:
        assert task.wait(timeout=240) == 0, task.communicate()
    assert_close_runs(tmp_path / "one", tmp_path / "two")


def test_processes_share_every_batch_without_overlap():
    shares = [list(StepBatches(batch_size=6, start=3, total=5, rank=rank, world_size=3)) for rank in range(3)]
    whole = list(StepBatches(batch_size=6, start=3, total=5))
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == whole
    assert whole[0] == [(3, position) for position in range(6)]


def test_the_length_stays_that_of_the_whole_run():
    batches = StepBatches(batch_size=2, start=8, total=10)
    assert len(batches) == 10
    assert len(list(batches)) == 2


def test_a_batch_that_cannot_be_split_evenly_is_refused():
    with pytest.raises(ConfigError, match="5 cannot be split over 2 processes"):
        StepBatches(batch_size=5, start=0, total=1, rank=0, world_size=2)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
