"""UDEG-Net: Segment Anything that prompts itself with edges, and says how little evidence it has.

Zhao et al. 2025, IEEE TMI 44(10), doi:10.1109/TMI.2025.3535478. No code was published and the abstract has no formula:
the form of the edge prompt generator, of the evidential losses and of the progressive weight is our design, in the
spirit of the authors' neighbours (LoRA as in SAMed, arXiv:2304.13785; evidential losses as in TBraTS, arXiv:2206.09309,
and DEviS, arXiv:2301.00349).

What differs between the bases, G being the side of the image embedding, 4 G that of masks and edges:

- `sam-vit-b`, `-l`, `-h`: 4 G is a quarter of the input's side. The generator reads what leaves the four global blocks
  and enlarges it. `sam-vit-tiny` is the same in small with patches of 8 pixels, so 4 G is half of the input's side.
- `medsam-lite` (TinyViT): 4 G is the input's side. The generator reads each stage where it is, at 4, 2, 1 and 1 times
  G; LoRA adapts the attentions, the convolutions have none.
- `compact`: 4 G is the input's side. The generator reads maps at 4, 2, 1 and 1/2 times G; the first two also sharpen
  the masks in the decoder. The only base with weights in the package.

What differs at laptop scale: the compact base starts from the shipped U-MedSAM weights, encoder and decoder (`--set
init=none` for scratch), at the size of the slices. Because those weights come from simulated pictures, the encoder is
trained whole beside its LoRA factors (`--set freeze_encoder=true` trains the factors alone). The generator is half as
wide, and pictures are turned and zoomed a little but not mirrored: in a slice of an organ, front and back tell its
parts apart.

Deviations from SAMed's training, the model of the paper scale: a training runs to the end of its budget (SAMed stops at
160 of the 200 epochs its learning rate falls over); without starting weights the encoder is trained whole, at one rate
with the rest, for frozen it would stay random. The softmax head (`evidential=off`) has SAMed's 0.2 cross-entropy + 0.8
Dice, but at the full resolution, and its Dice has no squares and leaves out the background.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from medmargin.datasets import Task
from medmargin.errors import ConfigError, DataError
from medmargin.systems.registry import system
from medmargin.systems.system import Stage, System


@system(
    "udeg-net",
    paper="doi:10.1109/TMI.2025.3535478",
    dims=2,
    needs=("labelled",),
    stages=("fine-tune",),
    laptop={
        "base": "compact", "image_size": "auto", "init": "shipped", "freeze_encoder": False, "edge_channels": 32,
        "lr": 2e-3, "adapter_lr_factor": 1.0, "weight_decay": 0.01, "warmup_steps": 30, "batch_size": 8,
        "augmentation": "upright", "precision": "bf16-mixed", "epochs": 20,
    },
)  # fmt: skip
def udeg_net(
    task: Task,
    *,
    base: Literal["sam-vit-b", "sam-vit-l", "sam-vit-h", "sam-vit-tiny", "medsam-lite", "compact"] = "sam-vit-b",
    image_size: int | Literal["auto"] = 512,
    init: str = "none",
    pixels: Literal["unit", "standardised"] = "unit",
    lora_rank: int = 4,
    freeze_encoder: bool | Literal["auto"] = "auto",
    edge_prompts: bool = True,
    edge_channels: int = 64,
    edge_tokens: int = 8,
    edge_target: Literal["labels", "sobel", "canny", "band", "soft"] = "labels",
    edge_radius: float = 2.0,
    evidential: bool = True,
    evidence: Literal["softplus", "exp", "relu"] = "softplus",
    progressive: bool = True,
    progress: Literal["cosine", "linear", "exp"] = "cosine",
    beta: float = 1.0,
    eta: float = 0.5,
    kl_ramp: float = 0.25,
    calibration_weight: float = 0.0,
    dropout: float = 0.0,
    planes: Literal["axial", "three"] = "axial",
    empty_share: float = 0.1,
    prompted_share: float = 0.0,
    lr: float = 1e-3,
    adapter_lr_factor: float | Literal["auto"] = "auto",
    weight_decay: float | Literal["auto"] = "auto",
    warmup_steps: int = 250,
    clip_norm: float = 1.0,
    batch_size: int = 24,
    accumulate: int = 1,
    epochs: int = 200,
    augmentation: Literal["samed", "upright"] = "samed",
    average_decay: float | None = None,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    gradient_checkpointing: bool | None = None,
) -> System:
    """Segment every structure of a slice without a click, with the vacuity of the evidence as its uncertainty.

    Args:
        base: SAM's ViT (as published), the same in small ("sam-vit-tiny": no weights exist, for experiments from
            scratch), LiteMedSAM's TinyViT, or the compact encoder of the laptop scale.
        image_size: side of the network input in pixels; "auto" takes the size of the slices, from 64 to 128.
        init: starting weights of the base: "none", "shipped" (compact only) or a file of official SAM, MedSAM or
            LiteMedSAM weights.
        lora_rank: rank of the low-rank factors on q and v of every attention (SAMed: 4); 0 leaves them out and trains
            the encoder whole.
        freeze_encoder: train the factors only; False trains the encoder beside them. "auto" freezes it where `init`
            gives it weights. Without factors it is never frozen.
        pixels: what the base's weights were trained on: [0, 1] (MedSAM, LiteMedSAM, shipped), or the mean and
            standard deviation of the original SAM.
        edge_prompts: the edge prompt generator; False is SAMed's automatic decoder.
        edge_channels: width of the generator. edge_tokens: sparse edge prompts.
        edge_target: what counts as an edge: pixels with a neighbour of another class ("labels"), what Sobel or Canny
            find on the labels, all within a radius ("band"), or a Gaussian of the distance ("soft").
        edge_radius: radius of "band" or standard deviation of "soft", in pixels of an input 256 pixels high.
        evidential: Dirichlet evidence; False is a softmax head with cross-entropy and Dice weighed as in SAMed.
        evidence: how logits become evidence.
        progressive: weigh pixels by their uncertainty, at first the certain ones, at last the uncertain edges.
        progress: course of that weight. beta: extra weight at edges. eta: share of the weight in the loss.
        kl_ramp: share of the training over which the divergence term rises to its full weight.
        calibration_weight: of DEviS' calibration term (published: 0.1; 0 leaves it out).
        dropout: on embedding and edge features, for Monte Carlo dropout.
        planes: cut volumes along one axis, or along all three, whose answers are fused.
        empty_share: share of training slices drawn without looking at what they show.
        prompted_share: share of steps that also give a box, so that a user's box is understood.
        lr: AdamW learning rate. adapter_lr_factor: the factors learn this many times faster; "auto" is 5 (SAMed's rate
            of 5e-3) beside starting weights and 1 without. weight_decay: "auto" is SAMed's 0.1, or 0.01 without.
        warmup_steps: rise of the learning rate, then (1 - t / T) ** 0.9.
        clip_norm: largest gradient norm. batch_size: slices per step. accumulate: parts a batch is cut into.
        epochs: length without a budget.
        augmentation: SAMed's (turns and flips, or a rotation), or small rotation, zoom and grey levels ("upright").
        average_decay: of the moving average of the weights that is kept; none keeps the weights themselves.
        precision: of the arithmetic.
        gradient_checkpointing: trade time for memory in the encoder; none does so for "medsam-lite", whose stem keeps
            the full resolution.
    """
    from medmargin.inference import AutomaticPredictor
    from medmargin.networks.udeg_net import trained_state
    from medmargin.networks.udeg_net import udeg_net as build
    from medmargin.transforms import shown
    from medmargin.uncertainty.estimators import Evidential, Softmax

    is_pretrained = init != "none"
    network = build(
        base, classes=task.num_classes, image_size=_input_size(image_size, task, base), init=init, pixels=pixels,
        lora_rank=lora_rank, freeze_encoder=is_pretrained if freeze_encoder == "auto" else freeze_encoder,
        edge_prompts=edge_prompts, edge_channels=edge_channels, edge_tokens=edge_tokens,
        evidence=evidence if evidential else None, dropout=dropout,
        gradient_checkpointing=base == "medsam-lite" if gradient_checkpointing is None else gradient_checkpointing,
    )  # fmt: skip

    def fine_tune() -> Stage:
        from medmargin.learning import LabelledSlices, Optimisation, SegmentationLearner
        from medmargin.learning.labelled_slices import LARGEST_CLASS
        from medmargin.losses.uncertainty_driven import UncertaintyDrivenLoss
        from medmargin.optim.schedules import polynomial_with_warmup
        from medmargin.transforms import Augmentation

        if (found := len(task.structures)) > LARGEST_CLASS:
            raise DataError(f"{task.name}: {found} structures, expected at most {LARGEST_CLASS}. Leave some out.")
        loss = UncertaintyDrivenLoss(
            evidence=evidence if evidential else None, progressive=progressive, schedule=progress, beta=beta, eta=eta,
            kl_ramp=kl_ramp, calibration_weight=calibration_weight, edge_target=edge_target, edge_radius=edge_radius,
        )  # fmt: skip
        moves = (
            Augmentation(turns=True, rotation=20, alternating=True)
            if augmentation == "samed"
            else Augmentation(flips=False, rotation=20, zoom=0.2, gamma=0.4, contrast=0.15, brightness=0.1, noise=0.03)
        )
        stream = partial(
            LabelledSlices, size=network.image_size, augmentation=moves, empty_share=empty_share, planes=planes,
            prompted_share=prompted_share,
        )  # fmt: skip
        optimisation = Optimisation(
            lr=lr, clip_norm=clip_norm, accumulate=accumulate, average_decay=average_decay,
            adapter_lr_factor=(5.0 if is_pretrained else 1.0) if adapter_lr_factor == "auto" else adapter_lr_factor,
            weight_decay=(0.1 if is_pretrained else 0.01) if weight_decay == "auto" else weight_decay,
            schedule=partial(polynomial_with_warmup, warmup_steps=warmup_steps),
        )  # fmt: skip
        return Stage(
            "fine-tune", SegmentationLearner(network, loss, optimisation), stream, batch_size, epochs, precision
        )

    return System(
        network=network,
        stages=(fine_tune,),
        predictor=lambda: AutomaticPredictor(
            network,
            structures=tuple(task.structures),
            normalise=partial(shown, modality=task.modality, dims=task.dims),
            uncertainty=Evidential() if evidential else Softmax(),
            planes=planes,
        ),
        init=init,
        adapter=lambda: trained_state(network),
    )


def _input_size(asked: int | Literal["auto"], task: Task, base: str) -> int:
    """Take the size asked for, or that of the data's slices in steps of 32 pixels, from 64 to 128."""
    if asked != "auto":
        return asked
    if base != "compact":
        raise ConfigError(
            f"image_size=auto: the base '{base}' has a size of its own; give image_size=256 or 512, for example, and "
            "init=none or a file of its weights, for the package ships those of the compact base only"
        )
    return min(128, max(64, -(-(task.extent or 64) // 32) * 32))
