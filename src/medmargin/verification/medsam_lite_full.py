"""LiteMedSAM at full width: weights and image from formulas, compared to 1e-4."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torch.nn import functional as F

from medmargin.errors import CheckpointError
from medmargin.networks.hash_weights import hash_state, hash_uniform
from medmargin.networks.medsam_lite import medsam_lite
from medmargin.networks.weight_files import load_strictly
from medmargin.verification.reference import Reference

TOLERANCE = 1e-4
_OPTIONAL = {"iou_hidden": "iou_hidden", "stride1_dims": "stride1_out_dims"}  # the network's defaults where absent
_PROBE = 100  # the image is probed in row 100, from column 100


@torch.inference_mode()
def recompute(reference: Reference) -> dict[str, Tensor]:
    """Recompute a probe of the image, every eighth cell of the embedding, the masks and their quality."""
    config = reference.config
    optional = {argument: config[key] for argument, key in _OPTIONAL.items() if key in config}
    network = medsam_lite(
        image_size=config["img"],
        embed_dims=config["embed_dims"],
        depths=config["depths"],
        num_heads=config["num_heads"],
        window_sizes=config["window_sizes"],
        dim=config["prompt_dim"],
        mask_channels=config["mask_in_chans"],
        decoder_heads=config["heads"],
        decoder_mlp_dim=config["mlp_dim"],
        **optional,
    ).eval()
    load_strictly(network, hash_state(network), origin=str(reference.path))
    image = _image(reference)
    embedding = network.encode(image)
    prediction = network.decode(embedding, boxes=reference.inputs["boxes"].reshape(-1, 4))
    assert prediction.quality is not None
    return {
        "input_image_probe": image[:, :, _PROBE, _PROBE : _PROBE + 8],
        "image_embedding_sub": embedding.features[:, :, ::8, ::8],
        "low_res_masks": prediction.logits,
        "iou": prediction.quality,
    }


def _image(reference: Reference) -> Tensor:
    """Compute the image from its formula, 'avg_pool2d(hash_uniform(k=2000).reshape(1,3,256,256), kernel 5, ...)'."""
    formula = str(reference.config["image"])
    found = re.search(r"hash_uniform\(k=(\d+)\)\.reshape\((\d+),\s*3,\s*(\d+),\s*(\d+)\), kernel (\d+)", formula)
    if not found:
        raise CheckpointError(f"{reference.path}: the formula of the image in its config is unknown: {formula}")
    k, batch, height, width, kernel = map(int, found.groups())
    values = torch.from_numpy(hash_uniform(k, batch * 3 * height * width)).float().reshape(batch, 3, height, width)
    return F.avg_pool2d(values, kernel, stride=1, padding=kernel // 2, count_include_pad=True)
