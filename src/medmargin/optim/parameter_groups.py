"""Which weights decay, which do not, and which learn at their own rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def parameter_groups(
    network: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    loss: nn.Module | None = None,
    loss_lr_factor: float = 100.0,
    decay_vectors: bool = False,
    fast: Callable[[str], bool] | None = None,
    fast_lr_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Return the groups to build a torch optimiser from; frozen parameters and empty groups are left out.

    Args:
        network: its matrices and kernels decay (group "decay"); biases, norms and other vectors do not ("no_decay").
        lr: learning rate of the network.
        weight_decay: strength of the decay.
        loss: a loss with parameters, such as learned weights; they never decay (group "loss").
        loss_lr_factor: the loss parameters learn this many times faster: at the rates of fine-tuning (5e-5) they
            would barely move within ten thousand steps.
        decay_vectors: vectors decay as well, as in the released training scripts of LiteMedSAM.
        fast: tells by its name whether a parameter of the network learns `fast_lr_factor` times faster ("fast_decay",
            "fast_no_decay"), such as low-rank factors beside weights that are pre-trained; None: none does.
    """
    chosen: dict[str, list[nn.Parameter]] = {"decay": [], "no_decay": [], "fast_decay": [], "fast_no_decay": []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            speed = "fast_" if fast is not None and fast(name) else ""
            chosen[speed + ("decay" if parameter.ndim > 1 or decay_vectors else "no_decay")].append(parameter)
    learned_loss = [parameter for parameter in loss.parameters() if parameter.requires_grad] if loss else []
    groups = [
        {"name": "decay", "params": chosen["decay"], "lr": lr, "weight_decay": weight_decay},
        {"name": "no_decay", "params": chosen["no_decay"], "lr": lr, "weight_decay": 0.0},
        {"name": "fast_decay", "params": chosen["fast_decay"], "lr": lr * fast_lr_factor, "weight_decay": weight_decay},
        {"name": "fast_no_decay", "params": chosen["fast_no_decay"], "lr": lr * fast_lr_factor, "weight_decay": 0.0},
        {"name": "loss", "params": learned_loss, "lr": lr * loss_lr_factor, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
