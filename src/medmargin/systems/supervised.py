"""One supervised stage, then a sliding window: how every network that learns from patches of whole images is composed.

Not a system: the systems that are a network and nothing else say here how it learns, and get stage and predictor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from medmargin.datasets import Task
from medmargin.datasets.planning import Configuration, Plan
from medmargin.errors import ConfigError
from medmargin.systems.system import Stage, System

if TYPE_CHECKING:
    from medmargin.learning import Optimisation
    from medmargin.learning.engine import Precision
    from medmargin.networks.unet import UNet
    from medmargin.transforms import VolumeAugmentation


@dataclass(frozen=True)
class PatchTraining:
    """How a network learns from patches; the arguments of the systems by the same names.

    Attributes:
        evidence: kind of evidence, None for a softmax; of no account where structures overlap. kl_weight, kl_ramp: of
            the evidential loss.
        batch_dice: overlap of the whole batch instead of each sample's; "auto": for slices, and beside a cascade.
        batch_size: patches per step; "auto": the plan's.
        foreground_share: share of a batch that surely shows a structure.
        optimiser, lr, weight_decay, warmup_steps, clip_norm, average_decay: see `Optimisation`.
        steps_per_epoch, epochs: length without a budget. augmentation: a preset. precision: of the arithmetic.
        mirrors: average over all mirrors when predicting.
    """

    evidence: str | None
    kl_weight: float
    kl_ramp: float
    batch_dice: bool | Literal["auto"]
    batch_size: int | Literal["auto"]
    foreground_share: float
    optimiser: Literal["sgd", "adamw"]
    lr: float
    weight_decay: float
    warmup_steps: int
    clip_norm: float
    average_decay: float | None
    steps_per_epoch: int
    epochs: int
    augmentation: Literal["nnunet", "light", "none"]
    precision: Precision
    mirrors: bool


def planned(task: Task, system: str, name: str) -> tuple[Plan, Configuration]:
    """Look up what a task's plan says about a configuration; "auto" is the chosen one.

    Raises:
        ConfigError: the task has no plan, or the plan has no such configuration.
    """
    if task.plan is None:
        raise ConfigError(f"'{system}' follows a plan, and task '{task.name}' has none: train it on a data set")
    found = task.plan.configuration(None if name == "auto" else name)
    if found.previous is not None:
        raise ConfigError(
            f"'{system}' does not train cascades yet: configuration '{found.name}' also sees the answer of "
            f"'{found.previous}'. Choose configuration={found.previous} or 3d_fullres"
        )
    return task.plan, found


def outputs(task: Task) -> int:
    """Count the maps a network answers with: classes with the background, or regions."""
    return len(task.structures) if task.regions else task.num_classes


def supervised(
    task: Task, network: UNet, plan: Plan, configuration: Configuration, ways: PatchTraining, *, init: str = "none"
) -> System:
    """Compose the system of a network.

    Args:
        network: as `networks.unet.UNet`, of this configuration. ways: how it learns. init: where its weights come from.

    Raises:
        ConfigError: mirrors in prediction without mirrors in training.
    """
    if ways.mirrors and ways.augmentation != "nnunet":
        raise ConfigError(
            f"mirrors=true with augmentation={ways.augmentation}: a network that was never shown mirrored images takes "
            "front for back. Leave the mirrors out, or train with augmentation=nnunet"
        )
    regions = tuple(task.members[name] for name in task.structures) if task.regions else ()
    evidence = None if regions else ways.evidence
    batch_size = configuration.batch_size if ways.batch_size == "auto" else ways.batch_size
    has_cascade = any(other.previous is not None for other in plan.configurations)
    batch_dice = (configuration.dims == 2 or has_cascade) if ways.batch_dice == "auto" else ways.batch_dice

    network.channels_last()

    def learn() -> Stage:
        from medmargin.learning import LabelledPatches, SegmentationLearner, step_bytes, wants_gpu
        from medmargin.losses.dense import DenseLoss

        loss = DenseLoss(
            kind="regions" if regions else "softmax" if evidence is None else "evidential",
            regions=regions, evidence=evidence or "exp", batch_dice=batch_dice, kl_weight=ways.kl_weight,
            kl_ramp=ways.kl_ramp,
        )  # fmt: skip
        stream = partial(
            LabelledPatches, patch=configuration.patch, augmentation=_augmentation(ways.augmentation, configuration),
            batch_size=batch_size, foreground_share=ways.foreground_share, steps_per_epoch=ways.steps_per_epoch,
        )  # fmt: skip
        learner = SegmentationLearner(network, loss, _optimisation(ways))
        return Stage(
            "train", learner, stream, batch_size, ways.epochs, ways.precision, cases="volumes", keep="last",
            validation_items=32,
            step_bytes=step_bytes(
                network, configuration.patch, batch_size, ways.precision, on_card=wants_gpu("auto")
            ),
        )  # fmt: skip

    def predictor() -> Any:
        from medmargin.inference import VolumePredictor
        from medmargin.uncertainty.estimators import Evidential, Softmax, VolumeMirrors

        single = Softmax() if evidence is None else Evidential()
        axes = tuple(range(configuration.dims)) if ways.augmentation == "nnunet" else ()
        return VolumePredictor(
            network,
            structures=tuple(task.structures),
            plan=plan,
            configuration=configuration,
            uncertainty=VolumeMirrors(axes) if ways.mirrors else single,
            regions=task.members if task.regions else None,
            mirror_axes=axes,
        )

    return System(network=network, stages=(learn,), predictor=predictor, init=init)


def _augmentation(preset: str, configuration: Configuration) -> VolumeAugmentation:
    from medmargin.transforms import LIGHT, NNUNET, VolumeAugmentation

    chosen = {"nnunet": NNUNET, "light": LIGHT, "none": VolumeAugmentation()}[preset]
    return chosen.for_patch(configuration.patch, in_plane_only=configuration.turns_in_plane_only)


def _optimisation(ways: PatchTraining) -> Optimisation:
    from torch.optim import SGD, AdamW

    from medmargin.learning import Optimisation
    from medmargin.optim.schedules import cosine_with_warmup, polynomial_with_warmup

    build: Callable[..., Any] = AdamW
    schedule = partial(cosine_with_warmup, warmup_steps=ways.warmup_steps)
    if ways.optimiser == "sgd":
        build = partial(SGD, momentum=0.99, nesterov=True)
        schedule = partial(polynomial_with_warmup, warmup_steps=ways.warmup_steps)
    return Optimisation(
        lr=ways.lr, weight_decay=ways.weight_decay, schedule=schedule, clip_norm=ways.clip_norm,
        average_decay=ways.average_decay, decay_vectors=ways.optimiser == "sgd", optimiser=build,
    )  # fmt: skip
