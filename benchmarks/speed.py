"""Measure training steps/s, prediction s/image and peak memory, as ratios against plain peers in the same run.

    python benchmarks/speed.py [--steps 20] [--scales laptop paper]

Training: U-MedSAM against the same network with Dice + cross-entropy and AdamW. Prediction: with the default
uncertainty against a single answer. Every configuration runs in a process of its own, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "Dice + CE, AdamW": {"terms": ["dice", "ce"], "weighting": "fixed", "rho": 0.0},
    "U-MedSAM without SharpMin": {"rho": 0.0},
    "U-MedSAM": {},
}


def main() -> None:
    """Run every configuration in its own process and publish the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scales", nargs="+", default=["laptop"])
    parser.add_argument("--one", nargs=3, metavar=("WORK", "SCALE", "NAME"))
    options = parser.parse_args()
    if options.one:
        work, scale, name = options.one
        print(json.dumps(trained(scale, name, options.steps) if work == "train" else predicted(scale, name)))
        return
    rows, content = [], []
    for scale in options.scales:
        works = {"train": list(CONFIGURATIONS), "predict": ["one answer", "eight answers (default)"]}
        for work, names in works.items():
            found = [in_own_process(work, scale, name, options.steps) for name in names]
            content += found
            rows += [
                (scale, work, f["name"], f"{f['seconds']:.3f}", f"{f['seconds'] / found[0]['seconds']:.2f}",
                 f"{f['peak_mb']:.0f}") for f in found
            ]  # fmt: skip
    from reporting import publish

    publish(
        "speed", {"results": content}, title="Speed and memory",
        columns=("scale", "work", "configuration", "seconds per step or image", "ratio", "peak MB"), rows=rows,
        notes="Ratio: against the first line of each block, measured in the same run. Prediction: one 256 x 256 "
        "picture with one box.",
    )  # fmt: skip


def in_own_process(work: str, scale: str, name: str, steps: int) -> dict[str, Any]:
    """Measure one configuration in a fresh interpreter."""
    command = [sys.executable, __file__, "--steps", str(steps), "--one", work, scale, name]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def built(scale: str, settings: dict[str, Any]) -> Any:
    """Build the system with random weights."""
    from medmargin.datasets import Task
    from medmargin.systems.registry import build_system, resolve_arguments

    task = Task("benchmark", ("image",), {"object": 1}, dims=2, unit="px")
    return build_system("u-medsam", task, resolve_arguments("u-medsam", scale, {"init": "none", **settings}))


def trained(scale: str, name: str, steps: int) -> dict[str, Any]:
    """Time optimiser steps on one prepared batch of generated pictures."""
    import torch

    from medmargin.learning import GeneratedPictures
    from medmargin.optim.sharp_min import SharpMin

    stage = built(scale, CONFIGURATIONS[name]).stages[-1]()
    stream = stage.stream(GeneratedPictures(), seed=0)
    batch = stream.collate([stream[0, position] for position in range(stage.batch_size)])
    learner = stage.learner
    optimiser = SharpMin(learner.configure_optimizers(), rho=learner.optimisation.rho, network=learner.network)

    def closure() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=stage.precision == "bf16-mixed"):
            total = learner.objective(batch).total
        total.backward()

    optimiser.step(closure)
    began = time.perf_counter()
    for _ in range(steps):
        optimiser.step(closure)
    return result(scale, name, (time.perf_counter() - began) / steps)


def predicted(scale: str, name: str) -> dict[str, Any]:
    """Time whole predictions of one picture."""
    import numpy as np

    from medmargin.imaging import from_array
    from medmargin.prompts.types import Box, Prompt

    predictor = built(scale, {"members": 1 if name == "one answer" else 8}).predictor()
    picture = from_array(np.random.default_rng(0).integers(0, 255, (256, 256), np.uint8))
    prompts = [Prompt("object", box=Box((60, 70), (170, 190)))]
    predictor.predict(picture, prompts)
    began = time.perf_counter()
    for _ in range(3):
        predictor.predict(picture, prompts)
    return result(scale, name, (time.perf_counter() - began) / 3)


def result(scale: str, name: str, seconds: float) -> dict[str, Any]:
    """Put a figure together with the peak memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"scale": scale, "name": name, "seconds": seconds, "peak_mb": peak}


if __name__ == "__main__":
    main()
