"""What a training step will hold, told before it is run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medmargin.datasets.planning import UNetShape
from medmargin.learning.step_memory import activations, step_bytes
from medmargin.networks.unet import UNet, plain_unet, residual_unet

_SIZES: dict[str, Any] = {
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)), "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)), "features": (4, 6, 8),
}  # fmt: skip
_PATCH = (6, 16, 12)


def _network(build: Any = plain_unet, **others: Any) -> UNet:
    return build(**({"dims": 3, "channels": 2, "outputs": 3, "patch": _PATCH} | _SIZES | others))


def test_it_counts_what_the_plan_counts() -> None:
    counted = UNetShape(**_SIZES, channels=2, classes=3).activations(_PATCH)
    assert activations(_network(), _PATCH) == counted
    assert activations(_network(), (12, 16, 12)) == 2 * counted


def test_it_counts_the_network_that_is_there() -> None:
    wide = activations(_network(residual_unet, blocks=(1, 3, 3)), _PATCH)
    assert activations(_network(residual_unet, blocks=(1, 1, 1)), _PATCH) < wide
    assert activations(_network(deep_supervision=False), _PATCH) < activations(_network(), _PATCH)


def test_nothing_is_computed_and_nothing_changes() -> None:
    network = _network().channels_last()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert step_bytes(network, (6 * 512, 16 * 512, 12 * 512), 2, "32-true", on_card=False) > 2**40
    for name, value in network.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[name])
    assert not any(layer._forward_hooks for layer in network.modules())


@pytest.mark.parametrize("on_card", [True, False])
def test_half_precision_and_small_batches_hold_less(on_card: bool) -> None:
    network = _network()

    def needed(batch: int, precision: Any) -> int:
        return step_bytes(network, (96, 96, 96), batch, precision, on_card=on_card)

    assert needed(2, "bf16-mixed") < needed(2, "32-true")
    fixed = needed(0, "32-true")
    assert needed(4, "32-true") - fixed == pytest.approx(2 * (needed(2, "32-true") - fixed), rel=1e-6)
    assert (fixed < 2**20) == on_card  # the process itself lies in the other memory
