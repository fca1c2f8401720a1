"""Measure peak memory and time of calibrating a 512 x 512 x 600 volume with 20 classes, slab by slab.

    python benchmarks/calibration_memory.py [--slices 600] [--classes 20]

Class probabilities come from a generator, eight slices at a time, as a predictor gives them. Each slab is rescaled in
place; its labels and its entropy are kept for the whole volume, and the outer and inner regions of every structure are
appended to a file each. The last line draws the distance regions of one structure in the whole volume. Every line runs
in a process of its own, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from medmargin.uncertainty.calibration import (
    Calibration,
    DistanceMargins,
    EvidentialRescaling,
    Patients,
    StructureGuarantees,
    Temperature,
    ThresholdMargins,
    Unchanged,
    VectorScaling,
)
from medmargin.uncertainty.decomposition import class_entropy

SIDE, SLAB, LIMIT_MB = 512, 8, 1536
WORKS = ("none", "temperature", "vector", "evidential", "distance regions")


def main() -> None:
    """Run every line in its own process and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--one", choices=WORKS)
    options = parser.parse_args()
    if options.one:
        work = drawn_regions if options.one == "distance regions" else rescaled
        print(json.dumps(work(options.one, options.slices, options.classes)))
        return
    found = [in_own_process(work, options.slices, options.classes) for work in WORKS]
    from reporting import publish

    publish(
        "calibration_memory", {"limit_mb": LIMIT_MB, "results": found},
        title=f"Calibrating a {SIDE} x {SIDE} x {options.slices} volume with {options.classes} classes",
        columns=("work", "seconds", "of them for calibration", "peak MB", f"within {LIMIT_MB} MB"),
        rows=[(each["work"], f"{each['seconds']:.0f}", f"{each['applying']:.0f}", f"{each['peak_mb']:.0f}",
               "yes" if each["peak_mb"] <= LIMIT_MB else "no") for each in found],
        notes=f"All probabilities at once would take {options.classes * SIDE * SIDE * options.slices / 2**28:.1f} GiB. "
        "Labels (uint8) and entropy (float32) of the whole volume are kept and part of every peak but the last. Time "
        "besides calibration: making the probabilities up, entropy, regions, writing.",
    )  # fmt: skip


def in_own_process(work: str, slices: int, classes: int) -> dict[str, Any]:
    """Measure one line in a fresh interpreter."""
    command = [sys.executable, __file__, "--slices", str(slices), "--classes", str(classes), "--one", work]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def rescaled(work: str, slices: int, classes: int) -> dict[str, Any]:
    """Rescale a made-up volume and take everything from it that a prediction needs."""
    calibration = made_up(work, classes)
    labels = np.zeros((slices, SIDE, SIDE), np.uint8)
    total = np.zeros((slices, SIDE, SIDE), np.float32)
    began, applying = time.perf_counter(), 0.0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        files = [stack.enter_context(open(Path(folder) / name, "wb")) for name in calibration.structures]
        for layers, probabilities, vacuity in slabs(slices, classes):
            start = time.perf_counter()
            calibration.apply_probabilities(probabilities, vacuity, out=probabilities)
            applying += time.perf_counter() - start
            labels[layers] = probabilities.argmax(axis=0)
            total[layers] = class_entropy(probabilities)
            for index, (name, file) in enumerate(zip(calibration.structures, files, strict=True), start=1):
                calibration.threshold_regions(name, probabilities[index], labels[layers] == index).tofile(file)
    return result(work, time.perf_counter() - began, applying)


def drawn_regions(work: str, slices: int, classes: int) -> dict[str, Any]:
    """Draw the distance regions of one large structure."""
    calibration = made_up("none", classes)
    mask = np.zeros((slices, SIDE, SIDE), bool)
    mask[slices // 4 : slices // 2, 150:350, 150:350] = True
    began = time.perf_counter()
    regions = calibration.distance_regions(calibration.structures[0], mask, (1.0, 0.8, 0.8))
    seconds = time.perf_counter() - began
    assert regions.max() == 2
    return result(work, seconds, seconds)


def slabs(slices: int, classes: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Make class probabilities [K, n, H, W] and vacuity [n, H, W] up, a few slices at a time."""
    rng = np.random.default_rng(0)
    for start in range(0, slices, SLAB):
        layers = slice(start, min(start + SLAB, slices))
        evidence = rng.standard_exponential((classes, layers.stop - start, SIDE, SIDE), np.float32)
        evidence **= 4
        evidence += 1
        strength = evidence.sum(axis=0)
        evidence /= strength
        yield layers, evidence, classes / strength


def made_up(work: str, classes: int) -> Calibration:
    """Build a calibration of the kind to measure."""
    rescaling = {
        "none": Unchanged(),
        "temperature": Temperature(temperature=1.4),
        "vector": VectorScaling(slopes=(0.8,) * classes, offsets=(0.0, *(0.1,) * (classes - 1))),
        "evidential": EvidentialRescaling(scale_of_evidence=0.4, exponent=0.9),
    }[work]
    structures = tuple(f"structure {index}" for index in range(1, classes))
    promise = StructureGuarantees(
        thresholds=ThresholdMargins(loss="volume", risk=0.1, outer=0.1, inner=0.9, patients=20),
        distances=DistanceMargins(level=0.9, outer=6.0, inner=4.0, tolerated=0.0, patients=20),
    )
    return Calibration(
        level=0.9, estimator="made up", structures=structures, exclusive=True, rescalings=(rescaling,),
        guarantees=dict.fromkeys(structures, promise), patients=Patients(rescaling=20, guarantees=20, shared=False),
        data={"name": "made up"},
    )  # fmt: skip


def result(work: str, seconds: float, applying: float) -> dict[str, Any]:
    """Put times together with the peak memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"work": work, "seconds": seconds, "applying": applying, "peak_mb": peak}


if __name__ == "__main__":
    main()
