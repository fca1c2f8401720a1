"""What three orientations gain: UDEG-Net on axial slices against the fusion of three cuts, at equal steps.

    python benchmarks/orientations_udeg_net.py Dataset004_Hippocampus --steps 300 --seeds 3 --init none

Uses the runs of `ablation_udeg_net.py` where they are there. Measured on the same test side; three cuts cost three
times the forward passes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from medmargin.workflows.evaluate import evaluate
from reporting import mean_and_spread, publish
from study_runs import FULL, Study, four_sides

_CUTS = {"axial slices": FULL, "three orientations": "three orientations"}


def main() -> None:
    """Train both with every seed and publish one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--init", default="none")
    parser.add_argument("--runs", type=Path, default=Path("runs/udeg-net"))
    options = parser.parse_args()
    split = four_sides(options.dataset, options.runs)
    study = Study(options.dataset, split, options.steps, options.init, options.runs, {})
    found = {
        cut: [
            evaluate(study.run(variant, seed), study.dataset, split=study.side, split_file=split)["summary"]
            for seed in range(options.seeds)
        ]
        for cut, variant in _CUTS.items()
    }
    rows = [
        (cut, summaries[0]["uncertainty"]["forward_passes"], mean_and_spread([s["mean"]["dice"] for s in summaries]),
         mean_and_spread([s["mean"]["nsd"] for s in summaries]),
         mean_and_spread([s["uncertainty"]["band"]["ece"] for s in summaries]),
         mean_and_spread([s["uncertainty"]["band"]["auroc"] for s in summaries]))
        for cut, summaries in found.items()
    ]  # fmt: skip
    publish(
        f"orientations_udeg_net_{study.name.lower()}",
        {"dataset": study.name, "steps": study.steps, "init": study.init,
         "results": {cut: [s["mean"] for s in summaries] for cut, summaries in found.items()}},
        title=f"Three orientations on {study.name}: {study.steps} laptop steps, {options.seeds} seeds",
        columns=("cuts", "passes", "Dice", "NSD", "band ECE", "band AUROC"), rows=rows,
        notes=f"Mean ± standard deviation over seeds, {found['axial slices'][0]['n']} test cases, equal steps.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
