"""`fit`: what it refuses, what it leaves behind, and that it teaches."""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager

import pytest
import torch

from medmargin import learning
from medmargin.errors import BudgetError, CheckpointError, ConfigError
from medmargin.learning import training
from medmargin.learning.batches import FixedItems
from medmargin.learning.budget import Budget
from medmargin.runs import RunPaths, read_weights, run_lock


def records(folder) -> list[dict]:
    return [json.loads(line) for line in RunPaths(folder).metrics.read_text().splitlines()]


def test_training_beats_the_box_on_other_pictures(tiny, tmp_path):
    outcome = tiny.run(tmp_path, steps=120, validate_every=60, network=tiny.learner(lr=0.03))
    assert outcome.steps == 120
    assert outcome.stopped_by == "steps"
    assert outcome.best["val/dice"] > outcome.best["val/box"] + 0.01
    assert outcome.best["val/box"] < outcome.best["val/ellipse"] < 1
    losses = [record["loss"] for record in records(tmp_path) if "loss" in record]
    assert losses[-1] < losses[0] - 1


def test_the_log_holds_terms_weights_rate_norm_and_sharpness(tiny, tmp_path):
    tiny.run(tmp_path, steps=4, network=tiny.learner(rho=0.05), log_every=2)
    trained = [record for record in records(tmp_path) if "loss" in record]
    assert [record["step"] for record in trained] == [2, 4]
    expected = {"loss", "lr", "gradient_norm", "sharpness"}
    expected |= {f"{kind}/{term}" for kind in ("loss", "weight") for term in ("mse", "dice", "ce", "sd", "quality")}
    assert expected < trained[0].keys()
    assert all(record["sharpness"] > 0 for record in trained)
    events = list((tmp_path / "tensorboard").glob("events.*"))
    assert len(events) == 1


def test_an_averaged_network_is_what_is_kept(tiny, tmp_path):
    learner = tiny.learner(average_decay=0.9)
    tiny.run(tmp_path, steps=6, network=learner)
    kept = read_weights(RunPaths(tmp_path).weights)
    assert all(torch.equal(kept[name], value) for name, value in learner.averaged.module.state_dict().items())
    assert not torch.equal(kept["last.weight"], learner.network.state_dict()["last.weight"])


def test_the_best_weights_can_be_kept(tiny, tmp_path):
    learner = tiny.spoiled(tiny.learner(lr=0.03, average_decay=None), after=8)
    outcome = tiny.run(tmp_path, steps=12, validate_every=2, keep="best", network=learner)
    assert outcome.best["step"] == 8
    paths = RunPaths(tmp_path)
    kept, best = read_weights(paths.weights), read_weights(paths.best_weights)
    assert all(torch.equal(kept[name], best[name]) for name in best)


def test_without_validation_there_is_no_best(tiny, tmp_path):
    assert tiny.run(tmp_path, steps=3, validate=False).best == {}
    with pytest.raises(ConfigError, match="keep='best' needs validation"):
        tiny.run(tmp_path, steps=3, validate=False, keep="best")


def test_epochs_pass_over_the_objects(tiny, tmp_path):
    outcome = tiny.run(tmp_path, budget=Budget(epochs=1), batch_size=10, validate=False)
    assert (outcome.steps, outcome.stopped_by) == (4, "epochs")  # 40 objects


def test_minutes_end_the_run(tiny, tmp_path):
    outcome = tiny.run(tmp_path, budget=Budget(minutes=0.03), validate=False, pause=0.002)
    assert outcome.stopped_by == "minutes"
    assert outcome.seconds == pytest.approx(1.8, abs=0.6)
    assert records(tmp_path)[-1]["lr"] < 3e-4  # annealed: a tenth of the base rate at most


def test_bf16_learns_in_single_precision_weights(tiny, tmp_path):
    learner = tiny.learner()
    tiny.run(tmp_path, steps=4, precision="bf16-mixed", network=learner)
    assert {weight.dtype for weight in learner.network.parameters()} == {torch.float32}


def test_half_precision_is_refused_on_a_processor(tiny, tmp_path):
    with pytest.raises(ConfigError, match="'16-mixed' needs a GPU"):
        tiny.run(tmp_path, precision="16-mixed")


def test_a_folder_with_a_run_is_not_overwritten(tiny, tmp_path):
    tiny.run(tmp_path, steps=2)
    before = RunPaths(tmp_path).weights.read_bytes()
    with pytest.raises(ConfigError, match="holds a run already: resume it"):
        tiny.run(tmp_path, steps=2)
    assert RunPaths(tmp_path).weights.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 8}, "seed was 7 and is 8"),
        ({"batch_size": 2}, "batch_size was 4 and is 2"),
        ({"steps": 9}, "budget was {'steps': 2} and is {'steps': 9}"),
    ],
)
def test_a_resumed_run_keeps_its_arguments(tiny, tmp_path, options, message):
    tiny.run(tmp_path, steps=2)
    with pytest.raises(ConfigError, match=message):
        tiny.run(tmp_path, resume=True, **{"steps": 2, **options})


def test_another_number_of_threads_is_said(tiny, tmp_path, caplog, monkeypatch):
    tiny.run(tmp_path, steps=2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    with caplog.at_level("WARNING"):
        tiny.run(tmp_path, steps=2, resume=True)
    assert "used 1 threads and goes on with 3" in caplog.text


def test_row_39_a_checkpoint_of_another_network_is_refused_with_its_names(tiny, tmp_path):
    tiny.run(tmp_path, steps=2)
    with pytest.raises(CheckpointError, match=r"network\.norm\.weight"):
        tiny.run(tmp_path, steps=2, resume=True, network=tiny.learner(norm=False))


def test_row_39_a_diverged_run_is_refused_and_leaves_its_last_good_state(tiny, tmp_path):
    learner = tiny.learner()

    def poison(module, inputs):
        if learner.training and learner.trainer.global_step == 3:
            with torch.no_grad():
                module.last.weight.fill_(float("nan"))

    learner.network.register_forward_pre_hook(poison)
    with pytest.raises(ConfigError, match="loss is nan at step 3"):
        tiny.run(tmp_path, steps=6, network=learner, checkpoint_steps=1)
    assert not RunPaths(tmp_path).weights.exists()
    assert tiny.run(tmp_path, steps=6, resume=True).steps == 6


def test_row_40_two_runs_cannot_share_a_folder(tiny, tmp_path):
    with run_lock(tmp_path), pytest.raises(BudgetError, match="in use by"):
        tiny.run(tmp_path, steps=2)


def test_row_40_a_full_disk_ends_the_run_and_keeps_the_former_checkpoint(tiny, tmp_path, monkeypatch):
    calls = iter(range(100))
    save = torch.save

    def full_at_the_third(*arguments):
        if next(calls) == 2:
            arguments[1].write(b"half a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*arguments)

    monkeypatch.setattr(torch, "save", full_at_the_third)
    with pytest.raises(BudgetError, match=r"last\.ckpt: the disk is full"):
        tiny.run(tmp_path, steps=6, checkpoint_steps=1)
    tiny.run(tmp_path / "whole", steps=6)
    tiny.run(tmp_path, steps=6, resume=True)
    kept, whole = (read_weights(RunPaths(folder).weights) for folder in (tmp_path, tmp_path / "whole"))
    assert all(torch.equal(kept[name], whole[name]) for name in whole)


def test_row_40_non_ascii_paths(tiny, tmp_path):
    folder = tmp_path / "прогон 实验 ü"
    tiny.run(folder, steps=2)
    assert RunPaths(folder).weights.exists()


def test_row_40_a_path_that_is_too_long(tiny, tmp_path):
    with pytest.raises(BudgetError):
        tiny.run(tmp_path / ("x" * 300), steps=2)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can write everywhere")
def test_row_40_a_folder_that_cannot_be_written(tiny, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(BudgetError, match="cannot write here"):
        tiny.run(tmp_path / "run", steps=2)


def test_leftovers_of_a_killed_process_are_removed(tiny, tmp_path):
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    for leftover in (tmp_path / ".77.part.model.safetensors", checkpoints / ".77.part.last.ckpt"):
        leftover.write_bytes(b"half")
    tiny.run(tmp_path, steps=2)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.safetensors", "last.ckpt"]
    assert not list(tmp_path.glob(".*part*"))


def test_progress_in_a_log_file_is_a_line_now_and_then(tiny, tmp_path, capsys):
    tiny.run(tmp_path, steps=40, progress=True, validate_every=20)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 20
    assert lines[-1].startswith("training 40/40  loss ")
    assert "min left" in lines[9]


def test_training_streams_may_have_no_end(tiny, tmp_path):
    endless = tiny.stream(learning.GeneratedPictures(), frame_margin=None)
    outcome = learning.fit(
        tiny.learner(), endless, FixedItems(endless.undisturbed(endless.source), 2), folder=tmp_path,
        budget=Budget(steps=2), batch_size=2, seed=0, accelerator="cpu", progress=False,
    )  # fmt: skip
    assert outcome.steps == 2


def test_interrupts_pass_through_lightning():
    with pytest.raises(KeyboardInterrupt), interrupts():
        raise SystemExit(1)


interrupts = contextmanager(training._interrupts.__wrapped__)
