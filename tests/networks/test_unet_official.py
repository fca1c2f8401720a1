"""Checkpoints in the layout of nnU-Net 2's trainer: loaded whole, or refused with what differs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medmargin.errors import CheckpointError
from medmargin.networks.official_unet import load_official
from medmargin.networks.unet import UNet, plain_unet, residual_unet

BUILDERS = {"plain": plain_unet, "residual": residual_unet}
# One name of each kind, as the release writes them for three stages, the second of them strided and wider.
RELEASED = {
    "plain": ("encoder.stages.0.0.convs.1.conv.weight", "encoder.stages.2.0.convs.0.norm.bias"),
    "residual": (
        "encoder.stem.convs.0.conv.bias", "encoder.stages.1.blocks.2.conv2.norm.weight",
        "encoder.stages.1.blocks.0.skip.1.conv.weight", "encoder.stages.1.blocks.0.skip.1.norm.bias",
    ),
    "both": (
        "decoder.stages.1.convs.0.conv.weight", "decoder.transpconvs.0.bias", "decoder.seg_layers.0.weight",
    ),
}  # fmt: skip


def _network(kind: str, **others: Any) -> UNet:
    sizes: dict[str, Any] = {
        "dims": 2, "channels": 1, "outputs": 3, "strides": ((1, 1), (2, 2), (2, 2)), "kernels": ((3, 3),) * 3,
        "features": (3, 4, 5), "patch": (8, 8),
    }  # fmt: skip
    return BUILDERS[kind](**(sizes | others))


def _released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Write each weight under every name it has in the release."""
    several = dict(state)
    for name, value in state.items():
        twice = re.sub(r"\.conv\.(\w+)$", r".all_modules.0.\1", re.sub(r"\.norm\.(\w+)$", r".all_modules.1.\1", name))
        several[twice] = value
        if name.startswith("encoder."):
            several |= {f"decoder.{name}": value, f"decoder.{twice}": value}
    return several


def _checkpoint(network: nn.Module) -> dict[str, Any]:
    return {
        "network_weights": _released(network.state_dict()),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01, "params": [0]}]},
        "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.6)], "epoch": [np.int64(1)], "ema": [float("nan")]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 2,
        "init_args": {"plans": {"name": "plans"}, "configuration": "2d", "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
    }


@pytest.mark.parametrize("kind", BUILDERS)
def test_names_are_those_of_the_release(kind: str) -> None:
    assert {*RELEASED[kind], *RELEASED["both"]} <= _network(kind).state_dict().keys()


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_file_of_the_trainer_loads(kind: str, tmp_path: Path, randomise: Callable[..., nn.Module]) -> None:
    trained, fresh = randomise(_network(kind)), _network(kind)
    torch.save(_checkpoint(trained), tmp_path / "checkpoint_final.pth")
    load_official(tmp_path / "checkpoint_final.pth", fresh)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in trained.state_dict().items())


def test_bare_weights_load_from_memory_and_from_files(tmp_path: Path, randomise: Callable[..., nn.Module]) -> None:
    trained = randomise(_network("plain"))
    prefixed = {f"module.{name}": value for name, value in trained.state_dict().items()}
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    for weights in (prefixed, _checkpoint(trained), tmp_path / "weights.safetensors"):
        fresh = _network("plain", deep_supervision=False)
        load_official(weights, fresh)
        assert torch.equal(fresh.get_parameter("decoder.seg_layers.0.bias"), trained.decoder.seg_layers[0].bias)


def test_weights_of_another_network_are_refused_and_nothing_changes(randomise: Callable[..., nn.Module]) -> None:
    network = _network("plain")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"another shape: encoder.stages.0.0.convs.0.conv.weight \[3, 2, 3, 3\]"):
        load_official(_checkpoint(randomise(_network("plain", channels=2))), network)
    with pytest.raises(CheckpointError, match=r"missing.*unexpected: encoder.stem"):
        load_official(_checkpoint(randomise(_network("residual"))), network)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"network_weights": {"a": _Code()}}, "nothing was executed"),
        ({"network_weights": {"a": 1}}, "holds no weights of nnU-Net 2"),
        ({"network_weights": {"encoder.a": torch.tensor([float("nan")])}}, "NaN or infinite weights in encoder.a"),
        ([1, 2], "found list"),
    ],
)
def test_other_files_are_refused(
    content: Any, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=told):
        load_official(tmp_path / "other.pth", _network("plain"))
    assert not (tmp_path / "executed").exists()


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    torch.save(_checkpoint(_network("plain")), tmp_path / "whole.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    for name, told in (("half.pth", "damaged"), ("none.pth", "no such file")):
        with pytest.raises(CheckpointError, match=f"{name}.*{told}"):
            load_official(tmp_path / name, _network("plain"))
