"""What each part of UDEG-Net is worth: LoRA with CE + Dice -> + evidence -> + edge prompts -> + progressive loss.

    python benchmarks/ablation_udeg_net.py Dataset004_Hippocampus --steps 200 --seeds 3 --init none
    python benchmarks/ablation_udeg_net.py Dataset901_BUSI Dataset908_ACDC --steps 200 --seeds 3 --init shipped

Laptop scale, equal steps, split by patient (Hippocampus: its test side of `four_sides`, so that `margin.py` can use the
same runs; others: fold 0). Finished runs are kept in `--runs` and not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import edt
import numpy as np

from medmargin.datasets.case import Case
from medmargin.evaluation.error_detection import auroc, ranking
from medmargin.evaluation.overlap import dice
from medmargin.imaging import Volume
from medmargin.inference.segmentation import Segmentation
from medmargin.storage import write_json
from medmargin.systems.measured import record
from medmargin.uncertainty.bands import band
from medmargin.workflows.evaluate import evaluate
from reporting import mean_and_spread, publish
from study_runs import ABLATION, Study, four_sides, pairs

_NEAR, _FAR = 2, 6  # voxels from the nearest border
_EDGE_BAND = 2


def main() -> None:
    """Train and measure every variant with every seed, then publish one table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--init", default="none")
    parser.add_argument("--runs", type=Path, default=Path("runs/udeg-net"))
    parser.add_argument("--variants", type=int, nargs="*", default=range(len(ABLATION)), help="which, from 0")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    for dataset in options.datasets:
        split = four_sides(dataset, options.runs) if "Hippocampus" in dataset else None
        study = Study(dataset, split, options.steps, options.init, options.runs, pairs(options.set))
        variants = [ABLATION[index] for index in options.variants]
        report(study, {v: [measured(study, v, seed) for seed in range(options.seeds)] for v in variants})


def measured(study: Study, variant: str, seed: int) -> dict[str, Any]:
    """Train one variant with one seed and measure it, or read what an earlier call measured."""
    run = study.run(variant, seed)
    result = run / "ablation.json"
    if result.exists():
        return json.loads(result.read_text())
    borders = Borders()
    summary = evaluate(
        run, study.dataset, split=study.side, split_file=study.split_file, each=borders.look
    )["summary"]
    found = summary["uncertainty"]
    content = {
        "variant": variant, "seed": seed, "cases": summary["n"],
        "dice": summary["mean"]["dice"], "nsd": summary["mean"]["nsd"],
        "structures": {name: figures["dice"]["mean"] for name, figures in summary["structures"].items()},
        "ece": found["ece"], "auroc": found["auroc"],
        "band_ece": found["band"]["ece"], "band_auroc": found["band"]["auroc"],
        **borders.figures(),
    }  # fmt: skip
    write_json(result, content)
    print(study.name, variant, seed, f"Dice {content['dice']:.3f}", flush=True)
    return content


class Borders:
    """Figures near and far from the true borders, collected case by case."""

    def __init__(self) -> None:
        self.boundary_dice: list[float] = []
        self.near: list[float] = []
        self.far: list[float] = []
        self.vacuity_auroc: list[float] = []

    def look(self, case: Case, label: Volume, answer: Segmentation | None) -> None:
        """Take in one case; one without a structure has no border."""
        truth = label.voxels[0]
        if answer is None or not truth.any():
            return
        at_edge = band(truth, width=_EDGE_BAND)
        scores = [dice((truth == s.label) & at_edge, (answer.labels == s.label) & at_edge) for s in answer.structures]
        self.boundary_dice.append(float(np.mean(scores)))
        if "vacuity" not in answer.maps:
            return
        vacuity, wrong = answer.maps["vacuity"], answer.labels != truth
        distance = edt.edt(np.ascontiguousarray(truth.squeeze()).astype(np.uint16) + 1).reshape(truth.shape)
        self.near.append(float(vacuity[distance <= _NEAR].mean()))
        self.far.append(float(vacuity[distance > _FAR].mean()) if (distance > _FAR).any() else np.nan)
        if 0 < wrong.sum() < wrong.size:
            self.vacuity_auroc.append(float(auroc(ranking(vacuity.ravel(), wrong.ravel())) or np.nan))

    def figures(self) -> dict[str, float | None]:
        """Means over the cases; None where a variant has no vacuity."""
        return {
            "boundary_dice": float(np.mean(self.boundary_dice)),
            "u_near": float(np.mean(self.near)) if self.near else None,
            "u_far": float(np.nanmean(self.far)) if self.far else None,
            "u_auroc": float(np.mean(self.vacuity_auroc)) if self.vacuity_auroc else None,
        }


def report(study: Study, found: dict[str, list[dict[str, Any]]]) -> None:
    """Publish the table of a data set, and the line of the systems page."""
    rows = [
        (variant, *(_cell(results, key) for key in _COLUMNS.values())) for variant, results in found.items()
    ]
    results = found[list(found)[-1]]
    base = study.settings.get("base", "compact")
    start = "random weights" if study.init == "none" else f"{study.init} weights"
    seeds = len(results)
    publish(
        f"ablation_udeg_net_{study.name.lower()}_{study.init}_{base}",
        {"dataset": study.name, "steps": study.steps, "init": study.init, "settings": study.settings, "results": found},
        title=f"Ablation on {study.name}, base {base}: {study.steps} laptop steps from {start}, {seeds} seeds",
        columns=("variant", *_COLUMNS),
        rows=rows,
        notes=f"Mean ± standard deviation over seeds; {results[0]['cases']} cases that were not trained on, no prompt. "
        "Boundary Dice: within 2 voxels of the true border. ECE and AUROC of errors (entropy) over the whole image / "
        "within 3 voxels of a border. u: mean vacuity within 2 voxels of the border, beyond 6, and its own AUROC.",
    )
    plain = "+ evidence"
    dice_mean = np.mean([r["dice"] for r in results])
    record(
        "udeg-net",
        what=f"{study.name}, {results[0]['cases']} unseen cases, {base}, {study.steps} laptop steps from {start}",
        result=f"Dice {dice_mean:.3f}"
        + (f" (no edge prompts {np.mean([r['dice'] for r in found[plain]]):.3f})" if plain in found else ""),
        command=f"python benchmarks/ablation_udeg_net.py {Path(study.dataset).name} --steps {study.steps} "
        f"--seeds {seeds} --init {study.init}"
        + ("" if len(found) == len(ABLATION) else f" --variants {' '.join(str(ABLATION.index(v)) for v in found)}")
        + (f" --set {' '.join(f'{k}={v}' for k, v in study.settings.items())}" if study.settings else ""),
    )


_COLUMNS = {
    "Dice": "dice", "NSD": "nsd", "boundary Dice": "boundary_dice", "ECE": "ece", "band ECE": "band_ece",
    "AUROC": "auroc", "band AUROC": "band_auroc", "u near": "u_near", "u far": "u_far", "AUROC of u": "u_auroc",
}  # fmt: skip


def _cell(results: list[dict[str, Any]], key: str) -> str:
    values = [r[key] for r in results]
    return "" if None in values else mean_and_spread(values)


if __name__ == "__main__":
    main()
