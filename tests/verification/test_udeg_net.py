"""The reference numbers of UDEG-Net, files of other sizes with numbers made here again, and files that must fail."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.ndimage import distance_transform_edt, generate_binary_structure, maximum_filter, minimum_filter
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence
from torch.nn import functional as F

from medmargin.errors import CheckpointError
from medmargin.verification import verify

Tensors = dict[str, Tensor]
_DESIGN = {"T": 80, "rho0": 0.02, "eta": 0.4, "beta": 2.0, "sigma_px": 3.0, "kl_ramp_fraction": 0.5, "edge_clip": 10}


def _failed(path: Path) -> dict[str, float | None]:
    return {output.name: output.max_abs for output in verify("udeg-net", path).outputs if not output.passed}


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["config"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _write(path: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    contiguous = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    save_file(contiguous, path, metadata={"config": json.dumps(config)})
    return path


def test_the_reference_numbers_are_met(golden: Path) -> None:
    result = verify("udeg-net", golden / "udeg-net.safetensors")
    assert [output.name for output in result.outputs if not output.passed] == []
    assert len(result.outputs) == 47
    assert {output.tolerance for output in result.outputs if "lora" in output.name or "weight" in output.name} == {1e-5}
    assert {output.tolerance for output in result.outputs if "tbrats" in output.name} == {1e-4}


@pytest.mark.parametrize(
    "name",
    [
        "tbrats.ce_kl.step7",
        "tbrats.mse",
        "tbrats.softmax_dice_on_alpha",
        "devis.u_loss_mean.step25",
        "devis.u_loss_disentangle_mean.step99",
        "devis.log_dice_on_evidence",
        "lora.qkv",
        "lora.out",
        "design.edge_balance",
        "design.weight.t50",
        "design.progressive_loss.t100",
        "design.rho.cosine",
    ],
)
def test_a_changed_number_fails_and_is_named(golden: Path, tmp_path: Path, name: str) -> None:
    config, tensors = _read(golden / "udeg-net.safetensors")
    tensors[f"output.{name}"] += 1e-3 * max(1.0, tensors[f"output.{name}"].abs().max().item())
    assert set(_failed(_write(tmp_path / "changed.safetensors", config, tensors))) == {name}


def _rows(values: Tensor) -> Tensor:
    """[B, K, *spatial] to [pixels, K] in double precision."""
    return values.double().movedim(1, -1).reshape(-1, values.shape[1])


def _pixels(evidence: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return alpha, one-hot truth, cross-entropy and divergence of every pixel, from torch.distributions."""
    alpha = _rows(evidence) + 1
    truth = F.one_hot(labels.flatten(), alpha.shape[1]).double()
    surprise = (truth * (alpha.sum(1, keepdim=True).digamma() - alpha.digamma())).sum(1)
    misleading = truth + (1 - truth) * alpha
    return alpha, truth, surprise, kl_divergence(Dirichlet(misleading), Dirichlet(torch.ones_like(misleading)))


def _released(logits: Tensor, labels: Tensor) -> Tensors:
    alpha, truth, surprise, divergence = _pixels(F.softplus(logits), labels)
    strength, evidence = alpha.sum(1), alpha - 1
    p, q = alpha / strength[:, None], evidence.softmax(1)
    mean_dice = sum(
        1 - 2 * (alpha[:, k] * truth[:, k]).sum() / (alpha[:, k].sum() + truth[:, k].sum() + 1e-5)
        for k in range(1, min(4, alpha.shape[1]))
    )
    error = ((truth - p) ** 2).sum(1) + (p * (1 - p)).sum(1) / (strength + 1) + 9 / 30 * divergence
    hits, alarms, misses = (q * truth).sum(0), (q * (1 - truth)).sum(0), ((1 - q) * truth).sum(0)
    share = (alarms / (alarms + misses + 1e-5)).clamp(0.2, 0.8)
    tversky = (1 - hits / (hits + share * alarms + (1 - share) * misses + 1e-5)).mean()
    overlap = (2 * (evidence * truth).sum(0) + 1e-5) / (evidence.sum(0) + truth.sum(0) + 1 + 1e-5)
    outputs = {
        "tbrats.kl": divergence,
        "tbrats.mse": error,
        "tbrats.ce_kl.step12": surprise + 12 / 30 * divergence,
        "tbrats.ce_kl.mean.step99": (surprise + divergence).mean(),
        "tbrats.softmax_dice_on_alpha": mean_dice,
        "tbrats.total_mean.step9": (surprise + 9 / 30 * divergence).mean() + mean_dice,
        "devis.focal_like_dice_on_evidence": tversky,
        "devis.log_dice_on_evidence": -overlap.log().mean(),
    }
    confidence, u, rho = p.max(1).values, alpha.shape[1] / strength, 0.01 ** (1 - 30 / 90)
    is_right = p.argmax(1) == truth.argmax(1)
    doubts = {
        "u_loss_mean": (-confidence * (1 - u).log(), -(1 - confidence) * u.log()),
        "u_loss_disentangle_mean": (-(confidence * (1 - u)).log(), -((1 - confidence) * u).log()),
    }
    for name, (when_right, when_wrong) in doubts.items():
        doubt = torch.where(is_right, rho * when_right, (1 - rho) * when_wrong)
        pixels = surprise + 30 / 40 * divergence + doubt
        outputs[f"devis.{name}.step30"] = pixels.mean() + (1 - rho) * tversky
    return outputs


def _design(logits: Tensor, labels: Tensor) -> Tensors:
    shape = labels.shape
    alpha, truth, surprise, divergence = _pixels(F.softplus(logits), labels)
    star, maps = generate_binary_structure(2, 1), labels.numpy()
    edges = np.stack(
        [
            maximum_filter(image, footprint=star, mode="nearest")
            != minimum_filter(image, footprint=star, mode="nearest")
            for image in maps
        ]
    )
    distance = torch.from_numpy(np.stack([distance_transform_edt(~image) for image in edges]))
    edge = torch.from_numpy(edges).double()
    near = (-(distance**2) / (2 * 3.0**2)).exp()
    share = edge.mean((1, 2), keepdim=True)
    balance = torch.where(edge > 0, (0.5 / share).clamp(max=10), (0.5 / (1 - share)).clamp(max=10))
    u = (alpha.shape[1] / alpha.sum(1)).view(shape)
    t = torch.tensor([0, 10, 25, 50, 75, 90, 100]) / 80
    rho = 0.02 ** (1 - 20 / 80)
    w = (1 - rho) * (1 - u) + rho * u * (1 + 2.0 * near)
    weights = 0.6 + 0.4 * w / w.mean((1, 2), keepdim=True)
    p = (alpha / alpha.sum(1, keepdim=True)).view(len(labels), -1, alpha.shape[1])
    y = truth.view_as(p)
    dice = 1 - (2 * (p * y).sum(1) + 1e-5) / (p.sum(1) + y.sum(1) + 1e-5)
    return {
        "uncertainty": u,
        "edge_gt": edge,
        "edge_gt_quarter": F.max_pool2d(edge[:, None], 4)[:, 0],
        "edge_distance": distance,
        "edge_band": near,
        "edge_balance": balance,
        "evidential_dice_loss": dice[:, 1:].mean(),
        "rho.exp": 0.02 ** (1 - t),
        "rho.cosine": (1 - (math.pi * t).cos()) / 2,
        "weight.t20": weights,
        "progressive_loss.t20": (weights * (surprise + 0.5 * divergence).view(shape)).mean(),
    }


def _lora(tokens: Tensor, weights: Tensors, heads: int) -> Tensors:
    """Attention with the factors multiplied out and relative positions looked up pair by pair."""
    width, side = tokens.shape[-1], tokens.shape[1]
    merged = weights["attn.qkv.weight"].clone()
    merged[:width] += 0.5 * weights["lora.b_q"] @ weights["lora.a_q"]
    merged[2 * width :] += 0.5 * weights["lora.b_v"] @ weights["lora.a_v"]
    outputs = {}
    for name, weight in (("base", weights["attn.qkv.weight"]), ("out", merged)):
        qkv = tokens @ weight.T + weights["attn.qkv.bias"]
        q, k, v = (part.flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        row, column = torch.arange(side**2) // side, torch.arange(side**2) % side
        tables = weights["attn.rel_pos_h"][row[:, None] - row + side - 1]
        tables = tables + weights["attn.rel_pos_w"][column[:, None] - column + side - 1]  # [N, N, d]
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]) + (q[:, :, :, None] * tables).sum(-1)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2).view_as(tokens)
        outputs[name] = mixed @ weights["attn.proj.weight"].T + weights["attn.proj.bias"]
    return {**outputs, "qkv": qkv}


def _other_file(path: Path, *, classes: int, spatial: tuple[int, ...], seed: int) -> tuple[Path, Tensors]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    width, heads, side, rank = 16, 2, 4, 6
    attention = {
        "attn.qkv.weight": normal(3 * width, width) / 4,
        "attn.qkv.bias": normal(3 * width),
        "attn.proj.weight": normal(width, width) / 4,
        "attn.proj.bias": normal(width),
        "attn.rel_pos_h": normal(2 * side - 1, width // heads),
        "attn.rel_pos_w": normal(2 * side - 1, width // heads),
        "lora.a_q": normal(rank, width),
        "lora.b_q": normal(width, rank) / 4,
        "lora.a_v": normal(rank, width),
        "lora.b_v": normal(width, rank) / 4,
    }
    logits, logits2d = 3 * normal(2, classes, *spatial), 3 * normal(2, classes, 22, 30)
    label = torch.randint(0, classes, (2, *spatial), generator=random)
    label2d = torch.zeros(2, 22, 30, dtype=torch.int64)
    label2d[0, 4:13, 5:20] = 1
    label2d[1, 18:, :3] = classes - 1
    tokens = normal(3, side, side, width)
    inputs = {"logits": logits, "label": label, "logits2d": logits2d, "label2d": label2d, "tokens": tokens, **attention}
    outputs = {
        **_released(logits, label),
        **{f"design.{name}": value for name, value in _design(logits2d, label2d).items()},
        **{f"lora.{name}": value for name, value in _lora(tokens, attention, heads).items()},
    }
    config = {
        "num_classes": classes,
        "tbrats": "annealing_step 30",
        "devis": "lamda_step 40, total_step 90, eps 1e-12; KL annealing min(1,step/40)",
        "lora": {"rank": rank, "scale": 0.5},
        "design": _DESIGN,
    }
    tensors = {f"input.{name}": value for name, value in inputs.items()} | {"input.attn_heads": torch.tensor(heads)}
    tensors |= {f"output.{name}": value.float() for name, value in outputs.items()}
    return _write(path, config, tensors), outputs


@pytest.mark.parametrize(
    ("classes", "spatial"), [(2, (7, 5)), (4, (3, 4, 5)), (6, (2, 6, 4)), (5, (9, 11))], ids=lambda value: str(value)
)
def test_files_of_other_sizes_are_recomputed(tmp_path: Path, classes: int, spatial: tuple[int, ...]) -> None:
    path, outputs = _other_file(tmp_path / "other.safetensors", classes=classes, spatial=spatial, seed=classes)
    result = verify("udeg-net", path)
    assert {output.name for output in result.outputs} == set(outputs)
    assert {output.name: output.reason for output in result.outputs if not output.passed} == {}


@pytest.mark.parametrize(
    ("total", "steps"),
    [(40, (0, 4, 10, 20, 30, 36, 40)), (200, (0, 10, 25, 50, 75, 90, 100)), (60, (0, 1, 59, 60)), (7, range(8))],
    ids=["percent", "steps", "fewer", "more"],
)
def test_schedules_of_another_length_are_recomputed(
    golden: Path, tmp_path: Path, total: int, steps: tuple[int, ...]
) -> None:
    config, tensors = _read(golden / "udeg-net.safetensors")
    config["design"] |= {"T": total, "rho0": 0.05}
    config["devis"] = "lamda_step=50, total_step: 100, eps = 1e-10"
    t = torch.tensor(steps) / total
    kept = {name: value for name, value in tensors.items() if name.startswith(("input.", "output.devis."))}
    schedules = {"linear": t, "exp": 0.05 ** (1 - t), "cosine": (1 - (math.pi * t).cos()) / 2}
    kept |= {f"output.design.rho.{name}": value for name, value in schedules.items()}
    assert _failed(_write(tmp_path / "x.safetensors", config, kept)) == {}
    kept["output.design.rho.cosine"][1] += 1e-3
    assert set(_failed(_write(tmp_path / "y.safetensors", config, kept))) == {"design.rho.cosine"}


def test_a_config_without_a_number_names_it(golden: Path, tmp_path: Path) -> None:
    config, tensors = _read(golden / "udeg-net.safetensors")
    config["devis"] = "lamda_step 50, eps 1e-10"
    with pytest.raises(CheckpointError, match="'devis' of its config does not tell 'total_step <number>'"):
        verify("udeg-net", _write(tmp_path / "x.safetensors", config, tensors))


def test_an_unknown_output_is_named(golden: Path, tmp_path: Path) -> None:
    config, tensors = _read(golden / "udeg-net.safetensors")
    tensors["output.design.entropy"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"cannot recompute design\.entropy"):
        verify("udeg-net", _write(tmp_path / "x.safetensors", config, tensors))


def test_a_file_of_one_part_needs_no_other_inputs(golden: Path, tmp_path: Path) -> None:
    config, tensors = _read(golden / "udeg-net.safetensors")
    parts = ("input.label", "input.logits", "output.tbrats")
    kept = {name: value for name, value in tensors.items() if name.startswith(parts) and "2d" not in name}
    assert _failed(_write(tmp_path / "x.safetensors", {"tbrats": config["tbrats"]}, kept)) == {}
