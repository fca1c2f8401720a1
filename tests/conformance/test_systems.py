"""What every system must do, run over the registry."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from medmargin.datasets import Task
from medmargin.datasets.planning import LAPTOP, Fingerprint, make_plan
from medmargin.learning import GeneratedPictures
from medmargin.systems.registry import build_system, catalogue, resolve_arguments

SLUGS = sorted(catalogue())
TASK = Task("toy", ("image",), {"organ": 1}, dims=2, unit="px")
PLAN = make_plan(Fingerprint(TASK, ((70, 50, 1),) * 4, ((1.0, 1.0, 1.0),) * 4, 1.0, {}, {"organ": 4}), scale=LAPTOP)


class Pictures(GeneratedPictures):
    """Generated pictures, as slices or as patches of volumes of one slice."""

    absent = ()

    def draw_patch(self, rng, *, patch, foreground, enlarged=None):
        picture, mask = self.generate(rng)
        _, height, width = enlarged or patch
        image = cv2.resize(picture.reshape(*mask.shape, -1)[..., 0].astype(np.float32), (width, height))
        label = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        return ((image - image.mean()) / image.std())[None, None], label[None].astype(np.int16)


@pytest.fixture(params=SLUGS)
def laptop(request: pytest.FixtureRequest):
    torch.manual_seed(0)
    task = replace(TASK, plan=PLAN) if "plan" in catalogue()[request.param].needs else TASK
    return build_system(request.param, task, resolve_arguments(request.param, "laptop", {"init": "none"}))


def first_batch(stage, count: int = 2):
    stream = stage.stream(Pictures(), seed=0)
    return stream.collate([stream[0, position] for position in range(count)])


@pytest.mark.parametrize("slug", SLUGS)
def test_arguments_survive_the_run_folder(slug: str) -> None:
    for scale in ("laptop", "paper"):
        arguments = resolve_arguments(slug, scale, {})
        restored = json.loads(json.dumps(arguments))
        assert resolve_arguments(slug, scale, restored) == arguments


def test_every_weight_gets_a_finite_gradient(laptop) -> None:
    stage = laptop.stages[-1]()
    # a step without any click leaves the point and mask prompts of a promptable network untouched
    resting = ("point_embeddings.0", "point_embeddings.1", "not_a_point", "no_mask")
    assert any(weight.requires_grad for weight in laptop.network.parameters())
    report = stage.learner.objective(first_batch(stage))
    report.total.backward()
    assert torch.isfinite(report.total)
    assert report.total.item() >= 0
    for name, weight in laptop.network.named_parameters():
        if weight.requires_grad and not any(part in name for part in resting):
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name


def test_evaluation_mode_is_deterministic_and_takes_one_image(laptop) -> None:
    stage = laptop.stages[-1]()
    batch = first_batch(stage, 1)
    network = laptop.network.eval()
    with torch.inference_mode():
        first, second = (logits_of(network, batch) for _ in range(2))
    assert torch.equal(first, second)
    assert len(first) == 1


def test_state_survives_bit_for_bit(laptop, tmp_path) -> None:
    from medmargin.runs import read_weights, write_weights

    write_weights(tmp_path / "model.safetensors", laptop.network.state_dict())
    for name, weight in read_weights(tmp_path / "model.safetensors").items():
        assert torch.equal(weight, laptop.network.state_dict()[name]), name


def test_predictor_answers_with_labels_and_a_split_uncertainty(laptop) -> None:
    from medmargin.imaging import from_array
    from medmargin.inference import VolumePredictor
    from medmargin.prompts.types import Box, Prompt

    picture = np.random.default_rng(0).integers(0, 255, (70, 50, 1), np.uint8)
    volume = from_array(picture)
    predictor = laptop.predictor()
    prompts = [] if isinstance(predictor, VolumePredictor) else [Prompt("organ", box=Box((10, 12), (40, 50)))]
    answer = predictor.predict(volume, prompts)
    assert answer.labels.shape == volume.grid.shape
    assert answer.structures[0].name == "organ"
    assert set(answer.uncertainty) == {"total", "aleatoric", "epistemic"}
    parts = answer.uncertainty["aleatoric"] + answer.uncertainty["epistemic"]
    np.testing.assert_allclose(answer.uncertainty["total"], parts, atol=1e-5)


@pytest.mark.slow
def test_one_batch_is_learned_by_heart(laptop) -> None:
    """Measured on hard masks: a Dice of probabilities has another floor for evidence than for sigmoids."""
    stage = laptop.stages[-1]()
    batch = first_batch(stage, 4)
    optimiser = torch.optim.AdamW([w for w in laptop.network.parameters() if w.requires_grad], lr=1e-3)
    before = hard_dice(laptop.network, batch)
    for step in range(60):
        stage.learner.progress = step / 60
        report = stage.learner.objective(batch)
        optimiser.zero_grad()
        report.total.backward()
        optimiser.step()
    after = hard_dice(laptop.network, batch)
    assert 1 - after < 0.3 * (1 - before)


def logits_of(network: torch.nn.Module, batch) -> torch.Tensor:
    boxes = getattr(batch, "boxes", None)
    return (network(batch.image) if boxes is None else network(batch.image, boxes=boxes)).logits


def hard_dice(network: torch.nn.Module, batch) -> float:
    """Dice of the foreground of all pictures together; masks have one channel, classes several."""
    with torch.inference_mode():
        logits = logits_of(network, batch)
    logits = torch.nn.functional.interpolate(logits, batch.image.shape[-2:], mode="bilinear")
    found = logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(1) > 0
    truth = batch[1].view(found.shape) > 0  # masks or class indices
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))
