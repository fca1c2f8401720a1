"""Residual-encoder U-Net: the stronger of nnU-Net's two families, 2-D or 3-D, with evidence or a softmax.

Isensee et al. 2024, "nnU-Net Revisited", arXiv:2404.09556 (ResEnc M): residual blocks on the way down, more of them in
deeper stages, and one convolution per stage on the way up. Training as in `plain_unet`.

What differs at laptop scale: as in `plain_unet`, and two residual blocks per stage.

Deviations: the published planner fits the patch to the residual network's memory; here the patch is the plain U-Net's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from medmargin.datasets import Task
from medmargin.errors import ConfigError
from medmargin.systems.registry import system
from medmargin.systems.supervised import PatchTraining, outputs, planned, supervised
from medmargin.systems.system import System


@system(
    "residual-unet",
    paper="arXiv:2404.09556",
    dims=3,
    needs=("labelled", "plan"),
    stages=("train",),
    laptop={
        "blocks": (1, 2, 2, 2), "evidential": True, "deep_supervision": False, "optimiser": "adamw", "lr": 3e-3,
        "weight_decay": 0.01, "warmup_steps": 60, "augmentation": "light", "mirrors": False,
        "epochs": 20, "precision": "bf16-mixed",
    },
)  # fmt: skip
def residual_unet(
    task: Task,
    *,
    configuration: Literal["auto", "2d", "3d_fullres", "3d_lowres", "3d_cascade"] = "auto",
    blocks: tuple[int, ...] = (1, 3, 4, 6, 6, 6),
    init: str = "none",
    evidential: bool = False,
    evidence: Literal["softplus", "exp", "relu"] = "exp",
    kl_weight: float = 0.0,
    kl_ramp: float = 0.25,
    deep_supervision: bool = True,
    dropout: float = 0.0,
    batch_dice: bool | Literal["auto"] = "auto",
    batch_size: int | Literal["auto"] = "auto",
    foreground_share: float = 0.33,
    optimiser: Literal["sgd", "adamw"] = "sgd",
    lr: float = 1e-2,
    weight_decay: float = 3e-5,
    warmup_steps: int = 0,
    clip_norm: float = 12.0,
    average_decay: float | None = None,
    augmentation: Literal["nnunet", "light", "none"] = "nnunet",
    steps_per_epoch: int = 250,
    epochs: int = 1000,
    mirrors: bool = True,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "16-mixed",
) -> System:
    """Segment volumes or pictures with a residual-encoder U-Net that the data set's plan configures.

    Args:
        configuration: of the plan; "auto" takes the chosen one.
        blocks: residual blocks of each stage, finest first; the last number counts for all deeper stages.
        init: "none", or a file of official nnU-Net 2 weights of the same shape.
        evidential: answer with Dirichlet evidence; False is a softmax head. Structures that overlap have sigmoids.
        evidence: how logits become evidence; with "exp" classes can become as certain as with a softmax.
        kl_weight, kl_ramp: of the divergence that wrong evidence costs, and the share of the training over which it
            rises to its full weight.
        deep_supervision: also score the coarser stages of the decoder.
        dropout: in the deepest stages, for Monte Carlo dropout.
        batch_dice: overlap of the whole batch; "auto": of slices, and where a cascade is planned, as published.
        batch_size: patches per step; "auto" takes the plan's.
        foreground_share: share of a batch that surely shows a structure.
        optimiser: "sgd" with momentum 0.99 and a polynomial schedule, or "adamw" with a cosine after a warm-up.
        lr, weight_decay, warmup_steps, clip_norm: of it.
        average_decay: of the moving average of the weights that is kept; none keeps the weights themselves.
        augmentation: nnU-Net's, a lighter one without mirrors, or none.
        steps_per_epoch, epochs: length without a budget.
        mirrors: predict all mirrors of a window too and average; the uncertainty is then test-time augmentation's.
        precision: of the arithmetic; the published 16-bit floats need a GPU.
    """
    from medmargin.networks.official_unet import load_official
    from medmargin.networks.unet import residual_unet as build

    plan, found = planned(task, "residual-unet", configuration)
    kind = evidence if evidential and not task.regions else None
    network = build(
        dims=found.dims, channels=found.channels, outputs=outputs(task), strides=found.strides, kernels=found.kernels,
        features=found.features, blocks=_of_stages(blocks, len(found.features)), evidence=kind,
        regions=bool(task.regions), deep_supervision=deep_supervision, dropout=dropout, patch=found.patch,
    )  # fmt: skip
    if init != "none":
        load_official(init, network)
    ways = PatchTraining(
        evidence=kind, kl_weight=kl_weight, kl_ramp=kl_ramp, batch_dice=batch_dice, batch_size=batch_size,
        foreground_share=foreground_share, optimiser=optimiser, lr=lr, weight_decay=weight_decay,
        warmup_steps=warmup_steps, clip_norm=clip_norm, average_decay=average_decay, steps_per_epoch=steps_per_epoch,
        epochs=epochs, augmentation=augmentation, precision=precision, mirrors=mirrors,
    )  # fmt: skip
    return supervised(task, network, plan, found, ways, init=init)


def _of_stages(blocks: Sequence[int], stages: int) -> tuple[int, ...]:
    """Cut the numbers of blocks to the plan's stages, or repeat the last one.

    Raises:
        ConfigError: there are none.
    """
    if not blocks:
        raise ConfigError("blocks are (): expected one number or more, as in 1,3,4,6")
    return tuple(blocks[min(stage, len(blocks) - 1)] for stage in range(stages))
