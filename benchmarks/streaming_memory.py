"""Measure peak memory and time of segmenting a CT-like volume with many classes, streamed and with all scores held.

    python benchmarks/streaming_memory.py [--side 512] [--slices 600] [--classes 25]

A network of two layers answers windows of 64 x 128 x 128 voxels, one softmax pass, labels and total uncertainty
kept and no probabilities. Beside it the usual way: MONAI's sliding window over the same network, whose scores of all
classes lie in memory, and their argmax, at a size at which they fit. Every line runs in a process of its own, so that
its peak (VmHWM) is its own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

PATCH, WIDTH = (64, 128, 128), 8
STREAMED, HELD = "streamed", "MONAI, all scores held"
COMPARED = (256, 150)  # side and slices at which both are measured


def main() -> None:
    """Run every line in its own process and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--classes", type=int, default=25)
    parser.add_argument("--one", choices=(STREAMED, HELD))
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one, options.side, options.slices, options.classes)))
        return
    lines = [(STREAMED, options.side, options.slices), (STREAMED, *COMPARED), (HELD, *COMPARED)]
    found = [in_own_process(work, side, slices, options.classes) for work, side, slices in lines]
    streamed, held = (each["peak_mb"] - each["start_mb"] for each in found[1:])
    from reporting import publish

    publish(
        "streaming_memory", {"results": found, "ratio": held / streamed},
        title=f"Segmenting an int16 volume into {options.classes} classes",
        columns=("way", "voxels", "seconds", "peak MB", "of it before the image", "all scores would take MB"),
        rows=[(each["work"], each["voxels"], f"{each['seconds']:.0f}", f"{each['peak_mb']:.0f}",
               f"{each['start_mb']:.0f}", f"{each['scores_mb']:.0f}") for each in found],
        notes=f"At the common size holding all scores takes {held / streamed:.1f} times the memory of streaming, "
        "without what the process held before. Streaming also gives the uncertainty of every voxel, volumes with "
        "intervals and confidences. Seconds are wall-clock time; the machine did other work meanwhile.",
    )  # fmt: skip


def in_own_process(work: str, side: int, slices: int, classes: int) -> dict[str, Any]:
    """Measure one line in a fresh interpreter."""
    sizes = ["--side", str(side), "--slices", str(slices), "--classes", str(classes)]
    output = subprocess.run(
        [sys.executable, __file__, *sizes, "--one", work], check=True, capture_output=True, text=True
    ).stdout
    return json.loads(output.strip().splitlines()[-1])


def measured(work: str, side: int, slices: int, classes: int) -> dict[str, Any]:
    """Segment a made-up volume in this process."""
    segment = streamed(classes) if work == STREAMED else held(classes)
    start = peak_mb()
    voxels = np.random.default_rng(0).integers(-1000, 1000, (side, side, slices), np.int16)
    began = time.perf_counter()
    segment(voxels)
    return {
        "work": work, "voxels": f"{side} x {side} x {slices}", "seconds": time.perf_counter() - began,
        "peak_mb": peak_mb(), "start_mb": start, "scores_mb": voxels.size * classes * 4 / 2**20,
    }  # fmt: skip


def streamed(classes: int) -> Any:
    """Make the predictor of the house."""
    from medmargin.datasets.planning import Configuration, Normalisation, Plan, Resampling
    from medmargin.imaging import from_array
    from medmargin.inference import VolumePredictor
    from medmargin.uncertainty.estimators import Softmax

    configuration = Configuration(
        name="3d_fullres", spacing=(1.0, 1.0, 1.0), median_shape=PATCH, patch=PATCH, batch_size=2,
        strides=((1, 1, 1),), kernels=((1, 1, 1),), features=(WIDTH,), channels=1, classes=classes,
    )  # fmt: skip
    scheme = Normalisation("CT", "ct", low=-1000, high=1000, mean=0.0, standard_deviation=500.0)
    plan = Plan("made up", 1, "paper", 2**33, "mixed", "mm", (2, 1, 0), 1, False, (scheme,), Resampling(),
                (configuration,), configuration.name)  # fmt: skip
    predictor = VolumePredictor(
        tiny_network(classes), structures=[f"structure {index}" for index in range(1, classes)], plan=plan,
        configuration=configuration, uncertainty=Softmax(),
    )  # fmt: skip

    def segment(voxels: np.ndarray) -> None:
        answer = predictor.predict(from_array(voxels, spacing=(1, 1, 1), dims=3), probabilities=False)
        assert answer.labels.any()
        assert answer.uncertainty["total"].any()

    return segment


def held(classes: int) -> Any:
    """Make the usual way: scores of all classes, then the largest."""
    import torch
    from monai.inferers import sliding_window_inference

    network = tiny_network(classes)

    @torch.inference_mode()
    def segment(voxels: np.ndarray) -> None:
        image = torch.from_numpy(voxels.T[None, None].astype(np.float32) / 500)
        scores = sliding_window_inference(
            image, PATCH, 1, lambda patch: network(patch).logits, overlap=0.5, mode="gaussian"
        )
        labels = scores.argmax(1).to(torch.uint8)
        assert bool(labels.any())

    return segment


def tiny_network(classes: int) -> Any:
    """Build two layers with random weights."""
    import torch
    from torch import Tensor, nn

    from medmargin.networks.prediction import Prediction

    class Tiny(nn.Module):
        dims, channels, evidence, regions = 3, 1, None, False

        def __init__(self) -> None:
            super().__init__()
            self.classes = classes
            self.layers = nn.Sequential(nn.Conv3d(1, WIDTH, 1), nn.LeakyReLU(), nn.Conv3d(WIDTH, classes, 1))

        def forward(self, image: Tensor) -> Prediction:
            return Prediction(4 * self.layers(image))

    torch.manual_seed(0)
    return Tiny().eval()


def peak_mb() -> float:
    """Read the most physical memory this process has held; a new program starts at nothing."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


if __name__ == "__main__":
    main()
