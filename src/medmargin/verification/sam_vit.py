"""Segment Anything with reduced widths: preprocessing, embedding and every kind of prompt, compared to 1e-5."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medmargin.networks.mask_decoder import MaskDecoder
from medmargin.networks.prompt_encoder import PromptEncoder
from medmargin.networks.promptable import Promptable
from medmargin.networks.sam_pixels import restore_logits, sam_input
from medmargin.networks.sam_vit import SamViT
from medmargin.networks.weight_files import load_strictly
from medmargin.verification.reference import Reference

TOLERANCE = 1e-5
_PROMPTS = {"box": ("boxes",), "points": ("points",), "all": ("points", "boxes", "masks"), "none": ()}


@torch.inference_mode()
def recompute(reference: Reference) -> dict[str, Tensor]:
    """Recompute the network input, the embedding, and tokens, masks and quality for every kind of prompt."""
    network = _build(reference)
    image = reference.inputs["image"]  # [3, H, W], 0..255
    preprocessed = sam_input(image[None], network.image_size)
    embedding = network.encode(preprocessed).features
    outputs = {
        "preprocessed": preprocessed,
        "image_embedding": embedding,
        "dense_pe": network.prompt_encoder.dense_positions(),
    }
    for case, kinds in _PROMPTS.items():
        if any(output.startswith(f"{case}.") for output in reference.outputs):
            decoded = _decode(network, embedding, _prompts(reference, kinds))
            decoded["postprocessed"] = _postprocess(network, decoded["masks"], image, reference)
            outputs |= {f"{case}.{name}": values for name, values in decoded.items()}
    return outputs


def _prompts(reference: Reference, kinds: tuple[str, ...]) -> dict[str, Tensor | None]:
    inputs = reference.inputs
    return {
        "boxes": inputs["boxes"] if "boxes" in kinds else None,
        "points": inputs["point_coords"] if "points" in kinds else None,
        "point_labels": inputs["point_labels"] if "points" in kinds else None,
        "masks": inputs["mask_inputs"] if "masks" in kinds else None,
    }


def _decode(network: Promptable, embedding: Tensor, prompts: dict[str, Tensor | None]) -> dict[str, Tensor]:
    sparse, dense = network.prompt_encoder(**prompts)
    masks, quality = network.mask_decoder(
        embedding.expand(len(sparse), -1, -1, -1), network.prompt_encoder.dense_positions(), sparse, dense
    )
    if prompts["masks"] is None:
        dense = dense[:, :, 0, 0]  # the same for every cell, and stored once
    return {"sparse": sparse, "dense": dense, "masks": masks, "iou": quality}


def _postprocess(network: Promptable, masks: Tensor, image: Tensor, reference: Reference) -> Tensor:
    """Bring SAM's single mask (token 0) to the size of the original picture."""
    full = F.interpolate(masks[:, :1], (network.image_size, network.image_size), mode="bilinear", align_corners=False)
    height, width = reference.inputs["original_size"].tolist()
    return restore_logits(full, crop=(image.shape[-2], image.shape[-1]), size=(height, width))


def _build(reference: Reference) -> Promptable:
    config = reference.config
    encoder = SamViT(
        image_size=config["img"],
        patch_size=config["patch"],
        embed_dim=config["embed_dim"],
        depth=config["depth"],
        num_heads=config["heads"],
        mlp_ratio=config["mlp_ratio"],
        window_size=config["window"],
        global_blocks=config["global"],
        out_channels=config["dim"],
    )
    network = Promptable(
        encoder,
        PromptEncoder(
            dim=config["dim"], grid=encoder.grid, image_size=config["img"], mask_channels=config["mask_in_chans"]
        ),
        MaskDecoder(
            dim=config["dim"], heads=config["dec_heads"], mlp_dim=config["mlp_dim"], iou_hidden=config["iou_hidden"]
        ),
    )
    load_strictly(network, reference.state, origin=str(reference.path))
    return network.eval()
