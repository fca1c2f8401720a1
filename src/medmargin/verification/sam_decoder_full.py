"""Segment Anything's prompt encoder and mask decoder at full width: weights from a formula, compared to 1e-4."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from medmargin.errors import CheckpointError
from medmargin.networks.hash_weights import hash_state, hash_uniform
from medmargin.networks.mask_decoder import MaskDecoder
from medmargin.networks.prompt_encoder import PromptEncoder
from medmargin.networks.weight_files import load_strictly
from medmargin.verification.reference import Reference

TOLERANCE = 1e-4


@torch.inference_mode()
def recompute(reference: Reference) -> dict[str, Tensor]:
    """Recompute probes of embedding and weights, the prompt tokens, all masks and their quality."""
    config, inputs = reference.config, reference.inputs
    prompt_encoder = PromptEncoder(
        dim=config["embed_dim"],
        grid=config["embedding_grid"],
        image_size=config["input_image_size"],
        mask_channels=config["mask_in_chans"],
    )
    decoder = MaskDecoder(
        dim=config["embed_dim"],
        num_masks=config["num_multimask_outputs"] + 1,
        depth=config["transformer_depth"],
        heads=config["heads"],
        mlp_dim=config["mlp_dim"],
        iou_hidden=config["iou_hidden"],
        iou_depth=config["iou_head_depth"],
    )
    for part in (prompt_encoder, decoder):
        load_strictly(part.eval(), hash_state(part), origin=str(reference.path))
    sparse, dense = prompt_encoder(
        boxes=inputs.get("boxes"),
        points=inputs.get("point_coords"),
        point_labels=inputs.get("point_labels"),
        masks=inputs.get("mask_inputs"),
    )
    embedding = _embedding(reference)
    masks, quality = decoder(
        embedding.expand(len(sparse), -1, -1, -1), prompt_encoder.dense_positions(), sparse, dense
    )
    first_key = min(decoder.state_dict())
    return {
        "image_embedding_head": embedding[0, :8, 0, :4],
        "weight_probe.mask_decoder_first_key": decoder.state_dict()[first_key].flatten()[:8],
        "sparse": sparse,
        "masks": masks,
        "iou": quality,
    }


def _embedding(reference: Reference) -> Tensor:
    """Compute the image embedding [1, dim, G, G] from its formula, '... image embedding = 2*hash_uniform(k=1000)-1'."""
    formula = str(reference.config["weights"])
    found = re.search(r"image embedding = 2\*hash_uniform\(k=(\d+)\)-1", formula)
    if not found:
        raise CheckpointError(f"{reference.path}: the formula of the embedding in its config is unknown: {formula}")
    dim, grid = reference.config["embed_dim"], reference.config["embedding_grid"]
    values = torch.from_numpy(hash_uniform(int(found[1]), dim * grid * grid))
    return (2 * values - 1).float().reshape(1, dim, grid, grid)
