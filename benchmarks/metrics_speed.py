"""Measure Dice, NSD, HD95 and ASSD of one volume: seconds and peak memory, ours against MONAI's on the same masks.

    python benchmarks/metrics_speed.py [--shape 512 512 300] [--structures 10] [--repeats 3]

The masks are made up: lumpy ellipsoids of different sizes, the prediction is the truth with its outlines jittered. Each
side runs in a process of its own, so that peak memory is its own, and starts from the two label maps on disk. The
figures of both sides must agree. MONAI measures binary masks of one channel a structure, so its label maps become
one-hot floats first; that is in its peak memory and not in its seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

SPACING = (0.75, 0.75, 1.5)  # mm, as in an abdominal CT
TOLERANCE = 2.0  # mm
METRICS = ("dice", "nsd", "hd95_mm", "assd_mm")
AGREEMENT = 2e-5  # MONAI computes in single precision


def main() -> None:
    """Make the masks, measure them on both sides, and publish the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs=3, type=int, default=[512, 512, 300])
    parser.add_argument("--structures", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3, help="The fastest counts.")
    parser.add_argument("--memory-limit", type=float, help="GiB a side may allocate; more is a MemoryError.")
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        if options.memory_limit:
            resource.setrlimit(resource.RLIMIT_DATA, (int(options.memory_limit * 2**30),) * 2)
        work = {"masks": write_masks, "medmargin": by_medmargin, "monai": by_monai}[options.one[0]]
        print(json.dumps(work(Path(options.one[1]), options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        in_own_process("masks", folder)
        ours, theirs = in_own_process("medmargin", folder), in_own_process("monai", folder)
    publish_comparison(ours, theirs, options)


def in_own_process(side: str, folder: str) -> dict[str, Any]:
    """Run one side in a fresh interpreter; this one stays small, because a child's peak counts from its parent's."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", side, folder]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def write_masks(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write truth.npy and mask.npy, label maps [I, J, K] of uint8."""
    import numpy as np
    from scipy.ndimage import zoom

    rng = np.random.default_rng(0)
    shape = np.array(options.shape)
    truth, mask = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for value in range(1, options.structures + 1):
        radii = shape * rng.uniform(0.05, 0.16, 3)
        extent = np.ceil(1.5 * radii).astype(int)
        centre = [int(rng.integers(size, length - size)) for size, length in zip(extent, shape, strict=True)]
        box = tuple(slice(middle - size, middle + size) for middle, size in zip(centre, extent, strict=True))
        axes = np.ogrid[tuple(slice(-size, size) for size in extent)]
        distance = np.sqrt(sum((axis / radius) ** 2 for axis, radius in zip(axes, radii, strict=True)))
        lumps, jitter = (
            zoom(rng.normal(size=(knots,) * 3), 2.0 * extent / knots, order=1, grid_mode=True, mode="nearest")
            for knots in (5, 9)
        )
        outline = distance + 0.12 * lumps
        for labels, inside in ((truth, outline < 1), (mask, outline + 0.1 * jitter < 1)):
            view = labels[box]
            view[inside & (view == 0)] = value
    np.save(folder / "truth.npy", truth)
    np.save(folder / "mask.npy", mask)
    return {}


def by_medmargin(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure from the label maps to the figures of every structure."""
    import numpy as np

    from medmargin.evaluation.structures import measure_structures
    from medmargin.imaging.volume import Grid

    truth, mask = np.load(folder / "truth.npy"), np.load(folder / "mask.npy")
    grid = Grid(truth.shape, np.diag([*SPACING, 1.0]))
    structures = {str(value): value for value in range(1, options.structures + 1)}
    seconds = []
    for _ in range(options.repeats):
        began = time.perf_counter()
        found = measure_structures(truth, mask, structures, grid, TOLERANCE)
        seconds.append(time.perf_counter() - began)
    figures = {name: [structure[name] for structure in found.values()] for name in METRICS}
    return {"figures": figures, "seconds": min(seconds), "peak_mb": peak_mb()}


def by_monai(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure with MONAI's functions, under the same conventions."""
    import warnings

    import numpy as np
    import torch
    from monai import metrics

    warnings.simplefilter("ignore")
    masks = []
    for name in ("mask", "truth"):
        labels = np.load(folder / f"{name}.npy")
        one_hot = torch.zeros((1, options.structures, *labels.shape))
        for value in range(1, options.structures + 1):
            one_hot[0, value - 1] = torch.from_numpy(labels == value)
        masks.append(one_hot)
    in_mm = {"include_background": True, "spacing": SPACING}
    tolerances = [TOLERANCE] * options.structures
    seconds = []
    for _ in range(options.repeats):
        began = time.perf_counter()
        found = (
            metrics.compute_dice(*masks, include_background=True),
            metrics.compute_surface_dice(*masks, tolerances, use_subvoxels=True, **in_mm),
            metrics.compute_hausdorff_distance(*masks, percentile=95, **in_mm),
            metrics.compute_average_surface_distance(*masks, symmetric=True, **in_mm),
        )
        seconds.append(time.perf_counter() - began)
    figures = {name: values[0].tolist() for name, values in zip(METRICS, found, strict=True)}
    return {"figures": figures, "seconds": min(seconds), "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def publish_comparison(ours: dict[str, Any], theirs: dict[str, Any], options: argparse.Namespace) -> None:
    """Refuse different figures, then write the table."""
    import numpy as np

    from reporting import publish

    for name in METRICS:
        np.testing.assert_allclose(
            ours["figures"][name], theirs["figures"][name], rtol=AGREEMENT, atol=AGREEMENT, err_msg=name
        )
    size = " x ".join(str(length) for length in options.shape)
    rows = [
        (name, f"{side['seconds']:.2f}", f"{theirs['seconds'] / side['seconds']:.1f} x", f"{side['peak_mb']:.0f}",
         f"1 / {theirs['peak_mb'] / side['peak_mb']:.1f}")
        for name, side in (("MONAI", theirs), ("medmargin", ours))
    ]  # fmt: skip
    publish(
        "metrics_speed",
        {"shape": options.shape, "structures": options.structures, "medmargin": ours, "monai": theirs},
        title=f"Dice, NSD, HD95 and ASSD of {size} voxels with {options.structures} structures",
        columns=("by", "seconds", "speed", "peak MB", "memory"),
        rows=rows,
        notes=f"Equal figures on the same masks (to {AGREEMENT:g}), fastest of {options.repeats} repeats, a process of "
        "its own for each side, interpreter and libraries included in the peak. Turning the label maps into MONAI's "
        "one-hot floats is in its memory and not in its seconds.",
    )


if __name__ == "__main__":
    main()
