"""Prompts of a promptable network: which image they belong to, and what each kind of prompt does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from medmargin.networks.promptable import Promptable

BOXES = torch.tensor([[2.0, 3.0, 20.0, 18.0], [10.0, 12.0, 30.0, 28.0], [1.0, 1.0, 9.0, 30.0]])
POINTS = torch.tensor([[[5.0, 6.0], [20.0, 8.0]], [[15.0, 15.0], [1.0, 30.0]], [[4.0, 4.0], [0.0, 0.0]]])
LABELS = torch.tensor([[1, 0], [1, 1], [1, -1]])


@pytest.fixture
def network(tiny_medsam_lite: Promptable) -> Promptable:
    return tiny_medsam_lite.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _kinds() -> list[dict[str, Tensor]]:
    masks = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    points = {"points": POINTS, "point_labels": LABELS}
    return [{"boxes": BOXES}, points, {"boxes": BOXES, **points, "masks": masks}, {"masks": masks}]


@pytest.mark.parametrize("prompts", _kinds(), ids=["boxes", "points", "all", "masks"])
def test_b_images_with_b_prompts_equal_one_at_a_time(
    network: Promptable, images: Tensor, prompts: dict[str, Tensor]
) -> None:
    together = network(images, **prompts)
    assert together.logits.shape == (3, 1, 32, 32)
    assert together.quality.shape == (3, 1)
    for index in range(3):
        own = slice(index, index + 1)
        alone = network(images[own], **{name: value[own] for name, value in prompts.items()})
        torch.testing.assert_close(together.logits[index], alone.logits[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.quality[index], alone.quality[0], atol=1e-4, rtol=1e-4)


def test_one_image_serves_n_prompts_and_is_encoded_once(network: Promptable, images: Tensor) -> None:
    calls = []
    network.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    together = network(images[:1], boxes=BOXES).logits
    assert len(calls) == 1
    for index in range(3):
        alone = network(images[:1], boxes=BOXES[index : index + 1]).logits
        torch.testing.assert_close(together[index], alone[0], atol=1e-4, rtol=1e-4)


def test_the_image_of_each_prompt_can_be_named(network: Promptable, images: Tensor) -> None:
    owner = torch.tensor([2, 0, 0])
    found = network(images, boxes=BOXES, image_index=owner).logits
    expected = network(images[owner], boxes=BOXES).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_number_of_prompts_that_fits_no_image_is_refused(network: Promptable, images: Tensor) -> None:
    with pytest.raises(ValueError, match="3 prompts do not fit 2 images"):
        network(images[:2], boxes=BOXES)


def test_a_padding_point_says_nothing(network: Promptable, images: Tensor) -> None:
    """Where it lies must not matter, and it is what a lone point is completed with."""
    prompt = {"points": POINTS[2:], "point_labels": LABELS[2:]}
    elsewhere = {"points": torch.tensor([[[4.0, 4.0], [27.0, 13.0]]]), "point_labels": LABELS[2:]}
    assert torch.equal(network(images[:1], **prompt).logits, network(images[:1], **elsewhere).logits)


def test_a_lone_point_gets_a_padding_point_and_a_boxed_one_does_not(network: Promptable) -> None:
    tokens, _ = network.prompt_encoder(boxes=None, points=POINTS, point_labels=LABELS, masks=None)
    boxed, _ = network.prompt_encoder(boxes=BOXES, points=POINTS, point_labels=LABELS, masks=None)
    assert (tokens.shape[1], boxed.shape[1]) == (3, 4)
    assert torch.equal(tokens[:, 2], network.prompt_encoder.not_a_point_embed.weight.expand(3, -1))
    assert torch.equal(tokens[:, :2], boxed[:, :2])


@pytest.mark.parametrize("side", [32, 40])
def test_sam_takes_prompts_at_any_size_it_is_built_for(tiny_sam: Callable[[int], Promptable], side: int) -> None:
    network = tiny_sam(side).eval()
    assert network(torch.rand(1, 3, side, side), boxes=BOXES).logits.shape == (3, 1, side // 2, side // 2)


OTHER_PROMPTS = (
    "prompt_encoder.point_embeddings.0", "prompt_encoder.point_embeddings.1", "prompt_encoder.not_a_point_embed",
    "prompt_encoder.mask_downscaling", *(f"mask_decoder.output_hypernetworks_mlps.{mask}" for mask in (1, 2, 3)),
)  # fmt: skip


def test_a_box_trains_every_weight_but_those_of_other_prompts_and_masks(network: Promptable) -> None:
    network.train()
    prediction = network(torch.rand(2, 3, 32, 32), boxes=BOXES[:2])
    (prediction.logits.pow(2).mean() + prediction.quality.pow(2).mean()).backward()
    for name, weight in network.named_parameters():
        learns = weight.grad is not None and bool(weight.grad.any())
        assert learns != name.startswith(OTHER_PROMPTS), name


@pytest.mark.parametrize("system", ["tiny_medsam_lite", "tiny_sam"])
def test_bfloat16_training_steps_follow_single_precision(request: pytest.FixtureRequest, system: str) -> None:
    built = request.getfixturevalue(system)
    network = built if isinstance(built, Promptable) else built(32)
    image, gradients = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)), []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            prediction = network(image, boxes=BOXES[:2])
        prediction.logits.float().pow(2).mean().backward()
        gradients.append(network.mask_decoder.iou_token.weight.grad.clone())
    cosine = torch.nn.functional.cosine_similarity(*gradients)
    assert float(cosine) > 0.95
