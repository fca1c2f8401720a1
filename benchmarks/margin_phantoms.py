"""Is the margin right where the truth is known? UDEG-Net on simulated patients with known disagreement of raters.

    python benchmarks/margin_phantoms.py

The phantoms state the exact probability with which a rater counts a voxel to a structure. Compared with it: the
probabilities and the entropy of one evidential pass near the borders; whether the aleatoric part follows the raters'
spread; whether the epistemic part falls with more training patients. Laptop scale from shipped weights, equal steps.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from scipy.special import entr

from medmargin.datasets.case import Case
from medmargin.datasets.phantoms import write_phantom_dataset
from medmargin.imaging import Volume, read_image
from medmargin.inference.segmentation import Segmentation
from medmargin.uncertainty.bands import band
from medmargin.workflows.evaluate import evaluate
from medmargin.workflows.train import train
from reporting import publish

_SPREADS = (0.3, 0.6, 1.2)  # mm, of where raters see the organ's edge
_PATIENTS = (6, 24, 96)
_USUAL_SPREAD, _USUAL_PATIENTS = 0.6, 24


def main() -> None:
    """Train on phantoms of every spread and every number of patients, and measure on 12 other patients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/phantoms"))
    options = parser.parse_args()
    wanted = {(spread, _USUAL_PATIENTS) for spread in _SPREADS} | {(_USUAL_SPREAD, n) for n in _PATIENTS}
    found = {
        (spread, patients): [measured(spread, patients, seed, options) for seed in range(options.seeds)]
        for spread, patients in sorted(wanted)
    }
    rows = [
        (f"{spread} mm", patients, *(f"{np.mean([r[key] for r in results]):.3f}" for key in _COLUMNS.values()))
        for (spread, patients), results in found.items()
    ]
    publish(
        "margin_phantoms",
        {"results": [{"spread_mm": s, "patients": n, "seeds": r} for (s, n), r in found.items()]},
        title=f"Margins of one evidential pass where the truth is known: {options.steps} laptop steps",
        columns=("raters' spread", "training patients", *_COLUMNS),
        rows=rows,
        notes="12 test patients; voxels within 3 of a border. Slope: of the true probability on the predicted one, "
        "least squares (1 is calibrated). Correlations over voxels: of probabilities, and of the entropy of the "
        "prediction with that of the truth. Aleatoric, epistemic: means in nats; true entropy: of a perfect model.",
    )


_COLUMNS = {
    "Dice": "dice", "slope": "slope", "correlation of p": "correlation",
    "correlation of entropy": "entropy_correlation",
    "aleatoric": "aleatoric", "epistemic": "epistemic", "true entropy": "true_entropy",
}  # fmt: skip


def measured(spread: float, patients: int, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Train on `patients` phantoms labelled by a rater of this spread, and compare with the known truth."""
    folder = options.runs / f"Dataset900_Phantom-{spread}-{patients}-{seed}"
    if not folder.exists():
        write_phantom_dataset(folder, cases=patients, test_cases=12, seed=seed, raters=1, rater_sd_mm=spread)
    run = options.runs / f"run-{spread}-{patients}-{seed}-{options.steps}"
    if not (run / "model.safetensors").exists():
        train("udeg-net", folder, run=run, steps=options.steps, seed=seed, scale="laptop", progress=False,
              resume=run.exists())  # fmt: skip
    truth = KnownTruth(folder)
    summary = evaluate(run, folder, split="test", each=truth.look)["summary"]
    return {"dice": summary["mean"]["dice"], **truth.figures()}


class KnownTruth:
    """Predicted and true probabilities near the borders, collected case by case."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "probabilitiesTs"
        self._predicted: list[np.ndarray] = []
        self._true: list[np.ndarray] = []
        self._maps: dict[str, list[np.ndarray]] = {"total": [], "aleatoric": [], "epistemic": []}

    def look(self, case: Case, label: Volume, answer: Segmentation | None) -> None:
        """Take in the band of one case."""
        assert answer is not None
        assert answer.probabilities is not None
        near = band(label.voxels[0], answer.labels)
        files = [next(self._folder.glob(f"{case.name}_{s.label:04d}*")) for s in answer.structures]
        self._true.append(np.stack([read_image(file).voxels[0][near] for file in files]))
        self._predicted.append(answer.probabilities[:, near])
        for name, values in self._maps.items():
            values.append(answer.uncertainty[name][near])

    def figures(self) -> dict[str, Any]:
        """Compare over the voxels of all cases."""
        predicted, true = (np.concatenate(parts, axis=1) for parts in (self._predicted, self._true))
        slope = np.polyfit(predicted.ravel(), true.ravel(), 1)[0]
        maps = {name: np.concatenate(values) for name, values in self._maps.items()}
        entropy = entr(true).sum(axis=0) + entr(np.clip(1 - true.sum(axis=0), 0, 1))
        return {
            "slope": float(slope),
            "correlation": float(np.corrcoef(predicted.ravel(), true.ravel())[0, 1]),
            "entropy_correlation": float(np.corrcoef(maps["total"], entropy)[0, 1]),
            "aleatoric": float(maps["aleatoric"].mean()),
            "epistemic": float(maps["epistemic"].mean()),
            "true_entropy": float(entropy.mean()),
        }


if __name__ == "__main__":
    main()
