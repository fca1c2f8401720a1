"""UDEG-Net: sizes, where it starts, what learns and what stays frozen, prompts, files."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medmargin.adapters.lora import lora_state, merge_lora
from medmargin.errors import CheckpointError, ConfigError, PromptError
from medmargin.networks.compact import compact_promptable
from medmargin.networks.evidence import opinion
from medmargin.networks.mask_decoder import MaskDecoder, class_decoder
from medmargin.networks.medsam_lite import medsam_lite
from medmargin.networks.official import load_official
from medmargin.networks.prompt_encoder import PromptEncoder
from medmargin.networks.promptable import Promptable
from medmargin.networks.sam_vit import SamViT
from medmargin.networks.udeg_net import UDEGNet, from_promptable, load_trained, trained_state, udeg_net
from medmargin.runs import read_weights, write_weights

SIDE = 32  # pixels of every tiny network


def _sam(image_size: int = SIDE) -> Promptable:
    encoder = SamViT(
        image_size=image_size, patch_size=8, embed_dim=12, depth=4, num_heads=2, window_size=3,
        global_blocks=(0, 1, 2, 3), out_channels=16,
    )  # fmt: skip
    prompts = PromptEncoder(dim=16, grid=encoder.grid, image_size=image_size, mask_channels=8)
    return Promptable(encoder, prompts, MaskDecoder(dim=16, heads=2, mlp_dim=24, iou_hidden=20))


def _lite() -> Promptable:
    return medsam_lite(
        image_size=SIDE, embed_dims=(4, 8, 8, 12), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 3),
        window_sizes=(7, 7, 14, 7), stride1_dims=(12,), dim=16, mask_channels=8, decoder_heads=2,
        decoder_mlp_dim=24, iou_hidden=16,
    )  # fmt: skip


def _compact() -> Promptable:
    return compact_promptable(image_size=SIDE, dim=64, attention_dim=48, depth=1, heads=2, mlp_dim=32)


BASES = {"sam": _sam, "lite": _lite, "compact": _compact}
GRIDS = {"sam": 4, "lite": 8, "compact": 8}


def _tiny(base: str = "sam", randomise: Callable[[nn.Module], nn.Module] | None = None, **arguments) -> UDEGNet:
    promptable = BASES[base]()
    if randomise is not None:
        randomise(promptable)
    return from_promptable(promptable, **{"classes": 3, "edge_channels": 16, "edge_tokens": 3, **arguments})


def _segmentation_loss(network: UDEGNet, image: Tensor, labels: Tensor, **prompts: Tensor) -> Tensor:
    """Evidential cross-entropy of the mask alone: no term looks at the edges."""
    alpha = opinion(nn.functional.interpolate(network(image, **prompts).logits, SIDE, mode="bilinear")).alpha
    wanted = alpha.gather(1, labels[:, None])
    return (torch.digamma(alpha.sum(1, keepdim=True)) - torch.digamma(wanted)).mean()


def _batch(classes: int = 3) -> tuple[Tensor, Tensor]:
    return torch.rand(2, 3, SIDE, SIDE), torch.randint(classes, (2, SIDE, SIDE))


def _prompts(grid: int) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([[2.0, 3, 20, 25], [5, 5, 9, 30]]),
        "points": torch.rand(2, 2, 2) * SIDE,
        "point_labels": torch.tensor([[1, 0], [-1, -1]]),
        "masks": torch.randn(2, 1, 4 * grid, 4 * grid),
    }


def _train(network: UDEGNet, steps: int = 3) -> None:
    network.train()
    optimiser = torch.optim.AdamW([w for w in network.parameters() if w.requires_grad], lr=1e-2)
    for _ in range(steps):
        loss = _segmentation_loss(network, *_batch(network.classes))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_the_published_size_has_the_stated_numbers_of_weights() -> None:
    with torch.device("meta"):
        network = udeg_net("sam-vit-b", classes=2, image_size=512)
    assert sum(factor.numel() for factor in lora_state(network).values()) == 147_456
    assert network.edge_generator is not None
    assert sum(weight.numel() for weight in network.edge_generator.parameters()) == 1_012_740
    assert sum(weight.numel() for weight in network.mask_decoder.parameters()) == 3_777_698
    quality = sum(weight.numel() for weight in network.mask_decoder.iou_prediction_head.parameters())
    learned = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    assert learned == 147_456 + 1_012_740 + 3_777_698 - quality + 256  # and no_mask_embed
    assert (network.image_size, network.classes) == (512, 2)


@pytest.mark.parametrize(
    ("base", "image_size", "strides"),
    [("sam-vit-l", 256, [(2, 2), (2, 2)]), ("sam-vit-h", 512, [(2, 2), (2, 2)]), ("medsam-lite", 256, [(1, 1)] * 2)],
)
def test_other_published_bases_can_be_built(base: str, image_size: int, strides: list[tuple[int, int]]) -> None:
    with torch.device("meta"):
        network = udeg_net(base, classes=2, image_size=image_size)  # type: ignore[arg-type]
    assert (network.image_size, network.classes) == (image_size, 2)
    assert network.edge_generator is not None
    assert [network.edge_generator.stem[index].stride for index in (0, 3)] == strides


@pytest.mark.parametrize("kind", ["none", "boxes", "points", "masks", "all"])
@pytest.mark.parametrize("base", sorted(BASES))
def test_every_base_runs_forward_and_backward_with_and_without_prompts(base: str, kind: str) -> None:
    network, grid = _tiny(base), GRIDS[base]
    prompts = _prompts(grid)
    groups = {"none": (), "points": ("points", "point_labels"), "all": tuple(prompts)}
    prompts = {name: prompts[name] for name in groups.get(kind, (kind,))}
    image, labels = _batch()
    found = network(image, **prompts)
    assert found.logits.shape == (2, 3, 4 * grid, 4 * grid)
    assert found.edges.shape == (2, 2, 4 * grid, 4 * grid)
    assert [side.shape[-1] for side in found.deep] == [grid, grid, 2 * grid]
    assert all(part.isfinite().all() for part in (found.logits, found.edges, *found.deep))
    _segmentation_loss(network, image, labels, **prompts).backward()
    for name, weight in network.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, name
        assert weight.grad is None or weight.grad.isfinite().all(), name


@pytest.mark.parametrize("base", sorted(BASES))
def test_each_prompt_of_a_user_matters_beside_the_edge(base: str) -> None:
    network, prompts = _tiny(base).eval(), _prompts(GRIDS[base])
    image, _ = _batch()
    plain = network(image)
    for names in (("boxes",), ("points", "point_labels"), ("masks",)):
        prompted = network(image, **{name: prompts[name] for name in names})
        assert not torch.allclose(prompted.logits, plain.logits), names
        torch.testing.assert_close(prompted.edges, plain.edges)  # the edge is the image's alone


def test_a_users_mask_comes_on_top_of_the_edge_prompt() -> None:
    network, image = _tiny().eval(), _batch()[0]
    dense: list[Tensor] = []
    network.mask_decoder.register_forward_pre_hook(lambda _, inputs: dense.append(inputs[3]))
    masks = _prompts(4)["masks"]
    network(image)
    network(image, masks=masks)
    torch.testing.assert_close(dense[1] - dense[0], network.prompt_encoder.mask_downscaling(masks))


def test_users_tokens_stand_in_front_of_the_edge_tokens() -> None:
    network, image = _tiny().eval(), _batch()[0]
    sparse: list[Tensor] = []
    network.mask_decoder.register_forward_pre_hook(lambda _, inputs: sparse.append(inputs[2]))
    boxes = _prompts(4)["boxes"]
    network(image)
    network(image, boxes=boxes)
    corners, _ = network.prompt_encoder(boxes=boxes, points=None, point_labels=None, masks=None)
    torch.testing.assert_close(sparse[1], torch.cat([corners, sparse[0]], dim=1))
    assert sparse[0].shape == (2, 3, 16)


@pytest.mark.parametrize("base", sorted(BASES))
def test_the_segmentation_alone_reaches_every_tensor_of_the_generator(base: str, randomise) -> None:
    """Prompts are not detached. A bias of the keys shifts all scores of a query alike, so the softmax ignores it."""
    network = _tiny(base, randomise)
    _segmentation_loss(network, *_batch()).backward()
    assert network.edge_generator is not None
    gradients = {name: weight.grad.abs().max().item() for name, weight in network.edge_generator.named_parameters()}
    key_bias = gradients.pop("sparse.key.bias")
    assert min(gradients.values()) > 0, min(gradients, key=gradients.__getitem__)
    assert key_bias < 1e-3 * gradients["sparse.key.weight"]


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("base", sorted(BASES))
def test_at_the_start_the_background_is_the_negative_of_every_structure(base: str, classes: int, randomise) -> None:
    network = _tiny(base, randomise, classes=classes).eval()
    logits = network(_batch()[0]).logits
    assert logits.std() > 0.01
    for structure in range(1, classes):
        torch.testing.assert_close(logits[:, structure], -logits[:, 0], atol=1e-5, rtol=0)
    assert torch.equal(logits.argmax(1) > 0, logits[:, 1] > 0)
    if classes == 2:
        torch.testing.assert_close(opinion(logits).uncertainty, opinion(-logits).uncertainty)


def test_class_decoder_keeps_token_0_and_leaves_the_base_alone(randomise) -> None:
    base = randomise(MaskDecoder(dim=16, heads=2, mlp_dim=24, iou_hidden=20))
    before = copy.deepcopy(base.state_dict())
    decoder = class_decoder(base, 3)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    assert torch.equal(decoder.mask_tokens.weight, base.mask_tokens.weight[:1].expand(3, -1))
    x = torch.randn(5, 16)
    expected = base.output_hypernetworks_mlps[0](x)
    assert torch.equal(decoder.output_hypernetworks_mlps[0](x), -expected)
    for structure in (1, 2):
        assert torch.equal(decoder.output_hypernetworks_mlps[structure](x), expected)
    with torch.no_grad():  # copies, not one set of weights under three names
        decoder.output_hypernetworks_mlps[1].layers[0].weight.zero_()
    assert torch.equal(base.output_hypernetworks_mlps[0](x), expected)
    assert torch.equal(decoder.output_hypernetworks_mlps[2](x), expected)
    assert set(decoder.state_dict()) == set(MaskDecoder(num_masks=3, dim=16, iou_hidden=20).state_dict())


@pytest.mark.parametrize("base", sorted(BASES))
def test_training_leaves_the_frozen_encoder_bit_for_bit(base: str, randomise) -> None:
    """Weights, and TinyViT's batch statistics, which training mode alone would change."""
    network = _tiny(base, randomise)
    before = copy.deepcopy(network.state_dict())
    _train(network)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    kept = before.keys() - trained_state(network).keys()
    assert not changed & kept
    assert {f"image_encoder.{name}" for name in lora_state(network.image_encoder)} <= changed
    assert "prompt_encoder.no_mask_embed.weight" in changed
    encoder = {name for name in before if name.startswith("image_encoder.") and not name.endswith(("_q", "_v"))}
    assert encoder <= kept


@pytest.mark.parametrize("arguments", [{"lora_rank": 0}, {"lora_rank": 2, "freeze_encoder": False}])
def test_an_encoder_that_is_not_frozen_trains_whole(arguments: dict[str, int]) -> None:
    network = _tiny("lite", **arguments)
    before = copy.deepcopy(network.state_dict())
    _train(network)
    state = trained_state(network)
    assert all(name in state for name in before if name.startswith("image_encoder."))
    after = network.state_dict()
    for name in ("image_encoder.patch_embed.seq.0.c.weight", "image_encoder.patch_embed.seq.0.bn.running_mean"):
        assert not torch.equal(after[name], before[name]), name
    assert bool(lora_state(network)) == bool(arguments["lora_rank"])


@pytest.mark.parametrize("base", sorted(BASES))
def test_untrained_factors_leave_the_network_as_it_was(base: str, randomise) -> None:
    promptable = randomise(BASES[base]())
    plain = from_promptable(copy.deepcopy(promptable), classes=2, lora_rank=0, edge_prompts=False).eval()
    adapted = from_promptable(promptable, classes=2, lora_rank=4, edge_prompts=False).eval()
    image = _batch()[0]
    assert torch.equal(plain(image).logits, adapted(image).logits)
    assert (plain(image).edges, plain(image).deep) == (None, ())


@pytest.mark.parametrize("base", sorted(BASES))
def test_merged_and_unmerged_networks_agree(base: str) -> None:
    network, image = _tiny(base), _batch()[0]
    _train(network)
    network.eval()
    unmerged = network(image).logits
    merge_lora(network)
    torch.testing.assert_close(network(image).logits, unmerged, atol=1e-5, rtol=1e-5)


def test_without_edges_a_plain_sam_decoder_of_the_same_weights_answers_the_same(randomise) -> None:
    """The path around the generator: no prompt, no_mask_embed, K masks."""
    promptable = randomise(_sam())
    network = from_promptable(copy.deepcopy(promptable), classes=2, edge_prompts=False, lora_rank=0).eval()
    image = _batch()[0]
    dense = promptable.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(2, -1, 4, 4)
    expected, _ = class_decoder(promptable.mask_decoder, 2)(
        promptable.image_encoder(image), promptable.prompt_encoder.dense_positions(), torch.empty(2, 0, 16), dense
    )
    torch.testing.assert_close(network(image).logits, expected)


@pytest.mark.parametrize("base", sorted(BASES))
def test_trained_weights_go_through_a_small_file(base: str, tmp_path, randomise) -> None:
    network = _tiny(base, randomise)
    fresh = copy.deepcopy(network)
    _train(network)
    network.observe(torch.rand(2, 1, 8, 8))
    write_weights(tmp_path / "trained.safetensors", trained_state(network))
    load_trained(fresh.eval().requires_grad_(False), read_weights(tmp_path / "trained.safetensors"))
    image = _batch()[0]
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in fresh.state_dict().items())
    # frozen weights may take a faster kernel, which rounds differently
    torch.testing.assert_close(fresh(image).logits, network.eval()(image).logits, atol=1e-5, rtol=0)
    assert torch.equal(fresh.flag_threshold, network.flag_threshold)
    assert set(trained_state(fresh)) == set(trained_state(network))


def test_trained_weights_of_another_network_are_refused_whole() -> None:
    network = _tiny()
    before = copy.deepcopy(network.state_dict())
    others = {
        "another shape": _tiny(lora_rank=2),
        "weights this network keeps frozen": _tiny(lora_rank=0),
        "missing: edge_generator": _tiny(edge_prompts=False),
        "of another shape: mask_decoder": _tiny(classes=2),
    }
    for complaint, other in others.items():
        with pytest.raises(CheckpointError, match=complaint):
            load_trained(network, trained_state(other))
    with pytest.raises(CheckpointError, match="unexpected: stray"):
        load_trained(network, {**trained_state(network), "stray": torch.zeros(1)})
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("base", sorted(BASES))
def test_a_whole_state_survives_a_file_even_before_anything_was_observed(base: str, tmp_path) -> None:
    network, twin = _tiny(base), _tiny(base)
    write_weights(tmp_path / "model.safetensors", network.state_dict())  # refuses what is not finite
    twin.flag_threshold.fill_(0.5)
    twin.load_state_dict(read_weights(tmp_path / "model.safetensors"))
    image = _batch()[0]
    assert torch.equal(twin.eval()(image).logits, network.eval()(image).logits)
    assert twin.flag_threshold.isnan()


def test_the_threshold_follows_the_95_percent_quantile() -> None:
    network = _tiny()
    assert network.flag_threshold.isnan()
    network.observe(torch.arange(1, 101).reshape(1, 1, 10, 10) / 100)
    assert network.flag_threshold.item() == pytest.approx(0.95)
    network.observe(torch.full((1, 1, 4, 4), 0.15, dtype=torch.float16))
    assert network.flag_threshold.item() == pytest.approx(0.95 * 0.95 + 0.05 * 0.15, abs=1e-4)
    for _ in range(200):
        network.observe(torch.full((1, 1, 4, 4), 0.15))
    assert network.flag_threshold.item() == pytest.approx(0.15, abs=1e-3)
    assert network.flag_threshold.dtype == torch.float32


def test_official_weights_of_another_image_size_are_taken_over(tmp_path, randomise) -> None:
    """A file with SAM's own names, 64 pixels, into a network of 32: tables resized, decoder by the rule."""
    official = randomise(_sam(64))
    save_file(official.state_dict(), tmp_path / "sam.safetensors")
    promptable = _sam()
    load_official(promptable, tmp_path / "sam.safetensors")
    network = from_promptable(promptable, classes=2).eval()
    token = official.mask_decoder.mask_tokens.weight[:1]
    assert torch.equal(network.mask_decoder.mask_tokens.weight, token.expand(2, -1))
    assert network.edge_generator is not None
    theirs = official.prompt_encoder.mask_downscaling[3].weight
    assert torch.equal(network.edge_generator.dense.downscaling[3].weight, theirs)
    logits = network(_batch()[0]).logits
    torch.testing.assert_close(logits[:, 0], -logits[:, 1], atol=1e-5, rtol=0)


def test_shipped_weights_of_the_compact_base_are_resized_to_the_image() -> None:
    small = udeg_net("compact", classes=2, image_size=64, init="shipped")
    large = udeg_net("compact", classes=2, image_size=96, init="shipped")
    table, wide = small.image_encoder.position, large.image_encoder.position
    assert wide.shape[-1] == 12
    expected = nn.functional.interpolate(table, (12, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(wide, expected)
    other = set(small.state_dict()) - {"image_encoder.position"}
    other = {name for name in other if not name.startswith("edge_generator.") and "iou_prediction" not in name}
    other = {name for name in other if not name.endswith((".a_q", ".a_v", "flag_threshold"))}
    assert all(torch.equal(small.state_dict()[name], large.state_dict()[name]) for name in other)
    assert large.eval()(torch.rand(1, 3, 96, 96)).logits.shape == (1, 2, 96, 96)


def test_dropout_is_absent_unless_asked_for_and_silent_in_evaluation() -> None:
    assert not any(isinstance(part, nn.Dropout2d) for part in _tiny().modules())
    network, image = _tiny(dropout=0.5), _batch()[0]
    drops = [name for name, part in network.named_modules() if isinstance(part, nn.Dropout2d)]
    assert drops == ["edge_generator.dropout", "dropout"]
    network.train()
    assert not torch.equal(network(image).logits, network(image).logits)
    assert not torch.equal(network(image).edges, network(image).edges)
    network.eval()
    assert torch.equal(network(image).logits, network(image).logits)
    without = _tiny()
    assert set(network.state_dict()) == set(without.state_dict())


def test_an_image_is_segmented_the_same_alone_and_in_a_batch(randomise) -> None:
    network, image = _tiny(randomise=randomise).eval(), _batch()[0]
    torch.testing.assert_close(network(image).logits[1:], network(image[1:]).logits, atol=1e-5, rtol=1e-4)


def test_half_precision_stays_finite() -> None:
    network, (image, labels) = _tiny("lite").train(), _batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = _segmentation_loss(network, image, labels)
    loss.backward()
    assert loss.isfinite()
    assert all(w.grad.isfinite().all() for w in network.parameters() if w.grad is not None)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"base": "resnet"}, "base is 'resnet': choose one of sam-vit-b"),
        ({"classes": 1}, "classes is 1"),
        ({"image_size": 60}, "image_size is 60: compact expects a multiple of 8"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"evidence": "sigmoid"}, "evidence is 'sigmoid': choose one of softplus"),
        ({"edge_channels": 12}, "edge_channels is 12"),
        ({"base": "medsam-lite", "init": "shipped"}, "compact encoder only"),
    ],
)
def test_what_is_not_possible_is_refused(arguments: dict, complaint: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=complaint):
        udeg_net(**{"base": "compact", "classes": 2, "image_size": 64, **arguments})


def test_prompts_that_do_not_fit_are_refused() -> None:
    network, (image, _), prompts = _tiny(), _batch(), _prompts(4)
    with pytest.raises(PromptError, match="boxes: given for 1 images, expected one row for each of the 2"):
        network(image, boxes=prompts["boxes"][:1])
    with pytest.raises(PromptError, match="points and point_labels belong together"):
        network(image, points=prompts["points"])


def test_a_softmax_head_is_the_same_network_without_evidence() -> None:
    network = _tiny(evidence=None)
    assert network.evidence is None
    assert network(_batch()[0]).evidence is None


def test_weights_of_the_original_sam_see_standardised_pixels() -> None:
    network = _tiny("sam").eval()
    image = torch.rand(1, 3, SIDE, SIDE)
    seen: list[Tensor] = []
    network.image_encoder.patch_embed.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with torch.inference_mode():
        for pixels in ("unit", "standardised"):
            network.pixels = pixels
            network(image)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    torch.testing.assert_close(seen[0], image)
    torch.testing.assert_close(seen[1], (255 * image - mean) / std)
