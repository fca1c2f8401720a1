"""U-MedSAM: its loss terms, their learned weighting, and trajectories of sharpness-aware minimisation.

The reference numbers come from the authors' sister work and the code they build on (metadata `source` of the file).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.errors import CheckpointError
from medmargin.losses.distance_maps import penalty_weights, signed_distance, unsigned_distance
from medmargin.losses.distribution import binary_cross_entropy
from medmargin.losses.hausdorff import hausdorff_distance_transform, hausdorff_erosion
from medmargin.losses.pixel import probability_mse
from medmargin.losses.region import dice_loss
from medmargin.losses.shape_distance import boundary_loss, distance_dice, penalised_cross_entropy
from medmargin.losses.uncertainty_weighting import UncertaintyWeighted, optimal_squared_uncertainty
from medmargin.optim.running_statistics import frozen_batch_norm_statistics
from medmargin.optim.sharp_min import SharpMin
from medmargin.verification.reference import Reference
from medmargin.verification.threads import one_thread

TOLERANCE = 1e-5


def recompute(reference: Reference) -> dict[str, Tensor]:
    """Recompute maps, losses, weighting and trajectories from the inputs and the `awl` and `sam` entries of the config.

    Raises:
        CheckpointError: the config names a loss or an optimiser that is not known.
    """
    outputs = {**_maps_and_losses(reference), **_weighting(reference)}
    # the toy network's first bias has a true gradient of 0: AdamW turns the rounding noise of its sum into whole steps
    with one_thread():
        for case, settings in reference.config["sam"].items():
            outputs.update({f"sam.{case}.{name}": value for name, value in _trajectory(reference, settings).items()})
    return outputs


def _maps_and_losses(reference: Reference) -> dict[str, Tensor]:
    logits, target = reference.inputs["logits"], reference.inputs["target"]
    weights, signed, unsigned = (_maps(make, target) for make in (penalty_weights, signed_distance, unsigned_distance))
    return {
        "dist_weight_map": weights[:, 0],
        "signed_distance_map": signed[:, 0],
        "hd_edt_sum_map": unsigned[:, 0],
        "mse_prob": probability_mse(logits, target),
        "dice_monai_sigmoid_squared": dice_loss(logits, target),
        "bce_logits": binary_cross_entropy(logits, target),
        "dpce_weighted_mean": penalised_cross_entropy(logits, target, weights),
        "boundary_loss": boundary_loss(logits, target, signed),
        "dist_dice_loss": distance_dice(logits, target, weights),
        "hausdorff_dt_loss_prob": hausdorff_distance_transform(logits, target, unsigned),
        "hausdorff_er_loss_shifted": hausdorff_erosion(reference.inputs["shifted_pred"].logit(), target),
    }


def _weighting(reference: Reference) -> dict[str, Tensor]:
    logits, target = reference.inputs["logits"].clone().requires_grad_(), reference.inputs["target"]
    terms = {name: loss(logits, target) for name, loss in _weighted_terms(reference).items()}
    learned, initial = UncertaintyWeighted(tuple(terms)), UncertaintyWeighted(tuple(terms))
    with torch.no_grad():
        learned.uncertainty.copy_(reference.inputs["awl_params"])
    total = learned(terms).total
    grad_logits, grad_uncertainty = torch.autograd.grad(total, (logits, learned.uncertainty), retain_graph=True)
    return {
        "awl_total": total,
        "awl_total_init_ones": initial(terms).total,
        "awl_grad_logits": grad_logits,
        "awl_grad_params": grad_uncertainty,
        "awl_optimal_p2": optimal_squared_uncertainty(torch.stack(list(terms.values()))),
    }


def _weighted_terms(reference: Reference) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return the weighted losses in the order the config tells: "... in order MSE(prob), Dice(...), BCE, ..."."""
    known = {
        "mse": probability_mse,
        "dice": dice_loss,
        "bce": binary_cross_entropy,
        "distance-penalised": lambda z, y: penalised_cross_entropy(z, y, _maps(penalty_weights, y)),
    }
    listed = str(reference.config["awl"]).lower().partition("in order ")[2].split(", ")
    found = [name for entry in listed for name in known if entry.startswith(name)]
    number = len(reference.inputs["awl_params"])
    if len(found) != len(listed) or len(found) != number:
        raise CheckpointError(
            f"{reference.path}: 'awl' of its config lists the losses {listed}: expected {number} names (one for each "
            f"of awl_params), each starting with one of {', '.join(known)}."
        )
    return {name: known[name] for name in found}


def _maps(make: Callable[[NDArray[Any]], NDArray[np.float32]], target: Tensor) -> Tensor:
    return torch.from_numpy(np.stack([make(mask[0]) for mask in target.numpy() > 0.5])[:, None])


def _trajectory(reference: Reference, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Return losses and states of one minibatch per step; the released code counts batches in both passes."""
    options = dict(settings)
    name, rho, adaptive = options.pop("base"), options.pop("rho"), options.pop("adaptive")
    is_frozen = options.pop("bn_running_stats_bypassed_in_second_pass")
    optimiser = getattr(torch.optim, str(name), None)
    if not (isinstance(optimiser, type) and issubclass(optimiser, torch.optim.Optimizer)):
        raise CheckpointError(f"{reference.path}: its config names the optimiser '{name}', which torch.optim lacks.")
    network = _toy_network(reference)
    sharp = SharpMin(optimiser(network.parameters(), **options), rho=rho, adaptive=adaptive)
    outputs: dict[str, Tensor] = {}
    for index, (x, y) in enumerate(zip(reference.inputs["x"], reference.inputs["y"], strict=True)):
        sharp.base.zero_grad()
        outputs[f"loss{index}"] = _backward(network, x, y)
        with (
            sharp.perturbed(),
            frozen_batch_norm_statistics(network, count_batches=True) if is_frozen else nullcontext(),
        ):
            if index == 0:
                outputs.update(_snapshot(network, "perturbed_after_first_step"))
            sharp.base.zero_grad()
            outputs[f"loss_at_perturbed{index}"] = _backward(network, x, y)
        sharp.base.step()
        outputs.update(_snapshot(network, f"step{index + 1}"))
    return outputs


def _toy_network(reference: Reference) -> nn.Module:
    """Build Conv - BatchNorm - GELU - Conv of the widths in the file and load its weights strictly."""
    prefix = "net."
    state = {name.removeprefix(prefix): value for name, value in reference.inputs.items() if name.startswith(prefix)}
    network = nn.Sequential()
    network.add_module("c1", _same_convolution(reference.inputs["net.c1.weight"]))
    network.add_module("bn", nn.BatchNorm2d(len(reference.inputs["net.c1.weight"])))
    network.add_module("gelu", nn.GELU())
    network.add_module("c2", _same_convolution(reference.inputs["net.c2.weight"]))
    network.load_state_dict(state)
    return network.train()


def _same_convolution(weight: Tensor) -> nn.Conv2d:
    out_channels, in_channels, size, _ = weight.shape
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2)


def _backward(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    loss = F.binary_cross_entropy_with_logits(network(x), y)
    loss.backward()
    return loss.detach()


def _snapshot(network: nn.Module, name: str) -> dict[str, Tensor]:
    return {f"{name}.{key}": value.clone() for key, value in network.state_dict().items()}
