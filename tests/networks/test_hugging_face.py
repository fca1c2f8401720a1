"""SAM against the independent implementation of `transformers`, with random weights, both ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medmargin.errors import CheckpointError
from medmargin.networks.hugging_face import from_hugging_face, is_hugging_face, to_hugging_face
from medmargin.networks.official import load_official
from medmargin.networks.promptable import Promptable

transformers = pytest.importorskip("transformers")

SIDE = 64
BOXES = torch.tensor([[4.0, 6.0, 40.0, 38.0], [10.0, 12.0, 60.0, 50.0]])
POINTS = torch.tensor([[[5.0, 6.0], [20.0, 8.0]], [[15.0, 15.0], [1.0, 30.0]]])
LABELS = torch.tensor([[1, 0], [1, 1]])


@pytest.fixture
def reference(randomise: Callable[[nn.Module], nn.Module]) -> Any:
    """A `SamModel` of the size of `tiny_sam(64)`, with random weights everywhere."""
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 12, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": SIDE, "patch_size": 8, "window_size": 3, "global_attn_indexes": [1], "num_pos_feats": 8,
            "mlp_dim": 48,
        },
        prompt_encoder_config={
            "hidden_size": 16, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 8,
        },
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 24, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
            "layer_norm_eps": 1e-5,
        },
    )  # fmt: skip
    model = randomise(transformers.SamModel(config)).eval()
    twin = model.prompt_encoder.shared_embedding
    twin.positional_embedding = model.shared_image_embedding.positional_embedding
    return model


@pytest.fixture
def network(tiny_sam: Callable[[int], Promptable], randomise: Callable[[nn.Module, int], nn.Module]) -> Promptable:
    return randomise(tiny_sam(SIDE), 7).eval()


@torch.no_grad()
def _same_answers(network: Promptable, reference: Any, prompts: dict[str, torch.Tensor]) -> None:
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    named = {"boxes": "input_boxes", "points": "input_points", "point_labels": "input_labels"}
    answer = reference(
        pixel_values=image, multimask_output=False, **{named[name]: value[None] for name, value in prompts.items()}
    )
    embedding = network.encode(image)
    expected = reference.get_image_embeddings(image)
    torch.testing.assert_close(embedding.features, expected, atol=1e-5, rtol=1e-5)
    prediction = network.decode(embedding, **prompts)
    torch.testing.assert_close(prediction.logits, answer.pred_masks[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(prediction.quality, answer.iou_scores[0], atol=1e-4, rtol=1e-4)


def test_weights_of_a_sam_model_give_its_answers(tmp_path: Path, network: Promptable, reference: Any) -> None:
    reference.save_pretrained(tmp_path)
    load_official(network, tmp_path / "model.safetensors")
    _same_answers(network, reference, {"boxes": BOXES})
    _same_answers(network, reference, {"points": POINTS, "point_labels": LABELS})


def test_official_weights_renamed_give_their_answers_in_a_sam_model(network: Promptable, reference: Any) -> None:
    reference.load_state_dict(to_hugging_face(network.state_dict()), strict=True)
    _same_answers(network, reference, {"boxes": BOXES})


def test_renaming_there_and_back_changes_nothing(network: Promptable) -> None:
    state = network.state_dict()
    renamed = to_hugging_face(state)
    assert is_hugging_face(renamed)
    assert not is_hugging_face(state)
    back = from_hugging_face(renamed, state)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_weights_nobody_asked_for_are_reported(tmp_path: Path, network: Promptable, reference: Any) -> None:
    state = {**reference.state_dict(), "vision_encoder.extra": torch.zeros(1)}
    del state["mask_decoder.iou_token.weight"]
    torch.save(state, tmp_path / "hf.pth")
    with pytest.raises(
        CheckpointError, match=r"1 missing: mask_decoder\.iou_token\.weight; 1 unexpected: vision_encoder\.extra"
    ):
        load_official(network, tmp_path / "hf.pth")
