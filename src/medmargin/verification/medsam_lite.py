"""LiteMedSAM with reduced widths, every stage: weights and inputs from the file, compared to 1e-5."""

from __future__ import annotations

import torch
from torch import Tensor

from medmargin.errors import CheckpointError
from medmargin.networks.medsam_lite import medsam_lite
from medmargin.networks.promptable import Embedding, Promptable
from medmargin.networks.sam_pixels import restore_logits
from medmargin.networks.tiny_vit import TinyViT
from medmargin.networks.weight_files import load_strictly
from medmargin.verification.reference import Reference

TOLERANCE = 1e-5


@torch.inference_mode()
def recompute(reference: Reference) -> dict[str, Tensor]:
    """Recompute stages, embedding, prompt tokens, masks, their quality, and the masks at the original size."""
    network = _build(reference)
    encoder = network.image_encoder
    assert isinstance(encoder, TinyViT)
    stages = encoder.stages(reference.inputs["image"])
    embedding = encoder.neck(stages[-1])
    boxes = reference.inputs["boxes"]  # [B, boxes per image, 4]
    prediction = network.decode(
        Embedding(embedding),
        boxes=boxes.reshape(-1, 4),
        image_index=torch.arange(len(boxes)).repeat_interleave(boxes.shape[:-1].numel() // len(boxes)),
    )
    assert prediction.quality is not None
    sparse, _ = network.prompt_encoder(boxes=boxes.reshape(-1, 4), points=None, point_labels=None, masks=None)
    new_height, new_width = reference.inputs["new_size"].tolist()
    height, width = reference.inputs["original_size"].tolist()
    return {
        **{f"stage{index}": stage.flatten(2).transpose(1, 2) for index, stage in enumerate(stages)},
        "image_embedding": embedding,
        "sparse": sparse,
        "low_res_masks": prediction.logits,
        "iou": prediction.quality,
        "postprocessed": restore_logits(prediction.logits, crop=(new_height, new_width), size=(height, width)),
    }


def _build(reference: Reference) -> Promptable:
    config = reference.config
    network = medsam_lite(
        image_size=config["img"],
        embed_dims=config["embed_dims"],
        depths=config["depths"],
        num_heads=config["num_heads"],
        window_sizes=config["window_sizes"],
        mbconv_expand_ratio=config["mbconv_expand_ratio"],
        mlp_ratio=config["mlp_ratio"],
        local_conv_size=config["local_conv_size"],
        stride1_dims=config["stride1_out_dims"],
        dim=config["dim"],
        mask_channels=config["mask_in_chans"],
        decoder_heads=config["dec_heads"],
        decoder_mlp_dim=config["mlp_dim"],
        iou_hidden=config["iou_hidden"],
    )
    if network.prompt_encoder.grid != config["final_grid"]:
        raise CheckpointError(
            f"{reference.path}: its config says final_grid {config['final_grid']}, but the stages of a "
            f"{config['img']}-pixel image end at {network.prompt_encoder.grid}"
        )
    load_strictly(network, reference.state, origin=str(reference.path))
    return network.eval()
