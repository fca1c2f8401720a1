"""EfficientViT-SAM's image encoder with reduced widths, every stage, compared to 1e-5."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medmargin.networks.blocks.layer_norm_2d import LayerNorm2d
from medmargin.networks.efficient_vit import EfficientViTEncoder
from medmargin.networks.weight_files import load_strictly
from medmargin.verification.reference import Reference

TOLERANCE = 1e-5


@torch.inference_mode()
def recompute(reference: Reference) -> dict[str, Tensor]:
    """Recompute every stage of the backbone and the embedding."""
    config = reference.config
    encoder = EfficientViTEncoder(
        widths=config["width_list"],
        depths=config["depth_list"],
        block_kinds=config["block_list"],
        expand_ratios=config["expand_list"],
        few_norms=config["fewer_norm_list"],
        head_dim=config["qkv_dim"],
        neck_stages=[int(name.removeprefix("stage")) for name in config["neck_inputs"]],
        neck_width=config["head_width"],
        neck_depth=config["head_depth"],
        neck_kind=config["neck_op"],
        neck_expand_ratio=config["neck_expand_ratio"],
        out_channels=config["out_dim"],
        grid=config["grid"],
    ).eval()
    for part in encoder.modules():
        if isinstance(part, nn.BatchNorm2d | LayerNorm2d):
            part.eps = config["norm_eps"]
    load_strictly(encoder, reference.state, origin=str(reference.path))
    stages = encoder.stages(reference.inputs["image"])
    outputs = {f"stage{index}": stage for index, stage in enumerate(stages)}
    return outputs | {"image_embedding": encoder.norm(encoder.neck(stages))}
