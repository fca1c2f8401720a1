"""What the switches of UDEG-Net do to the network, the loss, the stream and the predictor."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from medmargin.adapters.lora import lora_state
from medmargin.datasets import Task
from medmargin.errors import ConfigError, DataError
from medmargin.systems.registry import build_system, resolve_arguments
from medmargin.systems.system import Stage, System
from medmargin.uncertainty.estimators import Evidential, Softmax

TASK = Task("toy", ("MRI",), {"organ": 1, "lesion": 2}, extent=50)


def built(scale: str = "laptop", **settings: object) -> System:
    arguments = resolve_arguments("udeg-net", scale, {"init": "none", **settings})
    return build_system("udeg-net", TASK, arguments)


def stage_of(system: System) -> Stage:
    return system.stages[0]()


def stream_settings(stage: Stage) -> dict[str, Any]:
    assert isinstance(stage.stream, partial)
    return stage.stream.keywords


def test_the_laptop_has_edges_evidence_and_the_progressive_loss() -> None:
    system = built()
    stage = stage_of(system)
    assert (system.network.image_size, system.network.classes) == (64, 3)
    assert system.network.edge_generator is not None
    assert system.network.evidence == stage.learner.loss.evidence == "softplus"
    assert stage.learner.loss.progressive
    assert isinstance(system.predictor().uncertainty, Evidential)
    assert len(lora_state(system.network)) == 4 * 4  # four factors in each attention
    assert all(weight.requires_grad for weight in system.network.image_encoder.parameters())


def test_edge_prompts_off() -> None:
    assert built(edge_prompts="off").network.edge_generator is None


def test_evidential_off_is_softmax_in_network_loss_and_predictor() -> None:
    system = built(evidential="off")
    assert (system.network.evidence, stage_of(system).learner.loss.evidence) == (None, None)
    assert isinstance(system.predictor().uncertainty, Softmax)


def test_progressive_off() -> None:
    assert not stage_of(built(progressive="off")).learner.loss.progressive


def test_planes_three_in_training_and_prediction() -> None:
    system = built(planes="three")
    assert stream_settings(stage_of(system))["planes"] == system.predictor().planes == "three"


def test_prompted_share() -> None:
    assert stream_settings(stage_of(built(prompted_share="0.3")))["prompted_share"] == 0.3


def test_lora_rank_zero_trains_the_encoder_whole() -> None:
    network = built(lora_rank=0, freeze_encoder=True).network
    assert not lora_state(network)
    assert all(weight.requires_grad for weight in network.image_encoder.parameters())


def test_freeze_encoder_leaves_the_factors() -> None:
    network = built(freeze_encoder="true").network
    learned = {name for name, weight in network.image_encoder.named_parameters() if weight.requires_grad}
    assert learned == set(lora_state(network.image_encoder))


def test_dropout_acts_on_embedding_and_edges() -> None:
    found = [layer.p for layer in built(dropout="0.2").network.modules() if isinstance(layer, nn.Dropout2d)]
    assert found == [0.2, 0.2]
    assert not [layer for layer in built().network.modules() if isinstance(layer, nn.Dropout2d)]


def test_edge_target_and_its_radius() -> None:
    targets = stage_of(built(edge_target="soft", edge_radius=4)).learner.loss.edge_targets
    assert (targets.kind, targets.radius) == ("soft", 4)


@pytest.mark.parametrize(
    ("init", "is_frozen", "factor", "decay"), [("shipped", True, 5.0, 0.1), ("none", False, 1.0, 0.01)]
)
def test_what_is_frozen_and_how_fast_factors_learn_depends_on_the_starting_weights(
    init: str, is_frozen: bool, factor: float, decay: float
) -> None:
    system = built("paper", base="compact", image_size=64, init=init)
    assert system.network.encoder_is_frozen == is_frozen
    ways = stage_of(system).learner.optimisation
    assert (ways.lr, ways.adapter_lr_factor, ways.weight_decay) == (1e-3, factor, decay)


def test_the_users_own_numbers_stand_with_any_starting_weights() -> None:
    numbers = {"freeze_encoder": "true", "adapter_lr_factor": "3", "weight_decay": 0}
    system = built("paper", base="compact", image_size=64, **numbers)
    assert system.network.encoder_is_frozen
    ways = stage_of(system).learner.optimisation
    assert (ways.adapter_lr_factor, ways.weight_decay) == (3, 0)


def test_paper_scale_is_sam_at_512() -> None:
    with torch.device("meta"):
        system = built("paper")
    stage = stage_of(system)
    assert system.network.image_size == 512
    assert (stage.batch_size, stage.epochs, stage.precision) == (24, 200, "32-true")
    assert stage.learner.optimisation.clip_norm == 1


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"base": "sam-vit-b"}, "image_size=auto"),
        ({"base": "medsam-lite", "image_size": 64, "init": "shipped"}, "compact encoder only"),
        ({"base": "sam-vit-b", "image_size": 100}, "multiple of 16"),
        ({"image_size": 0}, "multiple of 8"),
        ({"lora_rank": -1}, "rank is -1"),
        ({"edge_channels": 12}, "multiple of 8"),
        ({"edge_tokens": 0}, "edge_tokens"),
        ({"dropout": 1.0}, "dropout"),
        ({"evidential": False, "calibration_weight": 0.1}, "calibration_weight needs evidence"),
        ({"edge_target": "soft", "edge_radius": 0}, "radius"),
        ({"eta": 2.0}, "eta"),
    ],
)
def test_what_cannot_be_built_is_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        stage_of(built(**settings))


def test_more_structures_than_a_byte_holds_are_refused_before_any_case_is_read() -> None:
    task = Task("many", ("MRI",), {f"part {index}": index for index in range(1, 257)})
    arguments = resolve_arguments("udeg-net", "laptop", {"init": "none", "image_size": 64})
    with pytest.raises(DataError, match="256 structures, expected at most 255"):
        stage_of(build_system("udeg-net", task, arguments))
