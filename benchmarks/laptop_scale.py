"""Train U-MedSAM at laptop scale for some minutes and measure it against the bare box and its ellipse.

    python benchmarks/laptop_scale.py Dataset004_Hippocampus --minutes 15 --init none
    python benchmarks/laptop_scale.py Dataset908_ACDC --minutes 15 --init shipped
    python benchmarks/laptop_scale.py --collect

Fold 0 by patient. `--collect` publishes one table of all that was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from medmargin.systems.measured import record
from medmargin.workflows.evaluate import evaluate
from medmargin.workflows.train import train
from reporting import publish


def main() -> None:
    """Train and measure one configuration, or publish all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--init", choices=("none", "shipped"), default="shipped")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/laptop"))
    parser.add_argument("--collect", action="store_true")
    options = parser.parse_args()
    if options.collect:
        collect(options.runs)
    elif options.dataset:
        measure(options)
    else:
        parser.error("name a data set, or --collect")


def measure(options: argparse.Namespace) -> None:
    """Train one run and write its figures beside it."""
    import torch

    name = Path(options.dataset).name
    run = options.runs / f"{name}-{options.init}-{options.seed}"
    outcome = train(
        "u-medsam", options.dataset, run=run, minutes=options.minutes, seed=options.seed, scale="laptop",
        settings={"init": options.init}, progress=False, resume=run.exists(), workers=0,
    )  # fmt: skip
    answer = evaluate(run, options.dataset, split="val", report=run / "report.html")
    summary = answer["summary"]
    content = {
        "dataset": name, "init": options.init, "seed": options.seed, "minutes": options.minutes,
        "threads": torch.get_num_threads(), "steps": outcome.steps, "cases": summary["n"],
        **{key: summary[key] for key in ("structures", "mean", "floors", "uncertainty", "volume_coverage")},
        "seconds_per_case": sum(case["seconds"] for case in answer["cases"]) / summary["n"],
    }  # fmt: skip
    run.with_suffix(".json").write_text(json.dumps(content, indent=1))
    print(name, options.init, {s: round(f["dice"]["mean"], 4) for s, f in summary["structures"].items()})


def collect(runs: Path) -> None:
    """Publish the table of all measured runs."""
    found = [json.loads(file.read_text()) for file in sorted(runs.glob("*.json"))]
    rows: list[tuple[Any, ...]] = []
    for result in found:
        name = result["dataset"].split("_", 1)[1]
        budget = f"{result['minutes']:g} min, {result['threads']} thread{'s' if result['threads'] > 1 else ''}"
        for structure, figures in result["structures"].items():
            floors = [f"{result['floors'][floor]['structures'][structure]:.3f}" for floor in ("box", "ellipse")]
            band = result["uncertainty"]["band"]
            overlap = [f"{figures[metric]['mean']:.3f}" for metric in ("dice", "nsd")]
            trust = [f"{band[metric]:.3f}" for metric in ("ece", "auroc")]
            rows.append((name, result["init"], budget, result["steps"], structure, *overlap, *floors, *trust))
        record(
            "u-medsam",
            what=f"{name}, fold 0 validation, {budget}, init={result['init']}, seed {result['seed']}",
            result=f"Dice {result['mean']['dice']:.3f} (ellipse alone {result['floors']['ellipse']['dice']:.3f})",
            command=f"python benchmarks/laptop_scale.py {result['dataset']} --minutes {result['minutes']:g} "
            f"--init {result['init']}",
        )
    publish(
        "laptop_scale",
        {"results": found},
        title="U-MedSAM at laptop scale on patients it has not seen (fold 0 validation, one true box per object)",
        columns=("data set", "start", "budget", "steps", "structure", "Dice", "NSD", "box alone", "ellipse alone",
                 "band ECE", "band AUROC"),
        rows=rows,
        notes="NSD at 1 mm (2 px where the spacing is unknown). Band: three voxels around any border, uncertainty from "
        "eight prompts.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
