"""Reference files of other widths, depths, image sizes and prompts than the authors' own."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from medmargin.errors import CheckpointError
from medmargin.networks.efficient_vit import EfficientViTEncoder
from medmargin.networks.hash_weights import hash_state, hash_uniform
from medmargin.networks.mask_decoder import MaskDecoder
from medmargin.networks.medsam_lite import medsam_lite
from medmargin.networks.prompt_encoder import PromptEncoder
from medmargin.networks.promptable import Promptable
from medmargin.networks.sam_vit import SamViT
from medmargin.verification import verify


def _with_hash_weights(network: nn.Module) -> nn.Module:
    network.load_state_dict(hash_state(network))
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize(("img", "images", "boxes_each"), [(48, 1, 3), (32, 3, 1), (32, 2, 2)])
def test_lite_medsam(write_reference, img: int, images: int, boxes_each: int) -> None:
    config = {
        "img": img, "embed_dims": [4, 8, 12, 20], "depths": [2, 1, 1, 2], "num_heads": [1, 2, 3, 4],
        "window_sizes": [5, 5, 7, 3], "dim": 16, "mask_in_chans": 12, "mlp_dim": 24, "dec_heads": 2, "iou_hidden": 20,
        "mlp_ratio": 3, "mbconv_expand_ratio": 2, "local_conv_size": 5, "stride1_out_dims": [20],
        "final_grid": img // 4,
    }  # fmt: skip
    network = _with_hash_weights(
        medsam_lite(
            image_size=img, embed_dims=(4, 8, 12, 20), depths=(2, 1, 1, 2), num_heads=(1, 2, 3, 4),
            window_sizes=(5, 5, 7, 3), dim=16, mask_channels=12, decoder_mlp_dim=24, decoder_heads=2, iou_hidden=20,
            mlp_ratio=3, mbconv_expand_ratio=2, local_conv_size=5, stride1_dims=(20,),
        )
    )  # fmt: skip
    image = torch.rand(images, 3, img, img)
    boxes = torch.tensor([3.0, 4.0, 20.0, 25.0]) + torch.rand(images, boxes_each, 4)
    owner = torch.arange(images).repeat_interleave(boxes_each)
    prediction = network(image, boxes=boxes.reshape(-1, 4), image_index=owner)
    cropped = F.interpolate(prediction.logits[..., :20, :30], (31, 47), mode="bilinear", align_corners=False)
    path = write_reference(config, {
        "input": {
            "image": image, "boxes": boxes, "new_size": torch.tensor([20, 30]), "original_size": torch.tensor([31, 47]),
        },
        "state": network.state_dict(),
        "output": {
            "image_embedding": network.encode(image).features, "low_res_masks": prediction.logits,
            "iou": prediction.quality, "postprocessed": cropped,
            "stage3": network.image_encoder.stages(image)[3].flatten(2).transpose(1, 2),
        },
    })  # fmt: skip
    assert verify("medsam-lite", path).passed


@torch.no_grad()
@pytest.mark.parametrize(("k", "batch"), [(2000, 1), (17, 2)])
def test_lite_medsam_with_computed_weights(write_reference, k: int, batch: int) -> None:
    config = {
        "img": 128, "embed_dims": [4, 8, 8, 320], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 5],
        "window_sizes": [7, 7, 14, 7], "prompt_dim": 64, "mask_in_chans": 16, "mlp_dim": 48, "heads": 2,
        "image": f"avg_pool2d(hash_uniform(k={k}).reshape({batch},3,128,128), kernel 3, stride 1, padding 1)",
    }  # fmt: skip
    network = _with_hash_weights(
        medsam_lite(
            image_size=128, embed_dims=(4, 8, 8, 320), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 5), dim=64,
            decoder_mlp_dim=48, decoder_heads=2,
        )
    )  # fmt: skip
    values = torch.from_numpy(hash_uniform(k, batch * 3 * 128 * 128)).float().reshape(batch, 3, 128, 128)
    image = F.avg_pool2d(values, 3, stride=1, padding=1)
    boxes = torch.tensor([10.0, 20.0, 90.0, 100.0]).repeat(batch, 1)
    prediction = network(image, boxes=boxes)
    path = write_reference(config, {
        "input": {"boxes": boxes[:, None]},
        "output": {
            "input_image_probe": image[:, :, 100, 100:108], "low_res_masks": prediction.logits,
            "iou": prediction.quality, "image_embedding_sub": network.encode(image).features[:, :, ::8, ::8],
        },
    })  # fmt: skip
    assert verify("medsam-lite-full", path).passed


def test_preparation_of_other_pictures(write_reference) -> None:
    generator = np.random.default_rng(0)
    sections = {"input": {}, "output": {}}
    for case, (height, width) in {"tall": (501, 200), "tiny": (9, 30)}.items():
        picture = generator.integers(0, 255, (height, width), np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[2:6, 4:9] = 1
        scale = 256 / max(height, width)
        new = int(height * scale + 0.5), int(width * scale + 0.5)
        resized = cv2.resize(picture, new[::-1], interpolation=cv2.INTER_AREA)
        box = np.array([4, 2, 8, 5])
        sections["input"] |= {f"{case}.image": picture, f"{case}.mask": mask, f"{case}.box": box}
        sections["output"] |= {
            f"{case}.new_size": np.float32(new),
            f"{case}.resized_uint8": resized,
            f"{case}.box256": np.float32([int(side * scale) for side in box]),
        }
    sections = {role: {name: torch.tensor(value) for name, value in part.items()} for role, part in sections.items()}
    assert verify("medsam-lite-prepost", write_reference({}, sections)).passed
    sections["output"]["tiny.box256"][0] += 1
    assert not verify("medsam-lite-prepost", write_reference({}, sections)).passed


@torch.no_grad()
@pytest.mark.parametrize("case", ["box", "points", "all"])
@pytest.mark.parametrize("prompts", [1, 3])
def test_sam(write_reference, case: str, prompts: int) -> None:
    config = {
        "img": 48, "patch": 4, "embed_dim": 16, "depth": 3, "heads": 4, "mlp_ratio": 2, "window": 5, "dim": 24,
        "mask_in_chans": 12, "mlp_dim": 32, "dec_heads": 4, "iou_hidden": 20, "global": [0],
    }  # fmt: skip
    encoder = SamViT(
        image_size=48, patch_size=4, embed_dim=16, depth=3, num_heads=4, mlp_ratio=2, window_size=5, global_blocks=(0,),
        out_channels=24,
    )  # fmt: skip
    prompt_encoder = PromptEncoder(dim=24, grid=12, image_size=48, mask_channels=12)
    decoder = MaskDecoder(dim=24, heads=4, mlp_dim=32, iou_hidden=20)
    network = _with_hash_weights(Promptable(encoder, prompt_encoder, decoder))
    inputs = {
        "image": torch.rand(3, 30, 48) * 255,
        "boxes": torch.tensor([[3.0, 4.0, 20.0, 25.0]]) + torch.rand(prompts, 4),
        "point_coords": torch.rand(prompts, 4, 2) * 40,
        "point_labels": torch.tensor([[1, 0, 1, -1]]).repeat(prompts, 1),
        "mask_inputs": torch.randn(prompts, 1, 48, 48),
        "original_size": torch.tensor([61, 97]),
    }
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    normalised = F.pad((inputs["image"] - mean[:, None, None]) / std[:, None, None], (0, 0, 0, 18))[None]
    single = network(
        normalised,
        boxes=inputs["boxes"] if case in ("box", "all") else None,
        points=inputs["point_coords"] if case in ("points", "all") else None,
        point_labels=inputs["point_labels"] if case in ("points", "all") else None,
        masks=inputs["mask_inputs"] if case == "all" else None,
    )
    restored = F.interpolate(single.logits[:, :, :30, :], (61, 97), mode="bilinear", align_corners=False)
    path = write_reference(config, {
        "input": inputs,
        "state": network.state_dict(),
        "output": {
            "preprocessed": normalised, "image_embedding": network.encode(normalised).features,
            f"{case}.postprocessed": restored,
        },
    })  # fmt: skip
    assert verify("sam-vit", path).passed


@torch.no_grad()
@pytest.mark.parametrize("prompts", [{"boxes"}, {"points"}, {"boxes", "points"}])
def test_the_decoder_with_computed_weights(write_reference, prompts: set[str]) -> None:
    config = {
        "input_image_size": 64, "embedding_grid": 8, "embed_dim": 32, "mask_in_chans": 16, "num_multimask_outputs": 2,
        "transformer_depth": 3, "mlp_dim": 40, "heads": 4, "iou_head_depth": 4, "iou_hidden": 24,
        "weights": "hash weights; image embedding = 2*hash_uniform(k=7)-1",
    }  # fmt: skip
    prompt_encoder = _with_hash_weights(PromptEncoder(dim=32, grid=8, image_size=64))
    decoder = _with_hash_weights(
        MaskDecoder(dim=32, num_masks=3, depth=3, mlp_dim=40, heads=4, iou_depth=4, iou_hidden=24)
    )
    boxes = torch.tensor([[3.0, 4.0, 40.0, 50.0]]) if "boxes" in prompts else None
    points = torch.tensor([[[5.0, 9.0], [30.0, 33.0], [1.0, 60.0]]]) if "points" in prompts else None
    labels = torch.tensor([[1, 0, 1]]) if "points" in prompts else None
    sparse, dense = prompt_encoder(boxes=boxes, points=points, point_labels=labels, masks=None)
    embedding = torch.from_numpy(2 * hash_uniform(7, 32 * 64) - 1).float().reshape(1, 32, 8, 8)
    masks, quality = decoder(embedding, prompt_encoder.dense_positions(), sparse, dense)
    given = {"boxes": boxes, "point_coords": points, "point_labels": labels}
    path = write_reference(config, {
        "input": {name: value for name, value in given.items() if value is not None},
        "output": {
            "sparse": sparse, "masks": masks, "iou": quality, "image_embedding_head": embedding[0, :8, 0, :4],
            "weight_probe.mask_decoder_first_key": decoder.iou_prediction_head.layers[0].bias[:8],
        },
    })  # fmt: skip
    assert verify("sam-decoder-full", path).passed


@torch.no_grad()
def test_efficient_vit_with_six_stages(write_reference) -> None:
    config = {
        "img": 128, "grid": 6, "width_list": [4, 4, 6, 6, 8, 12], "depth_list": [0, 1, 2, 1, 1, 1], "qkv_dim": 4,
        "head_width": 8, "head_depth": 1, "out_dim": 12, "block_list": ["res", "fmb", "mb", "fmb", "att@3", "att"],
        "expand_list": [1, 2, 2, 3, 2, 4], "fewer_norm_list": [False, False, True, True, True, True],
        "neck_inputs": ["stage5", "stage4"], "neck_op": "mb", "neck_expand_ratio": 2, "norm_eps": 1e-3,
    }  # fmt: skip
    encoder = _with_hash_weights(
        EfficientViTEncoder(
            widths=(4, 4, 6, 6, 8, 12), depths=(0, 1, 2, 1, 1, 1), head_dim=4, expand_ratios=(1, 2, 2, 3, 2, 4),
            block_kinds=("res", "fmb", "mb", "fmb", "att@3", "att"), few_norms=(False, False, True, True, True, True),
            neck_stages=(5, 4), neck_width=8, neck_depth=1, neck_kind="mb", neck_expand_ratio=2, out_channels=12,
            grid=6,
        )
    )  # fmt: skip
    for part in encoder.modules():
        if hasattr(part, "eps"):
            part.eps = 1e-3
    image = torch.rand(2, 3, 128, 128)
    path = write_reference(config, {
        "input": {"image": image},
        "state": encoder.state_dict(),
        "output": {"image_embedding": encoder(image), "stage5": encoder.stages(image)[5]},
    })  # fmt: skip
    assert verify("efficientvit-sam", path).passed


def test_a_config_at_odds_with_its_stages_is_refused(golden: Path, tmp_path: Path) -> None:
    with safe_open(golden / "medsam-lite.safetensors", framework="pt") as file:
        config = json.loads(file.metadata()["config"]) | {"final_grid": 8}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, tmp_path / "x.safetensors", metadata={"config": json.dumps(config)})
    with pytest.raises(CheckpointError, match="final_grid 8, but the stages of a 64-pixel image end at 16"):
        verify("medsam-lite", tmp_path / "x.safetensors")
