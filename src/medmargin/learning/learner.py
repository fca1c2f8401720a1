"""`Learner`: the training step every learner with one loss and one optimiser shares.

A step runs forward and backward on the parts of one batch (gradient accumulation), a second time at perturbed weights
where sharpness is minimised, clips, steps, and averages the weights. Optimisation is manual because of the second pass.
Learners that alternate several optimisers write their own `training_step`; the rest of the room does not care.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from medmargin.adapters.lora import FACTORS
from medmargin.errors import ConfigError
from medmargin.learning.batches import split
from medmargin.learning.pacing import Schedule
from medmargin.losses.weighting import LossReport
from medmargin.optim.parameter_groups import parameter_groups
from medmargin.optim.schedules import constant
from medmargin.optim.sharp_min import SharpMin


@dataclass(frozen=True)
class Optimisation:
    """How weights move.

    Attributes:
        lr: learning rate of the network. weight_decay: of its weights.
        schedule: factor on the learning rate at a step, e.g. `partial(cosine_with_warmup, warmup_steps=20)`.
        rho: radius of SharpMin in units of the weights; 0 is the plain optimiser. adaptive: its scale-free variant.
        perturbs_loss: SharpMin moves the learned loss weights too.
        loss_lr_factor: learned loss weights learn this many times faster than the network.
        adapter_lr_factor: low-rank factors (`adapters.lora`) learn this many times faster than the rest of the network.
        decay_vectors: biases and norms decay as well, as in LiteMedSAM's scripts.
        clip_norm: largest norm of the gradient; None leaves it.
        accumulate: parts a batch is cut into to save memory; batch normalisation sees one part at a time.
        average_decay: decay of the moving average of the weights that is validated and kept; None keeps the weights
            themselves. The first updates weigh all steps alike: decay min(1 - 1 / (n + 1), average_decay).
        optimiser: builds the optimiser from parameter groups.

    Raises:
        ConfigError: a number out of range.
    """

    lr: float
    weight_decay: float = 0.01
    schedule: Schedule = constant
    rho: float = 0.0
    adaptive: bool = False
    perturbs_loss: bool = True
    loss_lr_factor: float = 100.0
    adapter_lr_factor: float = 1.0
    decay_vectors: bool = False
    clip_norm: float | None = None
    accumulate: int = 1
    average_decay: float | None = None
    optimiser: Callable[[Any], Optimizer] = AdamW

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.weight_decay < 0 or self.accumulate < 1:
            raise ConfigError(
                f"lr {self.lr}, weight_decay {self.weight_decay}, accumulate {self.accumulate}: "
                "expected lr > 0, weight_decay >= 0, accumulate >= 1."
            )
        if self.adapter_lr_factor <= 0:
            raise ConfigError(f"adapter_lr_factor is {self.adapter_lr_factor}: expected more than 0.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError(f"clip_norm is {self.clip_norm}: expected more than 0, or none.")
        if self.average_decay is not None and not 0 < self.average_decay < 1:
            raise ConfigError(f"average_decay is {self.average_decay}: expected between 0 and 1, or none.")


class Learner(LightningModule):
    """A network, its loss and the way they are optimised. Subclasses say what is compared with what.

    Args:
        network: what is trained and kept. loss: a module, for it may have weights of its own.
        optimisation: how weights move.

    Attributes:
        monitor: the validation score that tells which weights are best; better is "max" or "min" (`monitor_mode`).
        progress: how much of the training lies behind, in [0, 1]; `Pacer` sets it before every step.
        is_perturbed: the pass at hand is SharpMin's second one, at perturbed weights; statistics leave it out.
    """

    monitor: ClassVar[str]
    monitor_mode: ClassVar[Literal["max", "min"]]

    def __init__(self, network: nn.Module, loss: nn.Module, optimisation: Optimisation) -> None:
        super().__init__()
        self.progress = 0.0
        self.is_perturbed = False
        self.automatic_optimization = False
        self.network = network
        self.loss = loss
        self.optimisation = optimisation
        self.averaged = None if optimisation.average_decay is None else _averaged(network, optimisation.average_decay)

    @abstractmethod
    def objective(self, batch: Any) -> LossReport:
        """Run the network on a batch (or a part of one) and compare."""

    @property
    def best_network(self) -> nn.Module:
        """The weights to validate and keep: the averaged ones where there are some."""
        return self.network if self.averaged is None else self.averaged.module

    def configure_optimizers(self) -> Optimizer:
        ways = self.optimisation
        groups = parameter_groups(
            self.network,
            lr=ways.lr,
            weight_decay=ways.weight_decay,
            loss=self.loss,
            loss_lr_factor=ways.loss_lr_factor,
            fast=None if ways.adapter_lr_factor == 1 else _is_low_rank_factor,
            fast_lr_factor=ways.adapter_lr_factor,
            decay_vectors=ways.decay_vectors,
        )
        return ways.optimiser(groups)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Take one optimiser step; return {"loss": [], "scalars": name -> number} for the log.

        Raises:
            ConfigError: the loss is not finite, from which no step leads back.
        """
        optimizer = cast(Optimizer, self.optimizers())  # Lightning's wrapper, which counts the steps
        ways = self.optimisation
        passes: list[LossReport] = []
        parts = split(batch, ways.accumulate)

        def closure() -> None:
            self.is_perturbed = bool(passes)
            passes.append(self._accumulated(parts))

        exclude = () if ways.perturbs_loss else tuple(self.loss.parameters())
        SharpMin(
            optimizer, rho=ways.rho, adaptive=ways.adaptive, network=self.network, exclude=exclude
        ).gradients(closure)
        report = passes[0]
        if not torch.isfinite(report.total):
            raise ConfigError(
                f"the loss is {float(report.total)} at step {self.trainer.global_step}: the training diverged. "
                "Choose a smaller learning rate or clip the gradient."
            )
        norm = self._clipped(optimizer)
        optimizer.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        scalars = {**report.scalars(), "lr": optimizer.param_groups[0]["lr"], "gradient_norm": norm}
        if len(passes) > 1:
            scalars["sharpness"] = passes[1].total - report.total  # L(w + e) - L(w)
        return {"loss": report.total, "scalars": scalars}

    def _clipped(self, optimizer: Optimizer) -> Tensor:
        """Clip the gradient and return its norm before; the scale that float16 training puts on it cancels."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        limit = float("inf") if self.optimisation.clip_norm is None else self.optimisation.clip_norm
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        return nn.utils.clip_grad_norm_(weights, limit * scale) / scale

    def _accumulated(self, parts: Sequence[Any]) -> LossReport:
        """Add up the gradients of the mean loss over the parts."""
        total = sum(len(part[0]) for part in parts)
        reports = []
        for part in parts:
            share = len(part[0]) / total
            report = self.objective(part)
            self.manual_backward(report.total * share)
            reports.append((share, report))
        return LossReport(
            total=sum((share * report.total.detach() for share, report in reports), start=torch.zeros(())),
            terms=_mean([(share, report.terms) for share, report in reports]),
            weights=reports[0][1].weights,
        )


def _is_low_rank_factor(name: str) -> bool:
    return name.rpartition(".")[2] in FACTORS


def _mean(parts: Sequence[tuple[float, dict[str, Tensor]]]) -> dict[str, Tensor]:
    return {name: torch.stack([share * values[name] for share, values in parts]).sum() for name in parts[0][1]}


def _averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Copy a network whose weights and buffers follow `network`; the copy takes no gradient."""
    averaged = AveragedModel(network, multi_avg_fn=partial(_move_average, decay=decay), use_buffers=True)
    return averaged.requires_grad_(False).eval()


@torch.no_grad()
def _move_average(averaged: Any, current: Any, count: Tensor, *, decay: float) -> None:
    """Equation: a <- a + (1 - d) (w - a), d = min(1 - 1 / (n + 1), decay), n updates so far; counters are copied.

    So is what is not finite: a statistic that starts as NaN (nothing observed yet) would keep its average at NaN.
    """
    share = 1 - min(1 - 1 / (int(count) + 1), decay)
    for average, value in zip(averaged, current, strict=True):
        if average.is_floating_point():
            value = value.to(average)
            moved = average.lerp(value, share)
            average.copy_(torch.where(moved.isfinite(), moved, value))
        else:
            average.copy_(value)
