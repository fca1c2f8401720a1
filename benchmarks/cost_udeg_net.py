"""What UDEG-Net's uncertainty costs in time, and what training on the TinyViT base costs in memory.

    python benchmarks/cost_udeg_net.py

Time: one forward pass with evidence, vacuity and the split of the Dirichlet, against the same network with a softmax,
in turns in one process. Memory: peak resident memory of a process that trains at laptop scale on LiteMedSAM's encoder
(`--set base=medsam-lite --set image_size=256 --set batch_size=4`; the wish: 6 GB).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch

from medmargin.networks.evidence import opinion
from medmargin.networks.udeg_net import UDEGNet, udeg_net
from reporting import publish

_CASES = (("compact", 64, 8, 32), ("compact", 128, 4, 32), ("medsam-lite", 256, 1, 64))  # base, side, batch, width
_GIB = 2**30


def main() -> None:
    """Measure both, or with `--train` be the process whose memory is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--train", action="store_true")
    options = parser.parse_args()
    if options.train:
        print(trained_peak())
        return
    ratios = [ratio(*case, repeats=options.repeats) for case in _CASES]
    process = subprocess.run([sys.executable, __file__, "--train"], check=True, capture_output=True, text=True)
    peak = int(process.stdout)
    rows = [
        (f"{r['base']}, {r['side']} px, batch {r['batch']}", f"{r['softmax_seconds']:.3f}", f"{r['seconds']:.3f}",
         f"{r['ratio']:.2f}") for r in ratios
    ]  # fmt: skip
    publish(
        "cost_udeg_net", {"forward": ratios, "training_peak_bytes": peak},
        title="Cost of the evidential head: seconds per forward pass",
        columns=("network", "softmax", "evidence and its split", "ratio"),
        rows=rows,
        notes=f"Medians of {options.repeats} repetitions in turns. Training at 256 px, batch 4, TinyViT base with "
        f"LoRA, edge prompts and all losses peaks at {peak / _GIB:.1f} GB of resident memory.",
    )  # fmt: skip


def ratio(base: Any, side: int, batch: int, width: int, *, repeats: int) -> dict[str, Any]:
    """Time a forward pass with and without the evidential head."""
    torch.manual_seed(0)
    network = udeg_net(base, classes=3, image_size=side, edge_channels=width).eval()
    images = torch.rand(batch, 3, side, side)
    times: dict[str, list[float]] = {"softmax": [], "evidence": []}
    with torch.inference_mode():
        for _ in range(repeats + 2):
            for kind in times:
                began = time.perf_counter()
                _answer(network, images, kind)
                times[kind].append(time.perf_counter() - began)
    plain, evidential = (float(np.median(times[kind][2:])) for kind in ("softmax", "evidence"))
    return {"base": base, "side": side, "batch": batch, "softmax_seconds": plain, "seconds": evidential,
            "ratio": evidential / plain}  # fmt: skip


def _answer(network: UDEGNet, images: torch.Tensor, kind: str) -> None:
    logits = torch.nn.functional.interpolate(network(images).logits, images.shape[-2:], mode="bilinear")
    if kind == "softmax":
        probability = logits.softmax(1)
        _ = -(probability * probability.clamp_min(1e-12).log()).sum(1)
        return
    found = opinion(logits)
    probability, alpha, strength = found.probability, found.alpha, found.strength
    total = -(probability * probability.log()).sum(1)
    aleatoric = (probability * (torch.digamma(strength + 1) - torch.digamma(alpha + 1))).sum(1)
    _ = total, aleatoric, total - aleatoric, found.uncertainty


def trained_peak(steps: int = 2) -> int:
    """Train on phantoms for some steps, with validation, and return the most bytes this process has held."""
    from medmargin.datasets.phantoms import write_phantom_dataset
    from medmargin.workflows.train import train

    with tempfile.TemporaryDirectory() as folder:
        data = write_phantom_dataset(Path(folder) / "Dataset900_Phantom", cases=6, test_cases=1, raters=1)
        settings = {"base": "medsam-lite", "image_size": 256, "init": "none", "batch_size": 4}
        run = Path(folder) / "run"
        train("udeg-net", data, run=run, steps=steps, scale="laptop", settings=settings, progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
