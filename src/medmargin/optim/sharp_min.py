"""SharpMin: sharpness-aware minimisation around any torch optimiser.

Foret et al. 2021, arXiv:2010.01412 (algorithm 1), as U-MedSAM uses it (arXiv:2408.08881). The name avoids "SAM", which
here means the segment-anything model.

SharpMin is no optimiser but a way to compute gradients: after `gradients(closure)` every `.grad` holds the gradient at
the perturbed weights while the weights are back where they were. Schedulers, gradient scalers, clipping, loggers and
Lightning keep working on the base optimiser, which takes the step and holds all state. In Lightning use manual
optimisation: automatic optimisation would run the whole training step, with its logging and random prompts, twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from medmargin.errors import ConfigError
from medmargin.optim.perturbation import ascent, displaced
from medmargin.optim.running_statistics import frozen_batch_norm_statistics

Result = TypeVar("Result")


class SharpMin:
    """Give a base optimiser gradients that lead to flat minima; every step costs two forward and backward passes.

    With several processes let both passes synchronise their gradients (as data-parallel modules do by themselves):
    the perturbation must be the same everywhere. Parameters sharded over processes are not supported.

    Args:
        base: the optimiser that steps; its parameter groups say what is perturbed (Lightning's wrapper will do).
        rho: radius of the neighbourhood whose worst loss is lowered. 0 is the base optimiser bit for bit: the second
            pass is left out, since it could only repeat the first and use up random numbers.
        adaptive: scale-invariant variant (Kwon et al. 2021); takes a rho about ten times larger.
        network: its batch-norm statistics are updated in the first pass only. None: in both.
        exclude: parameters that are neither perturbed nor counted in the gradient norm, e.g. learned loss weights.

    Raises:
        ConfigError: rho is negative or not finite.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        *,
        rho: float = 0.05,
        adaptive: bool = False,
        network: nn.Module | None = None,
        exclude: Iterable[Tensor] = (),
    ) -> None:
        if not 0 <= rho < float("inf"):
            raise ConfigError(f"rho is {rho}: expected a finite number >= 0.")
        self.base = base
        self.rho = rho
        self.adaptive = adaptive
        self.network = network
        self._excluded = {id(parameter) for parameter in exclude}

    def gradients(self, closure: Callable[[], Result]) -> Result:
        """Leave the sharpness-aware gradient in every `.grad` and return what the closure said at the true weights.

        Args:
            closure: runs forward and backward on one batch without clearing gradients, and returns anything (the loss,
                a report). To accumulate gradients it runs all micro-batches of the group, each loss divided by their
                number. Called twice; clip only afterwards.
        """
        self.base.zero_grad()
        first = closure()
        if self.rho > 0:
            with self.perturbed():
                self.base.zero_grad()
                closure()
        return first

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """Move the weights uphill along their `.grad`, hold batch-norm statistics, and restore everything exactly.

        A gradient that is not finite (overflow in half precision) moves nothing: the second pass then overflows too,
        and the gradient scaler skips the step as it always does.
        """
        weights = [
            parameter
            for group in self.base.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and id(parameter) not in self._excluded
        ]
        offsets = ascent(weights, [weight.grad for weight in weights], rho=self.rho, adaptive=self.adaptive)
        frozen = nullcontext() if self.network is None else frozen_batch_norm_statistics(self.network)
        with displaced(weights, offsets), frozen:
            yield

    def step(
        self,
        closure: Callable[[], Result],
        *,
        clip_norm: float | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Result:
        """Take one step of a plain training loop and return what the closure said at the true weights.

        Args:
            closure: as in `gradients`; with a scaler it calls backward on `scaler.scale(loss)`.
            clip_norm: largest norm of the sharpness-aware gradient over all parameters; None leaves it.
            scaler: gradient scaler of float16 training; gradients are unscaled once, after the second pass.
        """
        first = self.gradients(closure)
        if scaler is not None:
            scaler.unscale_(self.base)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_([p for group in self.base.param_groups for p in group["params"]], clip_norm)
        if scaler is None:
            self.base.step()
        else:
            scaler.step(self.base)
            scaler.update()
        return first

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the base optimiser: nothing of SharpMin outlives a step."""
        return self.base.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the base optimiser; a checkpoint of the bare base optimiser fits too."""
        self.base.load_state_dict(state)
