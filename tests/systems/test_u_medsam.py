from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medmargin.datasets import Task
from medmargin.errors import CheckpointError, ConfigError
from medmargin.losses.uncertainty_weighting import UncertaintyWeighted
from medmargin.networks.medsam_lite import medsam_lite
from medmargin.networks.starting_points import promptable_network
from medmargin.systems.registry import build_system, resolve_arguments

TASK = Task("toy", ("MRI",), {"organ": 1})


def built(scale: str = "laptop", **settings: object):
    return build_system("u-medsam", TASK, resolve_arguments("u-medsam", scale, {"init": "none", **settings}))


def test_paper_scale_is_lite_medsam() -> None:
    with torch.device("meta"):
        system = built("paper")
    assert system.described() == {"init": "none", "weights": 9_791_300}
    stage = system.stages[0]()
    assert (stage.batch_size, stage.epochs, stage.precision) == (4, 135, "32-true")
    assert isinstance(stage.learner.loss.weighting, UncertaintyWeighted)
    assert stage.learner.optimisation.rho == 0.05


def test_efficient_vit_student_has_the_published_size() -> None:
    with torch.device("meta"):
        assert built("paper", encoder="efficient-vit").described()["weights"] == 34_792_784


def test_a_teacher_adds_the_distillation_stage_and_gives_its_decoder(tmp_path: Path) -> None:
    teacher = medsam_lite()
    torch.save(teacher.state_dict(), tmp_path / "lite_medsam.pth")
    system = built("paper", teacher=str(tmp_path / "lite_medsam.pth"))
    distil, fine_tune = (make() for make in system.stages)
    assert (distil.name, fine_tune.name) == ("distil", "fine-tune")
    for name, weight in system.network.mask_decoder.state_dict().items():
        assert torch.equal(weight, teacher.mask_decoder.state_dict()[name])


def test_ablation_switches_change_the_loss_and_the_optimiser() -> None:
    stage = built(terms=("sd",), weighting="fixed", rho=0.0).stages[0]()
    assert stage.learner.loss.terms == ("sd",)
    assert not isinstance(stage.learner.loss.weighting, UncertaintyWeighted)
    assert stage.learner.optimisation.rho == 0


def test_shipped_weights_are_of_the_compact_encoder_only() -> None:
    with pytest.raises(ConfigError, match="compact encoder only"):
        promptable_network("tiny-vit", image_size=256, init="shipped")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        built(init=str(tmp_path / "other.pth"))


def test_predictor_has_the_framing_of_the_scale() -> None:
    assert built().predictor().framing.kind == "object"
    assert built(members=1).predictor().uncertainty is None
