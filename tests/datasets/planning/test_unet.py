"""Weights, maps and multiply-adds counted on paper against the same network in torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medmargin.datasets.planning.unet import UNetShape

_CASES = {
    "isotropic": (UNetShape(((1, 1, 1), (2, 2, 2), (2, 2, 2)), ((3, 3, 3),) * 3, (4, 8, 12), 2, 3), (8, 16, 8)),
    "flat": (
        UNetShape(((1, 1, 1), (1, 2, 2), (2, 2, 2)), ((1, 3, 3), (3, 3, 3), (3, 3, 3)), (4, 6, 8), 1, 2),
        (4, 16, 16),
    ),
    "slices": (UNetShape(((1, 1), (2, 2)), ((3, 3), (3, 3)), (8, 16), 3, 4), (16, 24)),
}


class _PlainUNet(nn.Module):
    """Two convolutions per stage, transposed convolutions, concatenated skips, a head per level."""

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        dims = len(shape.strides[0])
        convolution, transposed = (nn.Conv2d, nn.Conv3d)[dims - 2], (nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 2]
        norm = (nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 2]

        def block(inside: int, outside: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Sequential:
            padding = tuple(side // 2 for side in kernel)
            return nn.Sequential(
                convolution(inside, outside, kernel, stride, padding), norm(outside, affine=True), nn.LeakyReLU(),
                convolution(outside, outside, kernel, 1, padding), norm(outside, affine=True), nn.LeakyReLU(),
            )  # fmt: skip

        features, once = shape.features, (1,) * dims
        inputs = (shape.channels, *features)
        self.down = nn.ModuleList(map(block, inputs, features, shape.kernels, shape.strides))
        finer = range(len(features) - 1)
        self.up = nn.ModuleList(
            transposed(features[s + 1], features[s], shape.strides[s + 1], shape.strides[s + 1]) for s in finer
        )
        self.decoder = nn.ModuleList(block(2 * features[s], features[s], shape.kernels[s], once) for s in finer)
        self.heads = nn.ModuleList(convolution(features[s], shape.classes, 1) for s in finer)

    def forward(self, x: Tensor) -> list[Tensor]:
        skips, answers = [], []
        for stage in self.down:
            skips.append(x := stage(x))
        for stage in reversed(range(len(self.up))):
            x = self.decoder[stage](torch.cat([self.up[stage](x), skips[stage]], dim=1))
            answers.append(self.heads[stage](x))
        return answers


@pytest.fixture(params=_CASES, ids=list(_CASES))
def network(request):
    shape, patch = _CASES[request.param]
    return shape, patch, _PlainUNet(shape)


def test_weights(network):
    shape, _, built = network
    assert shape.parameters() == sum(weight.numel() for weight in built.parameters())


def test_multiply_adds(network):
    shape, patch, built = network
    with FlopCounterMode(display=False) as counter:
        built(torch.zeros(1, shape.channels, *patch))
    assert 2 * sum(shape.multiply_adds(patch)) == counter.get_total_flops()


def test_activations(network):
    shape, patch, built = network
    written = []
    for module in built.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            module.register_forward_hook(lambda _module, _inside, outside: written.append(outside.numel()))
    built(torch.zeros(1, shape.channels, *patch))
    assert shape.activations(patch) == sum(written)
