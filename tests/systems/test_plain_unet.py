"""What the switches of the planned U-Nets do to network, loss, stream and predictor; most are those of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from medmargin.datasets import Task
from medmargin.errors import CheckpointError, ConfigError
from medmargin.imaging import from_array
from medmargin.systems.registry import build_system, resolve_arguments
from medmargin.systems.system import Stage, System
from medmargin.transforms import LIGHT, NNUNET, VolumeAugmentation
from medmargin.uncertainty.estimators import Evidential, Softmax, VolumeMirrors

BOTH = ("plain-unet", "residual-unet")
Make = Callable[..., Task]


@pytest.fixture(params=BOTH)
def slug(request: pytest.FixtureRequest) -> str:
    return request.param


def built(slug: str, task: Task, scale: str = "laptop", **settings: object) -> System:
    torch.manual_seed(0)
    return build_system(slug, task, resolve_arguments(slug, scale, settings))


def stage_of(system: System) -> Stage:
    return system.stages[0]()


def stream_settings(stage: Stage) -> dict[str, Any]:
    assert isinstance(stage.stream, partial)
    return stage.stream.keywords


def planned(task: Task, *, cascade: bool = False, **changes: Any) -> Task:
    """Change the chosen configuration of a task's plan, or add the two that large volumes have."""
    assert task.plan is not None
    chosen = task.plan.configuration()
    several = tuple(replace(one, **changes) if one == chosen else one for one in task.plan.configurations)
    if cascade:
        several += (replace(chosen, name="3d_lowres"), replace(chosen, name="3d_cascade", previous="3d_lowres"))
    return replace(task, plan=replace(task.plan, configurations=several))


def test_the_network_is_the_one_the_plan_describes(slug: str, planned_task: Make) -> None:
    task = planned_task()
    assert task.plan is not None
    chosen = task.plan.configuration()
    network = built(slug, task).network
    assert (network.dims, network.patch, network.channels, network.classes) == (3, chosen.patch, 1, 3)
    assert [stage.seg_layers[0].out_channels for stage in (network.decoder,)] == [3]
    image = torch.zeros(1, 1, *chosen.patch)
    assert [maps.shape[1] for maps in network.encoder(image)] == list(chosen.features)
    sides = [tuple(maps.shape[2:]) for maps in network.encoder(image)]
    assert sides == list(chosen.network.maps(chosen.patch))


def test_a_configuration_can_be_asked_for(slug: str, planned_task: Make) -> None:
    system = built(slug, planned_task(), configuration="2d")
    assert system.network.dims == 2
    assert len(stream_settings(stage_of(system))["patch"]) == 2
    assert system.predictor().configuration.name == "2d"


def test_what_the_plan_does_not_have_is_refused(slug: str, planned_task: Make) -> None:
    with pytest.raises(ConfigError, match=r"3d_lowres.*has 2d, 3d_fullres"):
        built(slug, planned_task(), configuration="3d_lowres")
    with pytest.raises(ConfigError, match="'3d_cascade' also sees the answer of '3d_lowres'"):
        built(slug, planned(planned_task(), cascade=True), configuration="3d_cascade")
    with pytest.raises(ConfigError, match="has none"):
        built(slug, replace(planned_task(), plan=None))


@pytest.mark.parametrize("evidence", ["softplus", "exp", "relu"])
def test_evidence_in_network_loss_and_predictor(slug: str, evidence: str, planned_task: Make) -> None:
    system = built(slug, planned_task(), evidential=True, evidence=evidence, kl_weight=0.3, kl_ramp=0.5)
    loss = stage_of(system).learner.loss
    assert (system.network.evidence, loss.evidence, loss.kind) == (evidence, evidence, "evidential")
    assert (loss.kl_weight, loss.kl_ramp) == (0.3, 0.5)
    assert isinstance(system.predictor().uncertainty, Evidential)


def test_without_evidence_it_is_a_softmax(slug: str, planned_task: Make) -> None:
    system = built(slug, planned_task(), evidential=False)
    assert (system.network.evidence, stage_of(system).learner.loss.kind) == (None, "softmax")
    assert isinstance(system.predictor().uncertainty, Softmax)


def test_overlapping_structures_have_a_sigmoid_each(slug: str, planned_task: Make) -> None:
    system = built(slug, planned_task(regions=True), evidential=True)
    network, loss, predictor = system.network, stage_of(system).learner.loss, system.predictor()
    assert (network.regions, network.classes, network.evidence) == (True, 2, None)
    assert (loss.kind, loss.regions) == ("regions", ((1, 2), (2,)))
    assert predictor.regions == {"whole": (1, 2), "core": (2,)}
    assert predictor.contained == ((0, 1), (1,))
    assert isinstance(predictor.uncertainty, Softmax)


@pytest.mark.parametrize("is_deep", [True, False])
def test_deep_supervision(slug: str, is_deep: bool, planned_task: Make) -> None:
    network = built(slug, planned_task(), deep_supervision=is_deep).network
    image = torch.randn(1, 1, *network.patch)
    stages = len(network.decoder.stages)
    assert len(network.train()(image).deep) == (stages - 1 if is_deep else 0)
    assert network.eval()(image).deep == ()
    assert [head.weight.requires_grad for head in network.decoder.seg_layers[:-1]] == [is_deep] * (stages - 1)


@pytest.mark.parametrize(
    ("sides", "cascade", "asked", "expected"),
    [
        ((24, 28, 20), False, "auto", False),
        ((24, 28, 20), True, "auto", True),
        ((40, 36, 1), False, "auto", True),
        ((24, 28, 20), False, "true", True),
        ((40, 36, 1), False, "false", False),
    ],
)
def test_whose_overlap_is_scored(
    sides: tuple[int, int, int], cascade: bool, asked: str, expected: bool, planned_task: Make
) -> None:
    task = planned(planned_task(sides=sides), cascade=cascade)
    assert stage_of(built("plain-unet", task, batch_dice=asked)).learner.loss.batch_dice is expected


def test_batch_size_is_the_plans_unless_given(slug: str, planned_task: Make) -> None:
    task = planned(planned_task(), batch_size=5)
    for asked, expected in (("auto", 5), ("3", 3)):
        stage = stage_of(built(slug, task, batch_size=asked, foreground_share="0.5", steps_per_epoch=7, epochs=9))
        settings = stream_settings(stage)
        assert (stage.batch_size, settings["batch_size"]) == (expected, expected)
        assert (settings["foreground_share"], settings["steps_per_epoch"], stage.epochs) == (0.5, 7, 9)


@pytest.mark.parametrize(("name", "preset"), [("nnunet", NNUNET), ("light", LIGHT), ("none", VolumeAugmentation())])
def test_augmentation_is_the_presets_for_the_patch(name: str, preset: VolumeAugmentation, planned_task: Make) -> None:
    task = planned_task()
    assert stream_settings(stage_of(built("plain-unet", task, augmentation=name)))["augmentation"] == preset
    flat = stream_settings(stage_of(built("plain-unet", planned(task, turns_in_plane_only=True), augmentation=name)))
    assert flat["augmentation"].in_plane_only
    assert flat["augmentation"].mirrors == preset.mirrors


def test_optimiser_and_schedule_are_as_published(slug: str, planned_task: Make) -> None:
    ways = stage_of(built(slug, planned_task(), "paper", precision="32-true")).learner.optimisation
    assert (ways.lr, ways.weight_decay, ways.clip_norm, ways.average_decay) == (1e-2, 3e-5, 12, None)
    assert ways.decay_vectors  # torch's SGD decays every weight, so nnU-Net's does
    optimiser = ways.optimiser([nn.Parameter(torch.zeros(1))])
    assert isinstance(optimiser, SGD)
    assert optimiser.defaults["nesterov"]
    assert optimiser.defaults["momentum"] == 0.99
    rates = [ways.schedule(step, total_steps=10) for step in range(10)]
    assert rates == pytest.approx([(1 - step / 10) ** 0.9 for step in range(10)])


def test_the_other_optimiser_warms_up_and_cools_down(slug: str, planned_task: Make) -> None:
    given = {"lr": 1e-3, "weight_decay": 0.1, "warmup_steps": 4, "clip_norm": 1, "average_decay": 0.9}
    ways = stage_of(built(slug, planned_task(), optimiser="adamw", **given)).learner.optimisation
    assert isinstance(ways.optimiser([nn.Parameter(torch.zeros(1))]), AdamW)
    assert (ways.lr, ways.weight_decay, ways.clip_norm, ways.average_decay) == (1e-3, 0.1, 1, 0.9)
    assert not ways.decay_vectors
    rates = [ways.schedule(step, total_steps=20) for step in range(20)]
    assert rates.index(max(rates)) == 4
    assert rates[0] < rates[3] < 1
    assert rates[-1] < 0.05


def test_mirrors_are_of_all_axes_of_the_network(slug: str, planned_task: Make) -> None:
    for sides, axes in (((24, 28, 20), (0, 1, 2)), ((40, 36, 1), (0, 1))):
        predictor = built(slug, planned_task(sides=sides), mirrors="true", augmentation="nnunet").predictor()
        assert predictor.uncertainty == VolumeMirrors(axes)
        assert predictor.forward_passes == 2 ** len(axes)


def test_mirrors_are_refused_where_training_shows_none(slug: str, planned_task: Make) -> None:
    assert built(slug, planned_task()).predictor().mirror_axes == ()
    with pytest.raises(ConfigError, match="mirrors=true with augmentation=light"):
        built(slug, planned_task(), mirrors="true")


def test_dropout_acts_in_the_deeper_half(slug: str, planned_task: Make) -> None:
    dropouts = {
        name: layer.p
        for name, layer in built(slug, planned_task(), dropout="0.2").network.named_modules()
        if isinstance(layer, nn.modules.dropout._DropoutNd)
    }
    assert set(dropouts.values()) == {0.2}
    assert not any(name.startswith(("encoder.stages.0", "encoder.stages.1")) for name in dropouts)
    assert not [layer for layer in built(slug, planned_task()).network.modules() if isinstance(layer, nn.Dropout3d)]


def test_what_can_be_set_is_refused_before_any_case_is_read(slug: str, planned_task: Make) -> None:
    wrong = {"dropout": 1.0, "kl_ramp": 2.0, "batch_size": 0, "steps_per_epoch": 0, "lr": 0, "clip_norm": 0,
             "foreground_share": 1.5, "average_decay": 1.0}  # fmt: skip
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match=name):
            stage_of(built(slug, planned_task(), **{name: value})).stream(None, seed=0)


def test_precision_and_the_length_without_a_budget(slug: str, planned_task: Make) -> None:
    task = planned_task()
    paper, laptop = (stage_of(built(slug, task, scale)) for scale in ("paper", "laptop"))
    assert (paper.precision, paper.epochs, stream_settings(paper)["steps_per_epoch"]) == ("16-mixed", 1000, 250)
    assert (laptop.precision, laptop.epochs, laptop.cases, laptop.keep) == ("bf16-mixed", 20, "volumes", "last")
    larger = stage_of(built(slug, task, batch_size=20))
    assert laptop.step_bytes < larger.step_bytes < 10 * laptop.step_bytes


def test_official_weights_of_the_same_shape_start_it(slug: str, planned_task: Make, tmp_path: Path) -> None:
    task, file = planned_task(), tmp_path / "checkpoint_final.pth"
    official = built(slug, task, deep_supervision=True).network
    with torch.no_grad():
        for weight in official.parameters():
            weight.add_(0.1)
    torch.save({"network_weights": official.state_dict(), "trainer_name": "nnUNetTrainer"}, file)
    system = built(slug, task, init=str(file))
    assert system.init == str(file)
    for name, value in official.state_dict().items():
        assert torch.equal(system.network.state_dict()[name], value), name
    with pytest.raises(CheckpointError, match=r"checkpoint_final\.pth"):
        built(slug, planned_task(sides=(40, 36, 1)), init=str(file))
    with pytest.raises(CheckpointError, match=r"missing\.pth"):
        built(slug, task, init=str(tmp_path / "missing.pth"))


def test_the_predictor_answers_on_the_images_own_grid(slug: str, planned_task: Make) -> None:
    for sides, regions in (((24, 28, 20), False), ((40, 36, 1), False), ((24, 28, 20), True)):
        predictor = built(slug, planned_task(sides=sides, regions=regions)).predictor()
        # smaller than the patch along one axis, larger along another
        image = np.random.default_rng(0).normal(100, 10, (sides[0] - 7, sides[1] + 9, sides[2])).astype(np.float32)
        answer = predictor.predict(from_array(image, spacing=None if sides[2] == 1 else (1.0, 1.0, 1.0)))
        assert answer.labels.shape == image.shape
        assert np.isfinite(answer.uncertainty["total"]).all()
