"""Does the margin hold on patients nobody trained or calibrated on? Every estimator, before and after `calibrate`.

    python benchmarks/margin.py Dataset004_Hippocampus --steps 600 --init shipped
    python benchmarks/margin.py Dataset904_DSB2018 --steps 300 --init none
    python benchmarks/margin.py Dataset004_Hippocampus --system plain-unet --steps 1000 --init none

Train, validation, calibration and test patients are disjoint (`study_runs.four_sides`). One network of the system with
an evidential head, five with a softmax head (a deep ensemble; the first also kept snapshots on its way), and one with
dropout, all trained for equal steps. Figures over the whole image and within 3 voxels of any border.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np

from medmargin.datasets import open_dataset
from medmargin.storage import write_json
from medmargin.systems.measured import record
from medmargin.uncertainty.calibration import PredictedVolume, conformal_volumes
from medmargin.workflows.calibrate import calibrate
from medmargin.workflows.evaluate import evaluate
from reporting import publish
from study_runs import EVIDENTIAL, FULL, SOFTMAX, THINNED, VARIANTS, Study, four_sides, pairs

_MEMBERS = 5
_SPLITS = 200
_LEVEL = 0.9


def main() -> None:
    """Train what is missing, measure every estimator twice, then the guarantees over random splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--init", default="shipped")
    parser.add_argument("--system", choices=list(VARIANTS), default="udeg-net")
    parser.add_argument("--runs", type=Path, help="default: runs/SYSTEM")
    parser.add_argument("--estimators", nargs="*", help="some of the table's rows, by name; default: all")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    for dataset in options.datasets:
        runs = options.runs or Path("runs") / options.system
        split, settings = four_sides(dataset, runs), pairs(options.set)
        study = Study(dataset, split, options.steps, options.init, runs, settings, options.system)
        asks = estimators(study)
        found = {name: measured(study, name, *asks[name]) for name in options.estimators or asks}
        report(study, found, volumes_over_splits(study))


def estimators(study: Study) -> dict[str, tuple[Path, str, tuple[Path, ...]]]:
    """Train the networks; name -> (run, estimator, further members)."""
    evidential = study.run(_evidential(study), 0)
    plain, *others = [study.run(SOFTMAX, seed, snapshots=4 if seed == 0 else 0) for seed in range(_MEMBERS)]
    thinned = study.run(THINNED, 0)
    mirrored = {
        "evidential, mirrored": (evidential, "test-time-augmentation", ()),
        "softmax, mirrored": (plain, "test-time-augmentation", ()),
    }
    return {
        "evidential": (evidential, "evidential", ()),
        "softmax": (plain, "softmax", ()),
        **(mirrored if study.system == "udeg-net" else {}),  # at laptop scale the U-Net has not seen any
        "Monte Carlo dropout": (thinned, "mc-dropout", ()),
        "snapshots": (plain, "snapshots", ()),
        "deep ensemble": (plain, "ensemble", tuple(others)),
    }


def _evidential(study: Study) -> str:
    return FULL if study.system == "udeg-net" else EVIDENTIAL


def measured(study: Study, name: str, run: Path, estimator: str, members: tuple[Path, ...]) -> dict[str, Any]:
    """Measure one estimator on the test side before and after calibration, or read what an earlier call measured."""
    result = study.folder / f"margin-{name.replace(', ', '-').replace(' ', '-')}.json"
    if result.exists():
        return json.loads(result.read_text())
    ask: dict[str, Any] = {"uncertainty": estimator, "members": members, "split_file": study.split_file}
    before = evaluate(run, study.dataset, split="test", calibrated=False, **ask)
    fitted = calibrate(run, study.dataset, level=_LEVEL, **ask)
    after = evaluate(run, study.dataset, split="test", **ask)
    content = {
        "passes": before["summary"]["uncertainty"]["forward_passes"],
        "rescaling": fitted["rescaling"]["all classes"]["kind"],
        "patients": fitted["patients"], "before": _figures(before), "after": _figures(after),
        "trust": after["summary"].get("trust"), "n": after["summary"]["n_patients"],
    }  # fmt: skip
    write_json(result, content)
    print(study.name, name, content["before"], content["after"], flush=True)
    return content


def _figures(answer: dict[str, Any]) -> dict[str, Any]:
    summary = answer["summary"]
    found = summary["uncertainty"]
    return {
        "dice": summary["mean"]["dice"], "ece": found["ece"], "auroc": found["auroc"],
        "band_ece": found["band"]["ece"], "band_auroc": found["band"]["auroc"],
        "coverage": summary["volume_coverage"],
    }  # fmt: skip


def volumes_over_splits(study: Study) -> dict[str, dict[str, float]]:
    """Calibrate the volume intervals on a random half of the patients not trained on, cover those of the other half.

    Returns:
        structure -> mean coverage over the splits, its standard deviation, the mean relative width, and both for the
        model's own intervals.
    """
    run, estimator = study.run(_evidential(study), 0), "evidential"
    entries = [
        entry
        for side in ("calibration", "test")
        for entry in evaluate(
            run, study.dataset, split=side, split_file=study.split_file, uncertainty=estimator, calibrated=False
        )["cases"]
    ]
    found = {}
    for structure in open_dataset(study.dataset).task.structures:
        named = [(entry["patient"], (entry.get("volumes_px") or entry["volumes_ml"])[structure]) for entry in entries]
        named = [(patient, volume) for patient, volume in named if volume["true"] > 0]
        if named:
            found[structure] = _covered(structure, named)
    return found


def _covered(structure: str, named: list[tuple[str, dict[str, float]]]) -> dict[str, float]:
    volumes = [PredictedVolume(v["low"], v["estimate"], v["high"], v["true"]) for _, v in named]
    patients = np.array([patient for patient, _ in named])
    names = np.unique(patients)
    rng = np.random.default_rng(0)
    shares, widths = [], []
    for _ in range(_SPLITS):
        chosen = np.isin(patients, rng.permutation(names)[: len(names) // 2])
        scale = conformal_volumes(
            [v for v, c in zip(volumes, chosen, strict=True) if c], patients[chosen].tolist(), level=_LEVEL,
            structure=structure,
        )  # fmt: skip
        tested = [v for v, c in zip(volumes, chosen, strict=True) if not c]
        intervals = [scale.interval(v.low, v.estimate, v.high) for v in tested]
        shares.append(np.mean([low <= v.true <= high for v, (low, high) in zip(tested, intervals, strict=True)]))
        widths.append(np.mean([(high - low) / v.true for v, (low, high) in zip(tested, intervals, strict=True)]))
    return {
        "patients": len(names), "coverage": float(np.mean(shares)), "spread": float(np.std(shares)),
        "width": float(np.mean(widths)), "own_coverage": float(np.mean([v.low <= v.true <= v.high for v in volumes])),
        "own_width": float(np.mean([(v.high - v.low) / v.true for v in volumes])),
    }  # fmt: skip


def report(study: Study, found: dict[str, dict[str, Any]], volumes: dict[str, dict[str, float]]) -> None:
    """Publish both tables of a data set, and the line of the systems page."""
    name = study.name.lower() if study.system == "udeg-net" else f"{study.system}_{study.name.lower()}"
    content = {"system": study.system, "dataset": study.name, "steps": study.steps, "init": study.init}
    rows = [
        (kind, r["passes"], *(f"{r['before'][k]:.3f} / {r['after'][k]:.3f}" for k in _COLUMNS.values()), r["rescaling"],
         _trust(r["trust"]))
        for kind, r in found.items()
    ]  # fmt: skip
    publish(
        f"margin_{name}", {**content, "results": found},
        title=f"{study.system} on {study.name}: every estimator before / after `calibrate`, {study.steps} laptop steps",
        columns=("estimator", "passes", *_COLUMNS, "rescaling", "predicted Dice: Spearman"), rows=rows,
        notes=f"{found['evidential']['n']} test patients; calibrated on other patients than trained on. Band: within 3 "
        "voxels of a true or predicted border. Spearman: predicted against true Dice of the test masks, with its 95 % "
        "interval.",
    )  # fmt: skip
    publish(
        f"margin_volumes_{name}", {**content, "results": volumes},
        title=f"{study.system} on {study.name}: {_LEVEL:.0%} volume intervals over {_SPLITS} random halves of patients",
        columns=("structure", "patients", "coverage", "mean width", "own coverage", "own width"),
        rows=[(s, v["patients"], f"{v['coverage']:.3f} ± {v['spread']:.3f}", f"{v['width']:.2f}",
               f"{v['own_coverage']:.3f}", f"{v['own_width']:.2f}") for s, v in volumes.items()],
        notes="One evidential pass. Coverage: mean ± standard deviation over the splits, calibrated on one half and "
        "counted on the other. Widths relative to the true volume. Own: the model's intervals before calibration.",
    )  # fmt: skip
    one, many = found["evidential"], "deep ensemble"
    record(
        study.system,
        what=f"{study.name}, {one['n']} test patients, {study.steps} laptop steps, calibrated on others",
        result=f"band ECE {one['before']['band_ece']:.3f} -> {one['after']['band_ece']:.3f}, band AUROC of errors "
        f"{one['after']['band_auroc']:.3f} in one pass"
        + (f" (ensemble of {_MEMBERS}: {found[many]['after']['band_auroc']:.3f})" if many in found else ""),
        command=f"python benchmarks/margin.py {Path(study.dataset).name} --system {study.system} --steps {study.steps} "
        f"--init {study.init}",
    )


_COLUMNS = {
    "Dice": "dice", "ECE": "ece", "band ECE": "band_ece", "AUROC": "auroc", "band AUROC": "band_auroc",
}  # fmt: skip


def _trust(found: dict[str, Any] | None) -> str:
    correlation = (found or {}).get("spearman") or {}
    if correlation.get("rho") is None:
        return ""
    return f"{correlation['rho']:.2f} ({correlation['low']:.2f} to {correlation['high']:.2f})"


if __name__ == "__main__":
    main()
