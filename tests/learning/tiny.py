"""A training run small enough for tests: a stand-in network on drawn discs. Also a program, so that it can be killed.

python tiny.py FOLDER --steps 12 [--resume] [--rho 0.05] [--workers 1] [--devices 2] [--pause 0.02] ...
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.learning import Budget, FixedItems, Optimisation, PromptedLearner, PromptedSlices, Prompting, fit
from medmargin.losses.promptable import PromptableLoss
from medmargin.networks.prediction import Prediction
from medmargin.networks.promptable import ellipse_logits
from medmargin.optim.schedules import cosine_with_warmup
from medmargin.transforms import Augmentation

SIZE = 16


@dataclass(frozen=True)
class Discs:
    """A source of bright discs on noise; `pause` seconds per picture make time to kill the run."""

    pause: float = 0.0
    objects: int = 40

    def draw(self, rng):
        time.sleep(self.pause)
        y, x = np.mgrid[:24, :24]
        centre, radius = rng.uniform(8, 16, 2), rng.uniform(3, 7)
        mask = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
        return (mask + rng.normal(0, 0.3, mask.shape)).astype(np.float32), mask


class TinyNetwork(nn.Module):
    """Convolutions with what resuming must get right: batch statistics and dropout. Logits at half the input's size."""

    def __init__(self, *, norm: bool = True, dropout: float = 0.2) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(8, 1, 3, padding=1)
        self.quality = nn.Linear(8, 1)

    def forward(self, image: Tensor, *, boxes=None, points=None, point_labels=None) -> Prediction:
        prior = ellipse_logits(boxes, image.shape[-1], image.shape[-1])
        features = self.dropout(F.gelu(self.norm(self.first(torch.cat([image, prior / 4], dim=1)))))
        return Prediction(self.last(features), quality=self.quality(features.mean(dim=(2, 3))))


def learner(*, rho=0.0, norm=True, dropout=0.2, average_decay=0.9, accumulate=1, lr=3e-3, seed=0) -> PromptedLearner:
    torch.manual_seed(seed)
    optimisation = Optimisation(
        lr=lr, rho=rho, clip_norm=5.0, average_decay=average_decay, accumulate=accumulate,
        schedule=partial(cosine_with_warmup, warmup_steps=2),
    )  # fmt: skip
    return PromptedLearner(TinyNetwork(norm=norm, dropout=dropout), PromptableLoss(), optimisation)


def spoiled(network: PromptedLearner, *, after: int) -> PromptedLearner:
    """Make a learner forget everything after some steps: its best weights are then not its last."""

    def forget(module, inputs):
        if network.training and network.trainer.global_step == after:
            with torch.no_grad():
                module.last.weight.zero_()
                module.last.bias.fill_(-9)

    network.network.register_forward_pre_hook(forget)
    return network


def stream(source=None, *, seed=0, **prompting) -> PromptedSlices:
    ways = {"size": SIZE, "frame_margin": (0.1, 0.5), "frame_shift": 0.1, "box_jitter": 2, **prompting}
    augmentation = Augmentation(turns=True, rotation=15, zoom=0.2, gamma=0.3, noise=0.05, blur=1)
    return PromptedSlices(source or Discs(), Prompting(**ways), seed, augmentation)


def run(folder, *, steps=12, pause=0.0, validate=True, network=None, **options):
    """Train the tiny network; `options` go to `fit`."""
    torch.set_num_threads(1)
    training = stream(Discs(pause))
    validation = FixedItems(training.undisturbed(Discs()), 6) if validate else None
    defaults = {
        "budget": Budget(steps=steps), "batch_size": 4, "seed": 7, "accelerator": "cpu", "validate_every": 4,
        "log_every": 1, "progress": False,
    }  # fmt: skip
    return fit(network or learner(), training, validation, folder=folder, **{**defaults, **options})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name, kind, default in (
        ("steps", int, 12), ("rho", float, 0.0), ("workers", int, 0), ("devices", int, 1), ("nodes", int, 1),
        ("pause", float, 0.0), ("checkpoint-steps", int, 1), ("accumulate", int, 1), ("minutes", float, None),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default)
    for name in ("resume", "plain", "bf16", "progress"):
        parser.add_argument(f"--{name}", action="store_true")
    given = parser.parse_args()
    sizes = {"norm": False, "dropout": 0.0} if given.plain else {}
    run(
        given.folder,
        pause=given.pause,
        network=learner(rho=given.rho, accumulate=given.accumulate, **sizes),
        budget=Budget(steps=given.steps) if given.minutes is None else Budget(minutes=given.minutes),
        workers=given.workers,
        devices=given.devices,
        nodes=given.nodes,
        resume=given.resume,
        precision="bf16-mixed" if given.bf16 else "32-true",
        checkpoint_steps=given.checkpoint_steps,
        progress=given.progress,
    )


if __name__ == "__main__":
    main()
