"""Runs of a system and its variants, trained once and shared by several benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmargin.datasets import open_dataset
from medmargin.datasets.splits import make_split, write_splits
from medmargin.workflows.train import train

EVIDENTIAL, SOFTMAX, THINNED = "evidential", "softmax", "softmax, dropout"
_UDEG_NET: dict[str, dict[str, Any]] = {
    "LoRA, CE + Dice": {"evidential": False, "edge_prompts": False, "progressive": False},
    "+ evidence": {"edge_prompts": False, "progressive": False},
    "+ edge prompts": {"progressive": False},
    "+ progressive loss (UDEG-Net)": {},
    # not steps of the ablation: the network of UDEG-Net with a softmax head, for ensembles and dropout
    SOFTMAX: {"evidential": False, "progressive": False},
    THINNED: {"evidential": False, "progressive": False, "dropout": 0.2},
    "three orientations": {"planes": "three"},
}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "udeg-net": _UDEG_NET,
    "plain-unet": {
        EVIDENTIAL: {},
        SOFTMAX: {"evidential": False},
        THINNED: {"evidential": False, "dropout": 0.2},
    },
}
ABLATION = tuple(_UDEG_NET)[:4]
FULL = ABLATION[-1]
FRACTIONS = {"train": 0.5, "val": 0.1, "calibration": 0.2, "test": 0.2}


@dataclass(frozen=True)
class Study:
    """One data set, its split and how long every run of it is trained.

    Attributes:
        dataset: name or folder. split_file: four sides by patient, or None for the data set's own folds.
        steps: optimiser steps. init: starting weights. runs: folder of the runs.
        settings: further arguments of the system, the same for every variant.
        system: what is trained.
    """

    dataset: str
    split_file: Path | None
    steps: int
    init: str
    runs: Path
    settings: dict[str, Any]
    system: str = "udeg-net"

    @property
    def name(self) -> str:
        """The data set without its number."""
        return Path(self.dataset).name.split("_", 1)[-1]

    @property
    def side(self) -> str:
        """The cases that are measured."""
        return "val" if self.split_file is None else "test"

    @property
    def folder(self) -> Path:
        """Where results of this study lie beside its runs."""
        base = self.settings.get("base")
        return self.runs / f"{Path(self.dataset).name}-{f'{base}-' if base else ''}{self.init}-{self.steps}"

    def run(self, variant: str, seed: int, *, snapshots: int = 0) -> Path:
        """Train a variant with a seed, or take what an earlier call left."""
        variants = VARIANTS[self.system]
        folder = Path(f"{self.folder}-{list(variants).index(variant)}-{seed}")
        if not (folder / "model.safetensors").exists():
            train(
                self.system, self.dataset, run=folder, steps=self.steps, seed=seed, scale="laptop", progress=False,
                split=self.split_file, settings={"init": self.init, **self.settings, **variants[variant]},
                resume=folder.exists(), snapshots=snapshots,
            )  # fmt: skip
        return folder


def four_sides(dataset: str, runs: Path) -> Path:
    """Draw train, val, calibration and test by patient (seed 0) and write the split file beside the runs."""
    path = runs / f"{Path(dataset).name}-four-sides.json"
    if not path.exists():
        runs.mkdir(parents=True, exist_ok=True)
        write_splits(path, make_split(open_dataset(dataset).cases, fractions=FRACTIONS, seed=0))
    return path


def pairs(settings: Sequence[str]) -> dict[str, Any]:
    """Read `name=value` texts."""
    return dict(text.split("=", 1) for text in settings)
