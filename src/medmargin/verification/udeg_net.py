"""UDEG-Net: the released losses and LoRA it stands on, and the formulas this toolkit adds.

`tbrats.*`, `devis.*` and `lora.*` are numbers of the authors' code (metadata `source` of the file); `design.*` are
those of the evidential head, the edge targets and the progressive weights, for which nothing is released.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from medmargin.adapters.lora import add_lora, load_lora
from medmargin.errors import CheckpointError
from medmargin.losses import evidential_published as published
from medmargin.losses.edge_targets import edge_balance, edge_distance, edge_proximity, label_edges, pooled
from medmargin.losses.evidential import (
    evidential_cross_entropy,
    foreground_dice,
    kl_factor,
    kl_to_uniform,
    uncertainty_calibration,
)
from medmargin.losses.progressive import SCHEDULES, exponential, progressive_weights
from medmargin.networks.evidence import opinion
from medmargin.networks.sam_vit import SamAttention
from medmargin.verification.reference import Reference

TOLERANCE = 1e-5
_SPECIAL_FUNCTIONS = ("tbrats.", "devis.", "design.ace_map", "design.kl_map", "design.progressive_loss")
_SPECIAL_TOLERANCE = 1e-4  # ln Gamma and digamma differ in their last digits between libraries
_SCHEDULE_STEPS = (0, 10, 25, 50, 75, 90, 100)  # of the schedules' numbers, where the file does not tell others
_STEP_TOLERANCE = 5e-3  # larger differences of t / T are no rounding: the file has other steps
_DEFAULT_STEP = 7  # of the squared error, whose name does not tell its epoch


def tolerance_of(name: str) -> float:
    """Tolerance of an output: those made with ln Gamma and digamma have their own."""
    return _SPECIAL_TOLERANCE if name.startswith(_SPECIAL_FUNCTIONS) else TOLERANCE


@torch.inference_mode()
def recompute(reference: Reference) -> dict[str, Tensor]:
    """Recompute losses, adapted attention and design formulas from the inputs and the config.

    Raises:
        CheckpointError: the config does not tell a number that an output needs.
    """
    parts: dict[str, Callable[[Reference], dict[str, Tensor]]] = {
        "tbrats": _tbrats,
        "devis": _devis,
        "lora": _lora,
        "design": _design,
    }
    present = {name.partition(".")[0] for name in reference.outputs}
    return {
        f"{part}.{name}": value
        for part, outputs_of in parts.items()
        if part in present
        for name, value in outputs_of(reference).items()
    }


def _tbrats(reference: Reference) -> dict[str, Tensor]:
    labels = reference.inputs["label"]
    alpha = opinion(reference.inputs["logits"]).alpha
    kl_steps = _number(reference, "tbrats", "annealing_step")
    cross_entropy, divergence = evidential_cross_entropy(alpha, labels), kl_to_uniform(alpha, labels)

    def pixels(step: float) -> Tensor:
        return (cross_entropy + kl_factor(step / kl_steps, 1.0) * divergence).flatten()

    totals = _steps(reference, r"tbrats\.total_mean\.step(\d+)")
    squared_error_step = totals[0] if totals else _DEFAULT_STEP  # the two were made at the same epoch
    factor = kl_factor(squared_error_step / kl_steps, 1.0)
    return {
        "kl": divergence.flatten(),
        "mse": (published.evidential_squared_error(alpha, labels) + factor * divergence).flatten(),
        "softmax_dice_on_alpha": published.concentration_dice(alpha, labels),
        **{f"ce_kl.step{step}": pixels(step) for step in _steps(reference, r"tbrats\.ce_kl\.step(\d+)")},
        **{
            f"ce_kl.mean.step{step}": pixels(step).mean()
            for step in _steps(reference, r"tbrats\.ce_kl\.mean\.step(\d+)")
        },
        **{
            f"total_mean.step{step}": published.tbrats_loss(alpha, labels, step=step, kl_steps=kl_steps)
            for step in totals
        },
    }


def _devis(reference: Reference) -> dict[str, Tensor]:
    labels = reference.inputs["label"]
    evidence = opinion(reference.inputs["logits"]).evidence
    outputs = {
        "focal_like_dice_on_evidence": published.balanced_tversky(evidence, labels),
        "log_dice_on_evidence": published.log_dice(evidence, labels),
    }
    numbers = {
        "kl_steps": _number(reference, "devis", "lamda_step"),
        "steps": _number(reference, "devis", "total_step"),
        "eps": _number(reference, "devis", "eps"),
    }
    for form in ("u_loss_mean", "u_loss_disentangle_mean"):
        for step in _steps(reference, rf"devis\.{form}\.step(\d+)"):
            outputs[f"{form}.step{step}"] = published.devis_loss(
                evidence, labels, step=step, disentangled="disentangle" in form, **numbers
            )
    return outputs


def _lora(reference: Reference) -> dict[str, Tensor]:
    """Run one attention over the whole grid without and with the factors of the file."""
    tokens = reference.inputs["tokens"]  # [B, G, G, C]
    attention = SamAttention(tokens.shape[-1], int(reference.inputs["attn_heads"]), tokens.shape[1])
    attention.load_state_dict(_with_prefix(reference.inputs, "attn."))
    outputs = {"base": attention(tokens)}
    factors = _with_prefix(reference.inputs, "lora.")
    rank = len(reference.inputs["lora.a_q"])
    add_lora(attention, rank=rank, alpha=reference.config["lora"]["scale"] * rank)
    load_lora(attention, {f"qkv.{name}": factor for name, factor in factors.items()})
    return {**outputs, "qkv": attention.qkv(tokens), "out": attention(tokens)}


def _design(reference: Reference) -> dict[str, Tensor]:
    labels, design = reference.inputs["label2d"], reference.config["design"]
    belief = opinion(reference.inputs["logits2d"])
    edges = label_edges(labels)
    distance = edge_distance(edges)
    rows, columns = labels.shape[-2] // 4, labels.shape[-1] // 4
    outputs = {
        "evidence": belief.evidence,
        "alpha": belief.alpha,
        "strength": belief.strength[:, 0],
        "belief": belief.belief,
        "uncertainty": belief.uncertainty[:, 0],
        "prob": belief.probability,
        "edge_gt": edges.float(),
        "edge_distance": distance,
        "edge_band": edge_proximity(distance, design["sigma_px"]),
        "edge_gt_quarter": pooled(edges[:, : 4 * rows, : 4 * columns].float(), (rows, columns)),
        "edge_balance": edge_balance(edges.float(), largest=design["edge_clip"]),
        "ace_map": evidential_cross_entropy(belief.alpha, labels),
        "kl_map": kl_to_uniform(belief.alpha, labels),
        "evidential_dice_loss": foreground_dice(belief.probability, labels),
    }
    return {**outputs, **_over_time(reference, belief.evidence, belief.uncertainty[:, 0], outputs)}


def _over_time(
    reference: Reference, evidence: Tensor, uncertainty: Tensor, maps: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return what depends on the step t of T: schedules, and weights and losses with the schedule "exp"."""
    design = reference.config["design"]
    schedules = {**SCHEDULES, "exp": lambda progress: exponential(progress, start=design["rho0"])}
    progresses = _schedule_progress(reference, design["T"])
    outputs = {
        f"rho.{name}": torch.tensor([schedule(progress) for progress in progresses])
        for name, schedule in schedules.items()
    }
    for t in _steps(reference, r"design\.(?:weight|progressive_loss)\.t(\d+)"):
        progress = t / design["T"]
        rho = schedules["exp"](progress)
        weights = progressive_weights(uncertainty, maps["edge_band"], rho, beta=design["beta"], eta=design["eta"])
        pixels = maps["ace_map"] + kl_factor(progress, design["kl_ramp_fraction"]) * maps["kl_map"]
        outputs[f"weight.t{t}"] = weights
        outputs[f"progressive_loss.t{t}"] = (weights * pixels).mean()
    for t in _steps(reference, r"design\.calibration_loss\.t(\d+)"):
        rho, eps = schedules["exp"](t / design["T"]), _number(reference, "devis", "eps")
        outputs[f"calibration_loss.t{t}"] = uncertainty_calibration(
            evidence, reference.inputs["label2d"], rho, eps=eps
        ).mean()
    return outputs


def _schedule_progress(reference: Reference, total: float) -> list[float]:
    """Return t / T of the schedules' numbers: those of `_SCHEDULE_STEPS`, counted in steps or in percent of T.

    The names of the outputs do not tell t, but `rho.linear` is t / T itself. Where it says clearly other steps, the
    other schedules are recomputed at those.
    """
    counted = [t / total for t in _SCHEDULE_STEPS]
    if "design.rho.linear" not in reference.outputs:
        return counted
    told = reference.outputs["design.rho.linear"].double().tolist()
    for known in (counted, [t / _SCHEDULE_STEPS[-1] for t in _SCHEDULE_STEPS]):
        if len(told) == len(known) and all(abs(a - b) < _STEP_TOLERANCE for a, b in zip(told, known, strict=True)):
            return known
    return told


def _steps(reference: Reference, pattern: str) -> list[int]:
    """Return the steps in the names of the outputs that match, ascending."""
    return sorted({int(match[1]) for name in reference.outputs if (match := re.fullmatch(pattern, name))})


def _with_prefix(inputs: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in inputs.items() if name.startswith(prefix)}


def _number(reference: Reference, entry: str, name: str) -> float:
    """Read "... name 50, ..." (or "name=50") from a text of the config."""
    found = re.search(rf"\b{name}\s*[ =:]\s*([-+]?[.\d]+(?:[eE][-+]?\d+)?)", str(reference.config[entry]))
    if found is None:
        raise CheckpointError(f"{reference.path}: '{entry}' of its config does not tell '{name} <number>'")
    return float(found[1])
