"""Draw what UDEG-Net answers: image, outlines, uncertainty and edge prompt of an easy and a hard case of each run.

    python benchmarks/picture_udeg_net.py runs/.../Dataset004_Hippocampus-none-300-3-0 Dataset004_Hippocampus \
        --split test --split-file runs/.../Dataset004_Hippocampus-four-sides.json

Easy and hard: the best and the worst Dice among the cases with a structure. Pairs of RUN and DATASET may be repeated.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medmargin.datasets import open_dataset
from medmargin.datasets.case import Case
from medmargin.evaluation.case_figures import case_figure
from medmargin.evaluation.measure import measure_case
from medmargin.evaluation.overlap import dice
from medmargin.evaluation.pictures import Picture, picture
from medmargin.imaging import Volume
from medmargin.inference.segmentation import Segmentation
from medmargin.storage import atomic_path
from medmargin.workflows.evaluate import evaluate

_OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "udeg_net.png"


def main() -> None:
    """Measure the runs, pick two cases of each, and write one picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="RUN DATASET [RUN DATASET ...]")
    parser.add_argument("--split", default="val")
    parser.add_argument("--split-file", type=Path)
    options = parser.parse_args()
    panels = []
    for run, dataset in zip(options.runs[::2], options.runs[1::2], strict=True):
        extremes = Extremes()
        is_split = options.split_file is not None and Path(dataset).name in options.split_file.name
        split_file, side = (options.split_file, options.split) if is_split else (None, "val")
        evaluate(run, dataset, split=side, split_file=split_file, each=extremes.look)
        structures = open_dataset(dataset).task.structures
        panels += [_panel(*extremes.easy, structures), _panel(*extremes.hard, structures)]
    width = max(panel.width for panel in panels)
    panels = [panel.resize((width, round(panel.height * width / panel.width))) for panel in panels]
    sheet = Image.new("RGB", (width, sum(panel.height for panel in panels)))
    top = 0
    for panel in panels:
        sheet.paste(panel, (0, top))
        top += panel.height
    with atomic_path(_OUT) as temporary:
        sheet.convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(temporary, format="png", optimize=True)
    print(_OUT)


class Extremes:
    """The cases with the best and the worst mean Dice so far."""

    def __init__(self) -> None:
        self._found: dict[float, tuple[Case, Volume, Segmentation]] = {}

    def look(self, case: Case, label: Volume, answer: Segmentation | None) -> None:
        """Take in one case."""
        truth = label.voxels[0]
        if answer is None or not truth.any():
            return
        score = float(np.mean([dice(truth == s.label, answer.labels == s.label) for s in answer.structures]))
        self._found[score] = (case, label, answer)
        self._found = {key: self._found[key] for key in (min(self._found), max(self._found))}

    @property
    def easy(self) -> tuple[Case, Volume, Segmentation]:
        return self._found[max(self._found)]

    @property
    def hard(self) -> tuple[Case, Volume, Segmentation]:
        return self._found[min(self._found)]


def _panel(case: Case, label: Volume, answer: Segmentation, structures: dict[str, int]) -> Any:
    truth = label.voxels[0]
    result = measure_case(case.name, case.patient, truth, answer.labels, grid=answer.image.grid, structures=structures)
    shown: Picture = picture(
        result, answer.image, truth, answer.labels, answer.uncertainty["total"], edge=answer.maps["edge"]
    )
    drawn = case_figure(shown, structures, most_uncertain=float(answer.uncertainty["total"].max()))
    return Image.open(io.BytesIO(drawn)).convert("RGB")


if __name__ == "__main__":
    main()
