"""Measure the shipped weights, without any training, on every data set under MEDMARGIN_DATA.

    python benchmarks/zero_shot.py

One true box per object (per slice in volumes). Where the weights were trained on a side of a set (BUSI, DSB2018), only
the validation side of its fold 0 is measured; of Hippocampus and ACDC too, so that trained runs can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from medmargin.datasets import open_dataset
from medmargin.systems.measured import record
from medmargin.workflows.evaluate import evaluate
from reporting import publish

WHOLE = ("Dataset902_KvasirSEG", "Dataset903_STARE", "Dataset905_ISBI2012EM", "Dataset906_CovidCXR")
VALIDATION = ("Dataset901_BUSI", "Dataset904_DSB2018", "Dataset004_Hippocampus", "Dataset908_ACDC")


def main() -> None:
    """Evaluate and publish one table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if "MEDMARGIN_DATA" not in os.environ:
        sys.exit("set MEDMARGIN_DATA to the folder of the data sets")
    rows, content = [], {}
    for name in sorted((*WHOLE, *VALIDATION), key=lambda name: name.split("_")[0]):
        answer = evaluated(name)
        summary = answer["summary"]
        content[name] = {key: summary[key] for key in ("n", "structures", "mean", "floors")}
        for structure, figures in summary["structures"].items():
            alone = [f"{summary['floors'][floor]['structures'][structure]:.3f}" for floor in ("box", "ellipse")]
            rows.append((name.split("_", 1)[1], structure, summary["n"], f"{figures['dice']['mean']:.3f}", *alone))
    publish(
        "zero_shot",
        {"results": content},
        title="Zero-shot Dice of the shipped weights, one true box per object",
        columns=("data set", "structure", "cases", "shipped weights", "box alone", "ellipse alone"),
        rows=rows,
        notes="Mean over cases; cases without the structure count 1 in every column. BUSI and DSB2018: only cases that "
        "were not trained on.",
    )
    for name in ("Dataset901_BUSI", "Dataset908_ACDC", "Dataset004_Hippocampus"):
        found = content[name]
        record(
            "u-medsam",
            what=f"{name.split('_', 1)[1]}, fold 0 validation, shipped weights without training",
            result=f"Dice {found['mean']['dice']:.3f} (ellipse alone {found['floors']['ellipse']['dice']:.3f})",
            command="python benchmarks/zero_shot.py",
        )


def evaluated(name: str) -> dict:
    """Evaluate a set: its validation side, or every labelled case."""
    if name in VALIDATION:
        return evaluate("u-medsam", name, split="val", uncertainty="none")
    cases = [case.name for case in open_dataset(name).cases]
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder) / "splits.json"
        everything.write_text(json.dumps({"test": cases}))
        return evaluate("u-medsam", name, split="test", split_file=everything, uncertainty="none")


if __name__ == "__main__":
    main()
