"""Promptable networks by the name of their image encoder, with their starting weights."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from medmargin.errors import ConfigError
from medmargin.networks.compact import compact_promptable, resized_positions
from medmargin.networks.medsam_lite import medsam_lite
from medmargin.networks.official import load_official
from medmargin.networks.promptable import Promptable
from medmargin.networks.sam import SamSize, efficient_vit_sam, sam_vit
from medmargin.networks.weight_files import load_strictly
from medmargin.runs import read_weights

SHIPPED = Path(__file__).parents[1] / "weights"
"""Run folders whose weights come with the package, one per system."""

_VIT_SIZES: dict[str, SamSize] = {f"vit-{size}": size for size in get_args(SamSize)}


def promptable_network(
    encoder: Literal["tiny-vit", "efficient-vit", "compact", "vit-b", "vit-l", "vit-h", "vit-tiny"],
    *,
    image_size: int,
    init: str = "none",
    gradient_checkpointing: bool = False,
) -> Promptable:
    """Build a promptable network and give it starting weights.

    Args:
        encoder: "tiny-vit" is LiteMedSAM, "efficient-vit" EfficientViT-SAM-L0, "compact" the laptop scale, "vit-b",
            "vit-l" and "vit-h" are SAM and MedSAM, "vit-tiny" is the same network in small, without weights.
        image_size: side of the network input in pixels.
        init: "none" for random weights, "shipped" for those of the package (compact only; the position table is
            resized to the image size), or a file of official weights.
        gradient_checkpointing: trade time for memory in the image encoder.

    Raises:
        ConfigError: shipped weights are asked for where there are none, or checkpointing of the compact encoder.
        CheckpointError: the weights do not fit or are damaged.
    """
    if encoder == "compact":
        if gradient_checkpointing:
            raise ConfigError("gradient_checkpointing: the compact encoder is small enough without it; leave it off")
        network = compact_promptable(image_size=image_size)
    elif encoder == "tiny-vit":
        network = medsam_lite(image_size=image_size, gradient_checkpointing=gradient_checkpointing)
    elif encoder == "efficient-vit":
        network = efficient_vit_sam(image_size=image_size, gradient_checkpointing=gradient_checkpointing)
    else:
        network = sam_vit(
            size=_VIT_SIZES[encoder], image_size=image_size, gradient_checkpointing=gradient_checkpointing
        )
    if init == "shipped":
        if encoder != "compact":
            raise ConfigError(
                f"init=shipped: the package ships weights of the compact encoder only, not of '{encoder}'. "
                "Give a file of official weights, or init=none."
            )
        shipped = SHIPPED / "u-medsam" / "model.safetensors"
        load_strictly(network, resized_positions(network, read_weights(shipped)), origin=str(shipped))
    elif init != "none":
        load_official(network, init)
    return network


def frozen_teacher(path: str, *, student: Promptable) -> Promptable:
    """Load LiteMedSAM as a teacher, and give `student` its prompt encoder and mask decoder.

    The student only has to learn the embedding then (U-MedSAM, arXiv:2408.08881: distil, attach, fine-tune).

    Raises:
        ConfigError: the student's prompt encoder or decoder has another shape.
        CheckpointError: the weights do not fit LiteMedSAM or are damaged.
    """
    teacher = medsam_lite()
    load_official(teacher, path)
    for part in ("prompt_encoder", "mask_decoder"):
        try:
            getattr(student, part).load_state_dict(getattr(teacher, part).state_dict())
        except RuntimeError as error:
            raise ConfigError(f"teacher: the student's {part.replace('_', ' ')} has another shape ({error})") from error
    return teacher.eval().requires_grad_(False)
