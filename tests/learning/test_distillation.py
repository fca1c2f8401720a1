"""Distillation: the student comes closer to the teacher, which never moves and is not stored."""

from __future__ import annotations

import json
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

from medmargin.errors import ConfigError
from medmargin.learning import Budget, DistillationLearner, DistillationPictures, FixedItems, Optimisation, fit
from medmargin.learning.checkpoints import read_checkpoint
from medmargin.networks.compact import compact_promptable
from medmargin.runs import RunPaths


@dataclass(frozen=True)
class Clouds:
    """Smooth pictures of other proportions than the networks' inputs."""

    objects: int = 20

    def draw(self, rng):
        return cv2.GaussianBlur(rng.random((40, 30)).astype(np.float32), (0, 0), 3), np.ones((40, 30), bool)


def small(seed: int, **sizes):
    torch.manual_seed(seed)
    return compact_promptable(**{"image_size": 16, "dim": 64, "depth": 1, "heads": 2, "mlp_dim": 64, **sizes})


def test_fifty_steps_lower_the_difference_and_leave_the_teacher(tmp_path):
    student, teacher = small(0), small(1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    decoder = {name: value.clone() for name, value in student.mask_decoder.state_dict().items()}
    stream = DistillationPictures(Clouds(), size=16, teacher_size=16, seed=0)
    learner = DistillationLearner(student, teacher, Optimisation(lr=1e-3))
    outcome = fit(
        learner, stream, FixedItems(stream.undisturbed(Clouds()), 4), folder=tmp_path, budget=Budget(steps=50),
        batch_size=4, seed=0, accelerator="cpu", validate_every=10, progress=False,
    )  # fmt: skip
    records = [json.loads(line) for line in RunPaths(tmp_path).metrics.read_text().splitlines()]
    course = [record["val/embedding_mse"] for record in records if "val/embedding_mse" in record]
    assert course[-1] < 0.9 * course[0]
    assert outcome.best["val/embedding_mse"] == min(course)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(torch.equal(decoder[name], value) for name, value in student.mask_decoder.state_dict().items())
    stored = read_checkpoint(RunPaths(tmp_path).checkpoint)["state_dict"]
    assert {name.partition(".")[0] for name in stored} == {"network"}


def test_embeddings_that_differ_in_shape_are_refused():
    stream = DistillationPictures(Clouds(), size=16, teacher_size=32, seed=0)
    batch = stream.collate([stream[0, 0]])
    learner = DistillationLearner(small(0), small(1, image_size=32), Optimisation(lr=1e-3))
    with pytest.raises(ConfigError, match=r"student's embedding is \(64, 4, 4\), the teacher's \(64, 8, 8\)"):
        learner.objective(batch)


def test_pictures_are_stretched_to_each_networks_square():
    """Bicubic when enlarged, by area when shrunk; both from 0 to 1 and functions of (seed, step, position)."""
    stream = DistillationPictures(Clouds(), size=16, teacher_size=64, seed=3)
    item, again = stream[5, 1], stream[5, 1]
    assert item.image.shape == (3, 16, 16)
    assert item.teacher_image.shape == (3, 64, 64)
    for image, same in zip(item, again, strict=True):
        assert np.array_equal(image, same)
        assert image.min() == pytest.approx(0, abs=1e-6)
        assert image.max() == pytest.approx(1, abs=1e-6)
    coarse = cv2.resize(item.teacher_image[0], (16, 16), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(coarse.ravel(), item.image[0].ravel())[0, 1] > 0.99
