"""Learning-rate schedules as pure functions of the step: a resumed run continues exactly where it stopped."""

from __future__ import annotations

import math

from medmargin.errors import ConfigError


def constant(step: int, *, total_steps: int) -> float:
    """Return 1: the learning rate stays as it is. Arguments as in `cosine_with_warmup`."""
    return 1.0


def cosine_with_warmup(step: int, *, total_steps: int, warmup_steps: int = 0, floor: float = 0.0) -> float:
    """Return the factor on the base learning rate at a step, in [floor, 1].

    Use it in `torch.optim.lr_scheduler.LambdaLR`. It rises in a line over the warm-up (never 0, so that no step is
    lost), then falls as half a cosine and stays at the floor after the last step. Loshchilov & Hutter 2017,
    arXiv:1608.03983.

    Args:
        step: optimiser steps already taken, from 0.
        total_steps: steps of the whole run, warm-up included.
        warmup_steps: steps of the rise, at most half of the run; the first step without it has factor 1.
        floor: factor at the end.

    Raises:
        ConfigError: a run without steps, a negative warm-up, or a floor outside [0, 1].
    """
    warmup_steps = _fitting(warmup_steps, total_steps)
    if not 0 <= floor <= 1:
        raise ConfigError(f"floor is {floor}: expected a factor between 0 and 1.")
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def polynomial_with_warmup(step: int, *, total_steps: int, warmup_steps: int = 0, power: float = 0.9) -> float:
    """Return the factor on the base learning rate at a step, in [0, 1]: a line, then a falling power.

    SAMed's schedule (Zhang & Liu 2023, arXiv:2304.13785, and its released code): (t + 1) / w in the warm-up of w steps,
    then (1 - (t - w) / T) ** power. It falls over T steps from the end of the warm-up, so that the last step of T, like
    theirs, still has a rate: about (w / T) ** power.

    Args:
        step, total_steps, warmup_steps: t, T and w, as in `cosine_with_warmup`.
        power: 1 falls in a line.

    Raises:
        ConfigError: a run without steps, a negative warm-up, or a power that is not positive.
    """
    warmup_steps = _fitting(warmup_steps, total_steps)
    if power <= 0:
        raise ConfigError(f"power is {power}: expected more than 0.")
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return max(0.0, 1 - (step - warmup_steps) / total_steps) ** power


def _fitting(warmup_steps: int, total_steps: int) -> int:
    """Cut a warm-up to half of the run."""
    if warmup_steps < 0 or total_steps < 1:
        raise ConfigError(f"warmup_steps is {warmup_steps} of {total_steps}: expected 0 or more, of at least one step.")
    return min(warmup_steps, total_steps // 2)
