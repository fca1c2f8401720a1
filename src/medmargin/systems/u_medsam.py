"""U-MedSAM: LiteMedSAM, a loss that learns its own weights, and sharpness-aware minimisation.

Wang et al. 2024, arXiv:2408.08881. The forms of the loss weighting and of SharpMin follow the authors' sister work
UU-Mamba (arXiv:2405.17496); the shape-distance term is the distance-penalised cross-entropy of Caliva et al. 2019.

Deviations: the learning rate falls along a cosine, because a resumed run must repeat an uninterrupted one (the paper
does not state its schedule; LiteMedSAM lowers the rate on a plateau). The formula of the shape distance is not
published. The loss weights p_i learn 100 times faster than the network: at its rate they would stay where they start.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from medmargin.datasets import Task
from medmargin.systems.registry import system
from medmargin.systems.system import Stage, System


@system(
    "u-medsam",
    paper="arXiv:2408.08881",
    dims=2,
    needs=("labelled", "boxes"),
    stages=("distil", "fine-tune"),
    laptop={
        "encoder": "compact", "image_size": 64, "frame": "object", "init": "shipped", "lr": 2e-3, "batch_size": 16,
        "box_jitter": 2, "augmentation": "grey-levels", "precision": "bf16-mixed", "epochs": 20,
        "loss_lr_factor": 5.0,
    },
)  # fmt: skip
def u_medsam(
    task: Task,
    *,
    encoder: Literal["tiny-vit", "efficient-vit", "compact"] = "tiny-vit",
    image_size: int = 256,
    frame: Literal["image", "object"] = "image",
    frame_margin: float = 0.3,
    init: str = "none",
    teacher: str | None = None,
    terms: tuple[str, ...] = ("mse", "dice", "ce", "sd"),
    weighting: Literal["uncertainty", "fixed"] = "uncertainty",
    shape_distance: str = "penalised_ce",
    quality: Literal["fixed", "weighted", "off"] = "fixed",
    rho: float = 0.05,
    adaptive: bool = False,
    perturbs_loss: bool = True,
    lr: float = 5e-5,
    loss_lr_factor: float = 100.0,
    weight_decay: float = 0.01,
    schedule: Literal["cosine", "constant"] = "cosine",
    clip_norm: float = 12.0,
    batch_size: int = 4,
    accumulate: int = 1,
    epochs: int = 135,
    distil_epochs: int = 70,
    box_jitter: int = 5,
    augmentation: Literal["flips", "grey-levels"] = "flips",
    average_decay: float | None = None,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    gradient_checkpointing: bool = False,
    members: int = 8,
) -> System:
    """Segment what a box encloses, with an uncertainty map from prompts that are moved a little and mirrored.

    Args:
        encoder: TinyViT (LiteMedSAM, version 1 of the paper), EfficientViT-SAM-L0 (its later version) or the compact
            encoder of the laptop scale.
        image_size: side of the network input in pixels.
        frame: look at the whole image, or at a window around the prompted object (laptop scale).
        frame_margin: free space around the object in its window, as a fraction of the object's longest side.
        init: starting weights: "none", "shipped" (laptop scale only) or a file of official weights.
        teacher: file of LiteMedSAM weights; the encoder first learns its embeddings, and keeps its prompt encoder and
            decoder.
        terms: loss terms: mse (pixel), dice (region), ce and sd (distribution).
        weighting: learn the weight of each term (L_i / 2p_i^2 + ln(1 + p_i^2)), or add them up.
        shape_distance: what sd computes, a key of `losses.shape_distance.SHAPE_DISTANCES`.
        quality: what becomes of the squared error of the estimated IoU: added, weighted like a term, or off.
        rho: radius of SharpMin; 0 is plain AdamW. adaptive: its scale-free variant (rho about ten times larger).
        perturbs_loss: SharpMin moves the loss weights too.
        lr: learning rate (paper: 5e-5). loss_lr_factor: the loss weights learn this many times faster.
        weight_decay: of the network's weights. schedule: of the learning rate.
        clip_norm: largest gradient norm (UU-Mamba: 12).
        batch_size: objects per step (LiteMedSAM: 4). accumulate: parts a batch is cut into to save memory.
        epochs: length of the fine-tuning without a budget (paper: 135). distil_epochs: of the distillation.
        box_jitter: each side of a training box moves outward by 0 to this many pixels.
        augmentation: flips as LiteMedSAM, or flips and changed grey levels.
        average_decay: of the moving average of the weights that is kept; none keeps the weights themselves.
        precision: of the arithmetic. gradient_checkpointing: trade time for memory in the encoder.
        members: answers behind an uncertainty map.
    """
    from medmargin.inference import Framing, PromptedPredictor
    from medmargin.networks.starting_points import promptable_network
    from medmargin.transforms import Augmentation, shown
    from medmargin.uncertainty.prompt_perturbation import PromptPerturbation

    network = promptable_network(
        encoder, image_size=image_size, init=init, gradient_checkpointing=gradient_checkpointing
    )
    mirrored = Augmentation()
    shaded = Augmentation(gamma=0.4, contrast=0.15, brightness=0.1, noise=0.03)

    def distil() -> Stage:
        from medmargin.learning import DistillationLearner, DistillationPictures, Optimisation
        from medmargin.networks.starting_points import frozen_teacher

        frozen = frozen_teacher(str(teacher), student=network)
        learner = DistillationLearner(network, frozen, Optimisation(lr=5e-5, weight_decay=0.01))
        stream = partial(DistillationPictures, size=image_size, teacher_size=frozen.image_size, augmentation=mirrored)
        return Stage("distil", learner, stream, batch_size=7, epochs=distil_epochs, precision=precision)

    def fine_tune() -> Stage:
        from medmargin.learning import Optimisation, PromptedLearner, PromptedSlices, Prompting
        from medmargin.losses.promptable import PromptableLoss
        from medmargin.optim.schedules import constant, cosine_with_warmup

        loss = PromptableLoss(terms, weighting=weighting, shape_distance=shape_distance, quality=quality)
        margins = (frame_margin / 2, 2 * frame_margin) if frame == "object" else None
        prompting = Prompting(image_size, frame_margin=margins, frame_shift=0.1, box_jitter=box_jitter)
        stream = partial(
            PromptedSlices, prompting=prompting, distance_map=loss.distance_map,
            augmentation=shaded if augmentation == "grey-levels" else mirrored,
        )  # fmt: skip
        optimisation = Optimisation(
            lr=lr, weight_decay=weight_decay, rho=rho, adaptive=adaptive, perturbs_loss=perturbs_loss,
            loss_lr_factor=loss_lr_factor, clip_norm=clip_norm, accumulate=accumulate, average_decay=average_decay,
            schedule=partial(cosine_with_warmup, warmup_steps=30) if schedule == "cosine" else constant,
        )  # fmt: skip
        return Stage("fine-tune", PromptedLearner(network, loss, optimisation), stream, batch_size, epochs, precision)

    return System(
        network=network,
        stages=(fine_tune,) if teacher is None else (distil, fine_tune),
        predictor=lambda: PromptedPredictor(
            network,
            framing=Framing(frame, margin=frame_margin),
            normalise=partial(shown, modality=task.modality, dims=task.dims),
            uncertainty=PromptPerturbation(members) if members > 1 else None,
        ),
        init=init,
    )
