"""The authors' numbers of U-MedSAM, other files of the same format, and files that must not pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.ndimage import convolve, distance_transform_edt
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.errors import CheckpointError
from medmargin.verification import verify

Tensors = dict[str, Tensor]


def _failed(path: Path) -> dict[str, float | None]:
    return {output.name: output.max_abs for output in verify("u-medsam", path).outputs if not output.passed}


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["config"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _write(path: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    contiguous = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    save_file(contiguous, path, metadata={"config": json.dumps(config)})
    return path


@pytest.mark.parametrize("threads", [1, 2])
def test_the_reference_numbers_are_met_whatever_the_number_of_threads(golden: Path, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        result = verify("u-medsam", golden / "u-medsam.safetensors")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert result.tolerance == 1e-5
    assert [output.name for output in result.outputs if not output.passed] == []
    assert len(result.outputs) == 118


@pytest.mark.parametrize(
    "name",
    [
        "awl_total",
        "awl_grad_params",
        "dist_weight_map",
        "signed_distance_map",
        "hausdorff_er_loss_shifted",
        "sam.adamw.loss_at_perturbed1",
        "sam.sgd.step3.bn.running_mean",
        "sam.adaptive_adamw.step2.c2.weight",
    ],
)
def test_a_changed_number_fails_and_is_named(golden: Path, tmp_path: Path, name: str) -> None:
    config, tensors = _read(golden / "u-medsam.safetensors")
    tensors[f"output.{name}"] += 1e-3
    assert set(_failed(_write(tmp_path / "changed.safetensors", config, tensors))) == {name}


def _closeness(mask: np.ndarray) -> np.ndarray:
    distance = distance_transform_edt(mask)
    depth = (distance.max() - distance) * mask
    return depth / depth.max()


def _eroded_mean(error: np.ndarray) -> float:
    star = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]]) / 5
    total = 0.0
    for current in error:
        for k in range(1, 11):
            current = np.clip(convolve(current, star, mode="constant") - 0.5, 0, None)
            current = (current - current.min()) / np.ptp(current) if np.ptp(current) else current
            total += current.sum() * k**2
    return total / error.size


def _losses(inputs: Tensors, order: list[str]) -> Tensors:
    """Every map, loss and weighted sum, written down once more from the formulas."""
    z, y, p = inputs["logits"].clone().requires_grad_(), inputs["target"], inputs["awl_params"].clone().requires_grad_()
    masks = [m > 0.5 for m in y[:, 0].numpy()]
    inside = np.stack([distance_transform_edt(m) for m in masks])
    outside = np.stack([distance_transform_edt(~m) for m in masks])
    weights = torch.from_numpy(np.stack([1 + _closeness(m) + _closeness(~m) for m in masks])).float()
    signed = torch.from_numpy(np.where(inside == 1, 0, outside - inside)).float()
    s = z.sigmoid()
    predicted = [m > 0.5 for m in s.detach()[:, 0].numpy()]
    predicted_sum = np.stack([distance_transform_edt(m) + distance_transform_edt(~m) for m in predicted])
    error = ((s - y) ** 2)[:, 0]
    axes = (1, 2, 3)
    dice = 1 - (2 * (s * y).sum(axes) + 1e-5) / ((s * s).sum(axes) + y.sum(axes) + 1e-5)
    weighted_overlap = (weights * s[:, 0] * y[:, 0]).sum((1, 2))
    distance_dice = (2 * weighted_overlap + 1e-5) / (s.sum(axes) + y.sum(axes) + 1e-5)
    entropy = -(y * s.log() + (1 - y) * (1 - s).log())
    terms = {
        "mse": ((s - y) ** 2).mean(),
        "dice": dice.mean(),
        "bce": entropy.mean(),
        "dpce": (weights * entropy[:, 0]).mean(),
    }
    chosen = torch.stack([terms[name] for name in order])
    total = (chosen / (2 * p**2) + (1 + p**2).log()).sum()
    grad_logits, grad_params = torch.autograd.grad(total, (z, p))
    return {
        "dist_weight_map": weights,
        "signed_distance_map": signed,
        "hd_edt_sum_map": torch.from_numpy(inside + outside).float(),
        "mse_prob": terms["mse"],
        "dice_monai_sigmoid_squared": terms["dice"],
        "bce_logits": terms["bce"],
        "dpce_weighted_mean": terms["dpce"],
        "boundary_loss": (s[:, 0] * signed).mean(),
        "dist_dice_loss": -distance_dice.mean(),
        "hausdorff_dt_loss_prob": (error * torch.from_numpy(predicted_sum**2 + (inside + outside) ** 2)).mean().float(),
        "hausdorff_er_loss_shifted": torch.tensor(_eroded_mean(((inputs["shifted_pred"] - y) ** 2).numpy())).float(),
        "awl_total": total,
        "awl_total_init_ones": (chosen / 2 + np.log(2)).sum(),
        "awl_grad_logits": grad_logits,
        "awl_grad_params": grad_params,
        "awl_optimal_p2": (chosen + (chosen**2 + 8 * chosen).sqrt()) / 4,
    }


def _trajectory(inputs: Tensors, settings: dict[str, Any]) -> Tensors:
    """Sharpness-aware steps written down once more: momentum 0 is how the released code holds the statistics."""
    options = dict(settings)
    base, rho, adaptive = (options.pop(name) for name in ("base", "rho", "adaptive"))
    is_frozen = options.pop("bn_running_stats_bypassed_in_second_pass")
    width, _, size, _ = inputs["net.c1.weight"].shape
    c1, c2 = nn.Conv2d(1, width, size, padding=size // 2), nn.Conv2d(width, 1, 3, padding=1)
    network = nn.ModuleDict({"c1": c1, "bn": nn.BatchNorm2d(width), "c2": c2})
    network.load_state_dict({name[4:]: value for name, value in inputs.items() if name.startswith("net.")})
    optimiser = getattr(torch.optim, base)(network.parameters(), **options)
    weights = list(network.parameters())

    def backward(x: Tensor, y: Tensor) -> Tensor:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(c2(F.gelu(network["bn"](c1(x)))), y)
        loss.backward()
        return loss.detach()

    outputs: Tensors = {}
    for step, (x, y) in enumerate(zip(inputs["x"], inputs["y"], strict=True)):
        outputs[f"loss{step}"] = backward(x, y)
        norm = torch.stack([((w.abs() if adaptive else 1) * w.grad).norm() for w in weights]).norm()
        kept = [w.detach().clone() for w in weights]
        with torch.no_grad():
            for w in weights:
                w.add_((w**2 if adaptive else 1) * w.grad * (rho / (norm + 1e-12)))
        if step == 0:
            outputs["perturbed_after_first_step.c1.weight"] = c1.weight.detach().clone()
        network["bn"].momentum = 0 if is_frozen else 0.1
        outputs[f"loss_at_perturbed{step}"] = backward(x, y)
        network["bn"].momentum = 0.1
        with torch.no_grad():
            for w, value in zip(weights, kept, strict=True):
                w.copy_(value)
        optimiser.step()
        outputs.update({f"step{step + 1}.{name}": value.clone() for name, value in network.state_dict().items()})
    return outputs


def _inputs(seed: int, *, batch: int, height: int, width: int, losses: int, steps: int, channels: int) -> Tensors:
    torch.manual_seed(seed)
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centres = torch.rand(batch, 2) * 0.4 + 0.3
    distance = torch.stack([(row - r * height).hypot(column - c * width) for r, c in centres])
    target = (distance < height / 4).float()[:, None]
    network = nn.ModuleDict(
        {"c1": nn.Conv2d(1, channels, 3), "bn": nn.BatchNorm2d(channels), "c2": nn.Conv2d(channels, 1, 3)}
    )
    return {
        "logits": 3 * (target - 0.5) + torch.randn(target.shape),
        "target": target,
        "shifted_pred": target.roll(4, -1),
        "awl_params": torch.rand(losses) + 0.5,
        "x": torch.randn(steps, 3, 1, 9, 10),
        "y": (torch.rand(steps, 3, 1, 9, 10) > 0.5).float(),
        **{f"net.{name}": value for name, value in network.state_dict().items()},
    }


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


ORDERS = {
    "MSE(prob), Dice(monai sigmoid squared_pred), BCE, distance-penalised BCE": ["mse", "dice", "bce", "dpce"],
    "Dice(monai sigmoid squared_pred), BCE": ["dice", "bce"],
    "distance-penalised BCE": ["dpce"],
}
SAM_CASES = {
    "wide": {"base": "AdamW", "rho": 0.3, "adaptive": False, "lr": 0.01, "weight_decay": 0.1},
    "nesterov": {"base": "SGD", "rho": 0.02, "adaptive": True, "lr": 0.05, "momentum": 0.8, "nesterov": True},
    "none": {"base": "RMSprop", "rho": 0.0, "adaptive": False, "lr": 0.001},
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("is_frozen", [True, False])
def test_other_sizes_losses_steps_and_optimisers_are_met_too(tmp_path: Path, order: str, is_frozen: bool) -> None:
    names = ORDERS[order]
    cases = {name: {**case, "bn_running_stats_bypassed_in_second_pass": is_frozen} for name, case in SAM_CASES.items()}
    config = {"awl": f"sum_i ..., {len(names)} losses in order {order}", "sam": cases, "net": "Conv - BatchNorm ..."}
    inputs = _inputs(3, batch=3, height=31, width=26, losses=len(names), steps=4, channels=5)
    outputs = _losses(inputs, names)
    for name, case in cases.items():
        outputs.update({f"sam.{name}.{key}": value for key, value in _trajectory(inputs, case).items()})
    tensors = {f"input.{name}": value for name, value in inputs.items()}
    tensors.update({f"output.{name}": value for name, value in outputs.items()})
    assert _failed(_write(tmp_path / "other.safetensors", config, tensors)) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config["sam"]["adamw"].update(base="AdamX"), "AdamX"),
        (lambda config: config["sam"]["adamw"].update(base="lr_scheduler"), "lr_scheduler"),
        (lambda config: config["sam"]["adamw"].update(momentum=0.9), "momentum"),
        (lambda config: config["sam"]["adamw"].pop("rho"), "rho"),
        (lambda config: config.pop("sam"), "sam"),
        (lambda config: config.update(awl="4 losses in order MSE, Dice, BCE, Lovasz"), "lovasz"),
        (lambda config: config.update(awl="3 losses in order MSE, Dice, BCE"), "expected 4 names"),
    ],
)
def test_a_config_that_cannot_be_followed_is_refused_with_the_reason(
    golden: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    config, tensors = _read(golden / "u-medsam.safetensors")
    change(config)
    with pytest.raises(CheckpointError, match=message):
        verify("u-medsam", _write(tmp_path / "odd.safetensors", config, tensors))


def test_a_file_without_an_input_is_refused(golden: Path, tmp_path: Path) -> None:
    config, tensors = _read(golden / "u-medsam.safetensors")
    del tensors["input.awl_params"]
    with pytest.raises(CheckpointError, match="awl_params"):
        verify("u-medsam", _write(tmp_path / "short.safetensors", config, tensors))
