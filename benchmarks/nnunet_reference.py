"""nnU-Net 2 with a budget in minutes; runs inside nnU-Net's own environment and imports nothing of this package.

    ENVIRONMENT/bin/python nnunet_reference.py prepare Dataset004_Hippocampus
    ENVIRONMENT/bin/python nnunet_reference.py train Dataset004_Hippocampus --minutes 10 --seed 0 --out train.json
    ENVIRONMENT/bin/python nnunet_reference.py predict Dataset004_Hippocampus RAW CASE... --files FOLDER --out out.json

Isensee et al. 2021, doi:10.1038/s41592-020-01008-z. `versus_nnunet.py` calls it and sets the folders nnU-Net reads from
the environment (nnUNet_raw, nnUNet_preprocessed, nnUNet_results) and its numbers of processes.

Plans, network, loss, optimiser, augmentation, loading process and mirrored prediction are nnU-Net's own defaults.
Deviations, all in its favour where time is short:
- Training ends with the budget. The polynomial schedule therefore runs over the share of the budget that is gone before
  each iteration instead of over 1000 epochs, which a budget of minutes never reaches.
- No pseudo-validation on the way (50 iterations after every 250): the time goes to training; the last weights are kept.
- Process start, import and the first batch of the loading process lie before the budget.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CONFIGURATION = "3d_fullres"
_FOLD = 0
_EXPONENT = 0.9  # of nnU-Net's PolyLRScheduler


def main() -> None:
    """Do one of the three things."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    work = parser.add_subparsers(dest="work", required=True)
    work.add_parser("prepare").add_argument("dataset")
    training = work.add_parser("train")
    training.add_argument("dataset")
    training.add_argument("--minutes", type=float, required=True)
    training.add_argument("--seed", type=int, default=0)
    prediction = work.add_parser("predict")
    prediction.add_argument("dataset")
    prediction.add_argument("raw", type=Path, help="folder of the raw data set")
    prediction.add_argument("cases", nargs="+")
    prediction.add_argument("--files", type=Path, required=True, help="folder of label maps and probabilities")
    for each in (training, prediction):
        each.add_argument("--out", type=Path, required=True, help="JSON file of what was measured")
    options = parser.parse_args()
    if options.work == "prepare":
        prepare(options.dataset)
        return
    if options.work == "train":
        found = train(options.dataset, options.minutes, options.seed)
    else:
        found = predict(options.dataset, options.raw, options.cases, options.files)
    options.out.write_text(json.dumps(found, indent=1))


def prepare(dataset: str) -> None:
    """Plan and preprocess with nnU-Net's own command, one process."""
    number = re.fullmatch(r"Dataset(\d{3})_.+", dataset)
    if number is None:
        sys.exit(f"{dataset}: nnU-Net needs a folder named Dataset<three digits>_<name>")
    tool = Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess")
    arguments = ["-d", str(int(number[1])), "-c", CONFIGURATION, "-np", "1", "-npfp", "1", "--no_pbar"]
    subprocess.run([str(tool), *arguments], check=True)


def train(dataset: str, minutes: float, seed: int) -> dict[str, Any]:
    """Train for a budget of wall-clock time and keep the last weights.

    Returns:
        iterations, batch_size, seconds, losses (every iteration), peak_memory_bytes and versions.
    """
    import numpy as np
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    torch.manual_seed(seed)
    np.random.seed(seed)  # the loading process stays unseeded, as always in nnU-Net
    trainer = get_trainer_from_args(dataset, CONFIGURATION, _FOLD, device=torch.device("cpu"))
    trainer.on_train_start()
    trainer.network.train()
    losses, budget, started = [], 60 * minutes, time.monotonic()
    while (gone := time.monotonic() - started) < budget:  # the last iteration may end after the budget
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - gone / budget) ** _EXPONENT
        losses.append(float(trainer.train_step(next(trainer.dataloader_train))["loss"]))
    seconds = time.monotonic() - started
    trainer.on_train_end()
    return {
        "iterations": len(losses), "batch_size": trainer.batch_size, "seconds": seconds, "losses": losses,
        "patch": list(trainer.configuration_manager.patch_size), "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "peak_memory_bytes": peak_memory(), "versions": versions(),
    }  # fmt: skip


def predict(dataset: str, raw: Path, cases: list[str], files: Path) -> dict[str, Any]:
    """Predict one case after the other with probabilities, as `nnUNetv2_predict --save_probabilities` would.

    Returns:
        cases: name, seconds (reading, predicting and writing) and peak_memory_bytes of the process when it was done;
        memory_before_bytes: the same before the first case; mirrors: passes per window.
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.paths import nnUNet_results

    files.mkdir(parents=True, exist_ok=True)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    model = Path(nnUNet_results) / dataset / f"nnUNetTrainer__nnUNetPlans__{CONFIGURATION}"
    predictor.initialize_from_trained_model_folder(str(model), (_FOLD,), "checkpoint_final.pth")
    ending, channels = predictor.dataset_json["file_ending"], len(predictor.dataset_json["channel_names"])
    before, found = peak_memory(), []
    for case in cases:
        images = [str(raw / "imagesTr" / f"{case}_{channel:04d}{ending}") for channel in range(channels)]
        began = time.monotonic()
        predictor.predict_from_files_sequential([images], [str(files / case)], save_probabilities=True)
        seconds = time.monotonic() - began
        found.append({"case": case, "seconds": seconds, "peak_memory_bytes": peak_memory()})
    return {
        "cases": found, "memory_before_bytes": before, "passes": 2 ** len(predictor.allowed_mirroring_axes or ()),
        "threads": torch.get_num_threads(), "versions": versions(),
    }  # fmt: skip


def peak_memory() -> int | None:
    """Most bytes of physical memory this process has held (VmHWM, which exec sets back), None where Linux does not say.

    Loading processes are not in it.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024


def versions() -> dict[str, str]:
    """Versions that decide the figures."""
    from importlib.metadata import version

    return {name: version(name) for name in ("nnunetv2", "torch", "numpy")}


if __name__ == "__main__":
    main()
