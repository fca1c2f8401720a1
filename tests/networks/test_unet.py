"""U-Nets against an independent implementation, the counts of the plan, and themselves in another memory layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from medmargin.datasets.planning import UNetShape
from medmargin.errors import ConfigError
from medmargin.networks.blocks.unet_blocks import ResidualBlock
from medmargin.networks.unet import UNet, plain_unet, residual_unet

FLAT = ((1, 1, 1), (1, 2, 2), (2, 2, 2))  # strides of an image with thick slices
FLAT_KERNELS = ((1, 3, 3), (3, 3, 3), (3, 3, 3))
BUILDERS = (plain_unet, residual_unet)


def _sizes(spatial: int, **others: Any) -> dict[str, Any]:
    flat = {
        2: {"strides": ((1, 1), (2, 2), (2, 2)), "kernels": ((3, 3),) * 3, "patch": (16, 8)},
        3: {"strides": FLAT, "kernels": FLAT_KERNELS, "patch": (4, 16, 8)},
    }[spatial]
    return {"dims": spatial, "channels": 2, "outputs": 3, "features": (4, 6, 8), **flat, **others}


def _image(network: UNet, batch: int = 2) -> Tensor:
    return torch.randn(batch, network.channels, *network.patch, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_plan_counts_the_weights_of_the_plain_network(dims: int) -> None:
    sizes = _sizes(dims)
    shape = UNetShape(sizes["strides"], sizes["kernels"], sizes["features"], sizes["channels"], sizes["outputs"])
    assert sum(weight.numel() for weight in plain_unet(**sizes).parameters()) == shape.parameters()


def _from_monai(state: dict[str, Tensor], ours: UNet) -> dict[str, Tensor]:
    """Rename the weights of a three-stage DynUNet; its convolutions have no bias, and before a norm none matters."""
    places = {"input_block": "encoder.stages.0.0", "downsamples.0": "encoder.stages.1.0"}
    places |= {"bottleneck": "encoder.stages.2.0"}
    places |= {f"upsamples.{stage}.conv_block": f"decoder.stages.{stage}" for stage in (0, 1)}
    renamed = {name: torch.zeros_like(value) for name, value in ours.state_dict().items()}
    for theirs, mine in places.items():
        for number in (0, 1):
            conv, norm = f"{mine}.convs.{number}.conv", f"{mine}.convs.{number}.norm"
            renamed[f"{conv}.weight"] = state[f"{theirs}.conv{number + 1}.conv.weight"]
            for kind in ("weight", "bias"):
                renamed[f"{norm}.{kind}"] = state[f"{theirs}.norm{number + 1}.{kind}"]
    heads = {"output_block": 1, "deep_supervision_heads.0": 0}
    for kind in ("weight", "bias"):
        for stage in (0, 1):
            renamed[f"decoder.transpconvs.{stage}.{kind}"] = state[f"upsamples.{stage}.transp_conv.conv.{kind}"]
        for theirs, stage in heads.items():
            renamed[f"decoder.seg_layers.{stage}.{kind}"] = state[f"{theirs}.conv.conv.{kind}"]
    return renamed


@pytest.mark.parametrize("dims", [2, 3])
def test_it_is_the_network_of_monai(dims: int, randomise: Callable[[nn.Module], nn.Module]) -> None:
    strides, kernels = ((1,) * dims, (2,) * dims, (2,) * dims), ((3,) * dims,) * 3
    theirs = randomise(
        DynUNet(
            dims, 2, 3, kernels, strides, strides[1:], filters=(4, 6, 8), deep_supervision=True, deep_supr_num=1,
            trans_bias=True,
        )
    )  # fmt: skip
    ours = plain_unet(**_sizes(dims, strides=strides, kernels=kernels, patch=(8,) * dims))
    ours.load_state_dict(_from_monai(theirs.state_dict(), ours))
    image = _image(ours)
    expected = theirs(image)  # [B, outputs, K, *spatial], coarser ones enlarged
    found = ours(image)
    torch.testing.assert_close(found.logits, expected[:, 0], atol=1e-5, rtol=1e-5)
    coarse = expected[:, 1][(..., *(slice(None, None, 2),) * dims)]
    torch.testing.assert_close(found.deep[-1], coarse, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("dims", [2, 3])
def test_every_resolution_answers_in_training_and_the_finest_alone_after_it(
    build: Callable[..., UNet], dims: int
) -> None:
    network = build(**_sizes(dims, strides=((1,) * dims, (1, 2, 2)[-dims:], (2,) * dims, (2,) * dims),
                            kernels=((3,) * dims,) * 4, features=(4, 4, 6, 8), patch=(8, 16, 8)[-dims:]))  # fmt: skip
    image = _image(network)
    found = network(image)
    assert found.logits.shape == (2, 3, *network.patch)
    sides = [tuple(logits.shape[2:]) for logits in found.deep]
    assert sides == [(4, 4, 2)[-dims:], (8, 8, 4)[-dims:]]  # finest last
    network.eval()
    silent = network(image)
    assert silent.deep == ()
    torch.testing.assert_close(silent.logits, found.logits)
    assert network(image[..., :8].repeat(1, 1, *(1,) * (dims - 1), 3)).logits.shape[-1] == 24  # any size that fits


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_memory_layout_changes_neither_answer_nor_gradient(
    build: Callable[..., UNet], dims: int, channels: int, randomise: Callable[[nn.Module], nn.Module]
) -> None:
    network = randomise(build(**_sizes(dims, channels=channels)))
    image = _image(network)
    answers, gradients = [], []
    for laid_out in (network, network.channels_last()):
        laid_out.zero_grad()
        found = laid_out(image)
        (found.logits.square().sum() + found.deep[0].square().sum()).backward()
        answers.append(found.logits.detach())
        gradients.append({name: weight.grad.clone() for name, weight in network.named_parameters()})
    torch.testing.assert_close(*answers, atol=1e-5, rtol=1e-5)
    largest = max(gradient.abs().max() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() < 1e-4 * largest, name


def test_maps_stay_channels_last_through_the_whole_network() -> None:
    network = plain_unet(**_sizes(3, channels=1)).channels_last()
    copied = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        copied.append(not inputs[0].is_contiguous(memory_format=torch.channels_last_3d))

    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.register_forward_pre_hook(watch)
    with torch.autocast("cpu", torch.bfloat16):
        network(_image(network))
    assert len(copied) == 6 + 4 + 2 + 2
    assert not any(copied)


def test_half_precision_answers_about_the_same() -> None:
    network = plain_unet(**_sizes(3)).channels_last()
    image = _image(network)
    exact = network(image).logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(image).logits
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("is_deep", [True, False])
def test_every_weight_that_learns_gets_a_gradient(build: Callable[..., UNet], is_deep: bool) -> None:
    network = build(**_sizes(2, deep_supervision=is_deep))
    found = network(_image(network))
    sum(logits.square().sum() for logits in (found.logits, *found.deep)).backward()
    for name, weight in network.named_parameters():
        assert weight.requires_grad == (weight.grad is not None), name
    frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    assert frozen == (set() if is_deep else {"decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"})


def test_fresh_weights_have_the_published_spread() -> None:
    torch.manual_seed(0)
    network = plain_unet(**_sizes(3, features=(16, 32, 32)))
    weight = network.get_parameter("encoder.stages.1.0.convs.1.conv.weight")
    assert weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / (32 * 27)) ** 0.5, rel=0.02)
    biases = [value for name, value in network.named_parameters() if name.endswith("bias")]
    assert all(not bias.any() for bias in biases)


def test_a_fresh_residual_block_is_its_skip() -> None:
    network = residual_unet(**_sizes(3))
    image = torch.randn(2, 4, 4, 8, 8)
    block = network.encoder.stages[1].blocks[0]
    assert isinstance(block, ResidualBlock)
    torch.testing.assert_close(block(image), nn.functional.leaky_relu(block.skip(image), 0.01))
    counts = [sum(isinstance(part, ResidualBlock) for part in stage.modules()) for stage in network.encoder.stages]
    assert counts == [1, 3, 4]


def test_published_numbers_of_blocks_reach_any_depth() -> None:
    network = residual_unet(**_sizes(
        2, strides=((1, 1), *((2, 2),) * 6), kernels=((3, 3),) * 7, features=(2,) * 7, patch=(64, 64)
    ))  # fmt: skip
    assert [len(stage.blocks) for stage in network.encoder.stages] == [1, 3, 4, 6, 6, 6, 6]


@pytest.mark.parametrize("build", BUILDERS)
def test_dropout_sits_in_the_deeper_half_and_draws_another_network_each_time(build: Callable[..., UNet]) -> None:
    sizes = _sizes(3, strides=(*FLAT, (2, 2, 2)), kernels=(*FLAT_KERNELS, (3, 3, 3)), features=(4, 4, 6, 8))
    network = build(**sizes, dropout=0.5)
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Dropout3d)}
    assert {".".join(name.split(".")[:3]) for name in layers} == {
        "encoder.stages.2", "encoder.stages.3", "decoder.stages.0"
    }  # fmt: skip
    assert network.state_dict().keys() == build(**sizes).state_dict().keys()
    network.eval()
    image = _image(network)
    torch.testing.assert_close(network(image).logits, network(image).logits)
    for layer in layers.values():
        layer.train()
    assert not torch.equal(network(image).logits, network(image).logits)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"channels": 0}, "0 channels"),
        ({"patch": (16, 8), "dims": 4}, "4 dimensions"),
        ({"outputs": 0}, "0 outputs"),
        ({"features": (4, 6)}, "stages of a U-Net"),
        ({"strides": ((1, 1), (2, 2), (2,))}, "expected 2 numbers"),
        ({"strides": ((2, 2), (2, 2), (2, 2))}, "1 in the first stage"),
        ({"kernels": ((3, 3), (2, 2), (3, 3))}, "odd kernels"),
        ({"patch": (8, 8, 8)}, "expected 2 numbers"),
        ({"blocks": (1, 0, 1)}, "one or more"),
        ({"evidence": "belief"}, "evidence is 'belief'"),
        ({"evidence": "exp", "regions": True}, "regions overlap"),
        ({"outputs": 1}, "the background and one structure"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
@pytest.mark.parametrize("build", BUILDERS)
def test_a_network_that_cannot_be_is_refused(build: Callable[..., UNet], change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build(**_sizes(2, **change))


@pytest.mark.parametrize(
    ("shape", "told"),
    [((1, 3, 16, 16), r"takes \[B, 2"), ((1, 2, 4, 16, 16), "2 spatial"), ((1, 2, 16, 18), r"multiples of \[4, 4")],
)
def test_an_image_that_does_not_fit_is_refused(shape: tuple[int, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plain_unet(**_sizes(2))(torch.zeros(shape))


def test_one_region_is_enough() -> None:
    network = plain_unet(**_sizes(2, outputs=1, regions=True))
    assert network.regions
    assert network.classes == 1
    assert network(_image(network)).logits.shape[1] == 1
