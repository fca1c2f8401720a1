"""How good is a system after some minutes of CPU training, and how good is nnU-Net 2 after the same minutes?

    python benchmarks/versus_nnunet.py --environment ENV --sides nnunet --minutes 10 30
    python benchmarks/versus_nnunet.py --environment ENV --sides ours --minutes 10 30 --curve 1 2 5
    python benchmarks/versus_nnunet.py --collect

Same machine, threads and cases (fold 0); preparation is outside the budget on both sides. nnU-Net 2 lives in a virtual
environment of its own, which the first call makes in ENV (download of about 3 GB, 7 GB on disk): it needs torchvision,
which does not go with every torch. `nnunet_reference.py` runs inside it. Both sides predict in a fresh process, one
case after the other, and leave label maps and probabilities as files; `medmargin evaluate` measures both folders.

A measurement that is finished is not repeated, so sides and budgets can be run one by one. `--collect` publishes the
table and the picture of all that was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np

from medmargin.datasets import Case, Dataset, open_dataset
from medmargin.datasets.loading import load_image, on_grid_of
from medmargin.datasets.planning import Plan
from medmargin.evaluation.palette import ALARM_COLOUR
from medmargin.imaging import read_label, write_labels, write_map
from medmargin.runs import read_run
from medmargin.storage import atomic_path, write_json
from medmargin.systems.measured import record
from reporting import RESULTS, publish

_NNUNET = "nnunetv2==2.8.1"
_NEEDED_BYTES = 12e9  # wheels while they are unpacked, then 6.4 GB
_PICTURES = RESULTS.parent / "images"
_REFERENCE = Path(__file__).with_name("nnunet_reference.py")


def main() -> None:
    """Measure what was asked for, or publish what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="Dataset004_Hippocampus")
    parser.add_argument("--system", default="plain-unet", help="our side")
    parser.add_argument("--sides", nargs="+", choices=("ours", "nnunet"), default=["ours", "nnunet"])
    parser.add_argument("--minutes", nargs="*", type=float, default=[10, 30])
    parser.add_argument("--curve", nargs="*", type=float, default=[], help="further budgets of our side, in minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cases", type=int, help="only the first so many validation cases, to try the script")
    parser.add_argument("--runs", type=Path, default=Path("runs/versus-nnunet"))
    parser.add_argument("--environment", type=Path, default=Path("runs/versus-nnunet/environment"))
    parser.add_argument("--collect", action="store_true")
    options = parser.parse_args()
    if options.collect:
        collect(options.runs, options.dataset)
        return
    data = open_dataset(options.dataset)
    for side in options.sides:
        for minutes in sorted({*options.minutes, *(options.curve if side == "ours" else ())}):
            name = options.system if side == "ours" else "nnunet"
            folder = (options.runs / f"{data.folder.name}-{name}-{minutes:g}-{options.seed}").resolve()
            budget = Budget(data, folder, minutes, options.seed, options.threads, options.cases)
            if (folder / "result.json").exists():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            found = ours(budget, options.system) if side == "ours" else nnunet(budget, options.environment.resolve())
            write_json(folder / "result.json", {"side": name, **budget.figures(), **found})
            print((folder / "result.json").read_text(), flush=True)


@dataclass(frozen=True)
class Budget:
    """One training of one side, and the folder of all that comes of it.

    Attributes:
        data: whose fold 0 is trained and validated on. folder: absolute. minutes: of training. seed, threads: of it.
        first: measure only the first so many validation cases; None: all.
    """

    data: Dataset
    folder: Path
    minutes: float
    seed: int
    threads: int
    first: int | None

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """The cases that are measured."""
        return self.data.split("val")[: self.first]

    @property
    def files(self) -> Path:
        """Label maps and probabilities as `medmargin evaluate` reads them."""
        return self.folder / "files"

    def run(self, command: list[str], **environment: str) -> str:
        """Run a program with this budget's threads and return what it prints; its errors go to a log."""
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        with open(self.folder / "log.txt", "a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            variables = {**os.environ, **threads, **environment}
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, env=variables)
            log.write(done.stdout)
        if done.returncode:
            sys.exit(f"{' '.join(command[:3])} ... ended with {done.returncode}; why: {self.folder / 'log.txt'}")
        return done.stdout

    def medmargin(self, *arguments: Any) -> dict[str, Any]:
        """Run a command of this package in a fresh process and return its JSON answer."""
        program = str(Path(sys.executable).with_name("medmargin"))
        return json.loads(self.run([program, *map(str, arguments), "--json"]))

    def figures(self) -> dict[str, Any]:
        """Measure the files of `files`; the same for both sides."""
        answer = self.medmargin("evaluate", self.files, self.data.folder, *([] if self.first else ["--split", "val"]))
        summary = answer["summary"]
        found = summary["uncertainty"]
        return {
            "dataset": self.data.folder.name, "minutes": self.minutes, "seed": self.seed, "threads": self.threads,
            "cases": summary["n"], "failed": answer["failed"],
            "structures": {
                name: {"dice": each["dice"]["mean"], "nsd": each["nsd"]["mean"]}
                for name, each in summary["structures"].items()
            },
            "dice": summary["mean"]["dice"], "dice_ci95": summary["mean"]["dice_ci95"], "nsd": summary["mean"]["nsd"],
            "ece": found["ece"], "band_ece": found["band"]["ece"],
        }  # fmt: skip


def ours(budget: Budget, system: str) -> dict[str, Any]:
    """Train and predict with this package; an interrupted training continues."""
    run, trained = budget.folder / "run", budget.folder / "train.json"
    if not trained.exists():
        resume = ["--resume"] if run.exists() else []
        write_json(trained, budget.medmargin(
            "train", system, budget.data.folder, "--run", run, "--minutes", budget.minutes, "--seed", budget.seed,
            "--fold", 0, *resume,
        ))  # fmt: skip
    training = json.loads(trained.read_text())
    config = read_run(run).config
    batch = config.arguments["batch_size"]
    if batch == "auto":
        batch = Plan.from_dict(config.task["plan"]).configuration().batch_size
    asked = ["--split", "val"] if budget.first is None else []
    images = [budget.data.folder] if budget.first is None else [image for case in budget.cases for image in case.images]
    found = budget.medmargin("predict", run, *images, *asked, "--out", budget.files, "--probabilities")
    return _cost(training["steps"], batch, training["seconds"], found["cases"])


def nnunet(budget: Budget, environment: Path) -> dict[str, Any]:
    """Train and predict with nnU-Net 2 in its own environment; its training cannot be continued."""
    install(environment, budget)
    shared = budget.folder.parent / "nnunet"
    folders = {
        "nnUNet_raw": str(budget.data.folder.parent), "nnUNet_preprocessed": str(shared),
        "nnUNet_results": str(budget.folder), "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": str(budget.threads),
    }  # fmt: skip
    program = [str(environment / "bin" / "python"), str(_REFERENCE)]
    name = budget.data.folder.name
    prepared = shared / f"{name}.json"
    if not prepared.exists():
        shared.mkdir(exist_ok=True)
        began = time.monotonic()
        budget.run([*program, "prepare", name], **folders)
        sides = {side: [case.name for case in budget.data.split(side)] for side in ("train", "val")}
        write_json(shared / name / "splits_final.json", [sides])  # its only fold is our fold 0
        write_json(prepared, {"seconds": time.monotonic() - began})
    trained, predicted, raw = (budget.folder / part for part in ("train.json", "predict.json", "nnunet-files"))
    if not trained.exists():
        amount = ["--minutes", str(budget.minutes), "--seed", str(budget.seed)]
        budget.run([*program, "train", name, *amount, "--out", str(trained)], **folders)
    cases = [case.name for case in budget.cases]
    where = ["--files", str(raw), "--out", str(predicted)]
    budget.run([*program, "predict", name, str(budget.data.folder), *cases, *where], **folders)
    for case in budget.cases:
        converted(case, budget.data, raw, budget.files)
    training, found = json.loads(trained.read_text()), json.loads(predicted.read_text())
    cost = _cost(training["iterations"], training["batch_size"], training["seconds"], found["cases"])
    extra = {key: training[key] for key in ("versions", "patch", "parameters")}
    return cost | extra | {key: found[key] for key in ("passes", "memory_before_bytes")}


def install(environment: Path, budget: Budget) -> None:
    """Make the virtual environment where there is none."""
    if (environment / "bin" / "nnUNetv2_train").exists():
        return
    environment.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(environment.parent).free
    if free < _NEEDED_BYTES:
        sys.exit(f"{environment}: nnU-Net 2 needs {_NEEDED_BYTES / 1e9:.0f} GB of disk while it is installed, and "
                 f"{free / 1e9:.1f} GB are free. Name another place with --environment.")  # fmt: skip
    venv.create(environment, with_pip=True, symlinks=True, clear=environment.exists())
    budget.run([str(environment / "bin" / "pip"), "install", "--quiet", _NNUNET])


def converted(case: Case, data: Dataset, raw: Path, files: Path) -> None:
    """Write nnU-Net's answer for a case as this package's files: same grid, same precision of the probabilities.

    Args:
        raw: folder of `<case>.nii.gz` and `<case>.npz`, whose `probabilities` [K, z, y, x] have the axes of SimpleITK.
    """
    image = load_image(case, data.task)
    labels = on_grid_of(image, read_label(raw / f"{case.name}{_ending(case)}")).voxels[0]
    probabilities = np.load(raw / f"{case.name}.npz")["probabilities"].transpose(0, 3, 2, 1)  # [K, I, J, K]
    chosen = np.take_along_axis(probabilities, labels[None].astype(np.intp), 0)[0]
    if not np.array_equal(chosen, probabilities.max(0)):
        sys.exit(f"{case.name}: nnU-Net's label map is not the largest of its probabilities; their axes do not fit.")
    names = {value: name for name, value in data.task.structures.items()}
    write_labels(files / f"{case.name}_seg.nii.gz", labels, image, names=names)
    for value, name in names.items():
        path = files / f"{case.name}_prob_{value}.nii.gz"
        write_map(path, probabilities[value], image, description=f"probability of {name}", compact=True)


def _ending(case: Case) -> str:
    image = Path(case.images[0]).name
    return image[image.index("_0000") + len("_0000") :]


def _cost(iterations: int, batch: int, seconds: float, cases: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "iterations": iterations, "batch_size": batch, "seconds": seconds,
        "seconds_per_sample": seconds / (iterations * batch),
        "seconds_per_case": float(np.mean([case["seconds"] for case in cases])),
        "peak_memory_bytes": max(case["peak_memory_bytes"] for case in cases),
    }  # fmt: skip


def collect(runs: Path, dataset: str) -> None:
    """Publish the table, the picture and the lines of the systems page."""
    name = Path(dataset).name
    found = [json.loads(file.read_text()) for file in runs.glob(f"{name}-*/result.json")]
    if not found:
        sys.exit(f"{runs}: nothing was measured on {name} yet")
    if len({(result["cases"], result["threads"]) for result in found}) > 1:
        sys.exit(f"{runs}: the results have different cases or threads, so they do not belong into one table")
    found.sort(key=lambda result: (result["side"] == "nnunet", result["side"], result["minutes"], result["seed"]))
    short = name.split("_", 1)[-1].lower()
    structures = list(found[0]["structures"])
    rows = [
        ("nnU-Net 2" if r["side"] == "nnunet" else r["side"], f"{r['minutes']:g}", r["seed"], r["iterations"],
         *(f"{r['structures'][s][metric]:.3f}" for metric in ("dice", "nsd") for s in structures),
         f"{r['ece']:.4f}", f"{r['band_ece']:.3f}", f"{r['seconds_per_sample']:.3f}", f"{r['seconds_per_case']:.2f}",
         f"{r['peak_memory_bytes'] / 1e9:.2f}")
        for r in found
    ]  # fmt: skip
    draw(found, _PICTURES / "versus_nnunet.png", f"{name}, fold 0 validation")
    first = found[0]
    publish(
        f"versus_nnunet_{short}", {"results": found},
        title=f"{name}: equal minutes of training, {first['cases']} patients of fold 0's validation side, "
        f"{first['threads']} threads",
        columns=("side", "minutes", "seed", "iterations", *(f"Dice {s}" for s in structures),
                 *(f"NSD {s}" for s in structures), "ECE", "band ECE", "seconds per training sample",
                 "seconds per case", "peak GB"),
        rows=rows,
        notes=_NOTES + f"\n\nEvery row: `python "
        f"benchmarks/versus_nnunet.py --dataset {name} --sides SIDE --minutes MINUTES --seed SEED`.",
    )  # fmt: skip
    for result in found:
        if result["side"] != "nnunet":
            _record(result, short)


_NOTES = """NSD at 1 mm (2 px where the spacing is unknown). Band: within 3 voxels of a true or predicted border. Both \
sides are measured from files of label maps and probabilities. Preparation of the data is outside the budget. Our side \
is trained with its defaults for laptops, validation within the budget. nnU-Net 2 has its own plan, network, \
augmentation, loading process and mirrored prediction (8 passes); only its learning-rate schedule runs over the \
budget instead of 1000 epochs, and it does not validate on the way, which leaves it more time. Peak: of the predicting \
process after its last case; nnU-Net's torch is built for GPUs too, which takes part of it."""


def _record(result: dict[str, Any], short: str) -> None:
    record(
        result["side"],
        what=f"{short.capitalize()}, fold 0 validation, {result['minutes']:g} min on {result['threads']} threads, "
        f"seed {result['seed']}",
        result=f"Dice {result['dice']:.3f}, NSD {result['nsd']:.3f}, band ECE {result['band_ece']:.3f}",
        command=f"python benchmarks/versus_nnunet.py --dataset {result['dataset']} --system {result['side']} "
        f"--sides ours --minutes {result['minutes']:g} --seed {result['seed']}",
    )  # fmt: skip


def draw(found: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw mean Dice over minutes of training, a line per side (mean over seeds)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for side in dict.fromkeys(result["side"] for result in found):
        is_reference = side == "nnunet"
        dice: dict[float, list[float]] = {}
        for result in found:
            if result["side"] == side:
                dice.setdefault(result["minutes"], []).append(result["dice"])
        minutes = sorted(dice)
        axes.plot(
            minutes, [np.mean(dice[m]) for m in minutes], marker="s" if is_reference else "o",
            color=ALARM_COLOUR if is_reference else None, label="nnU-Net 2" if is_reference else side,
        )  # fmt: skip
    ticks = sorted({result["minutes"] for result in found})
    axes.set(xscale="log", xlabel="minutes of training", ylabel="mean Dice", ylim=(-0.02, 1.0), title=title)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
