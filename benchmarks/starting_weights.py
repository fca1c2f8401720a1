"""Train the weights that ship with the package, on generated images and two data sets without share-alike terms.

    python benchmarks/starting_weights.py --minutes 75 --out runs/starting-weights [--data FOLDER]
    python benchmarks/starting_weights.py --out runs/starting-weights --resume
    python benchmarks/starting_weights.py --out runs/starting-weights --ship

`--data` holds Dataset901_BUSI and Dataset904_DSB2018; only the training side of their fold 0 is used. `--ship` writes
the finished weights, in half precision, with their model card into the package.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch

from medmargin.datasets import Task, open_dataset
from medmargin.learning import (
    Budget,
    FixedItems,
    GeneratedPictures,
    Mixture,
    Optimisation,
    PromptedLearner,
    PromptedSlices,
    Prompting,
    cache_cases,
    fit,
)  # fmt: skip
from medmargin.losses.promptable import PromptableLoss
from medmargin.networks.starting_points import SHIPPED, promptable_network
from medmargin.optim.schedules import cosine_with_warmup
from medmargin.runs import RunConfig, describe_environment, read_weights, write_model_card, write_run, write_weights
from medmargin.systems.registry import resolve_arguments
from medmargin.transforms import Augmentation
from reporting import RESULTS

SETS = {"Dataset901_BUSI": 0.12, "Dataset904_DSB2018": 0.08}
LEARNING_RATE, BATCH = 1.2e-3, 16
SETTINGS = {"init": "none", "rho": 0.0, "lr": LEARNING_RATE, "batch_size": BATCH, "box_jitter": 3,
            "loss_lr_factor": 5.0}  # fmt: skip


def main() -> None:
    """Train, or ship what was trained."""
    options = parsed()
    if options.ship:
        ship(options.out)
        return
    torch.manual_seed(options.seed)
    arguments = resolve_arguments("u-medsam", "laptop", SETTINGS)
    network = promptable_network(arguments["encoder"], image_size=arguments["image_size"])
    generated = GeneratedPictures()
    sources, weights, names = [generated], [1.0], dict[str, list[str]]()
    for name, weight in SETS.items() if options.data else ():
        data = open_dataset(options.data / name)
        cases = data.split("train", 0)
        sources.append(cache_cases(cases, data.task, options.out / "cache" / name))
        weights.append(weight)
        names[name] = [case.name for case in cases]
    loss = PromptableLoss()
    prompting = Prompting(arguments["image_size"], frame_margin=(0.1, 0.7), frame_shift=0.1, box_jitter=3)
    augmentation = Augmentation(turns=True, rotation=20, gamma=0.4, contrast=0.2, brightness=0.1, noise=0.03)
    stream = PromptedSlices(
        Mixture(sources, weights), prompting, options.seed, augmentation, loss.distance_map
    )
    optimisation = Optimisation(
        lr=LEARNING_RATE, weight_decay=0.02, clip_norm=12.0, average_decay=0.998, loss_lr_factor=5.0,
        schedule=partial(cosine_with_warmup, warmup_steps=200),
    )  # fmt: skip
    budget = Budget(minutes=options.minutes) if options.steps is None else Budget(steps=options.steps)
    describe(options, arguments, budget, names)
    outcome = fit(
        PromptedLearner(network, loss, optimisation),
        stream,
        FixedItems(stream.undisturbed(generated), 512),
        folder=options.out,
        budget=budget,
        batch_size=BATCH,
        seed=options.seed,
        precision="bf16-mixed",
        workers=1,
        resume=options.resume,
        validate_every=1000,
        log_every=50,
    )
    print(outcome)


def describe(options: argparse.Namespace, arguments: dict, budget: Budget, names: dict[str, list[str]]) -> None:
    """Write `config.json`: the laptop's arguments, a task without structures, and what was learned from."""
    task = Task("any prompted object", ("image",), {}, dims=2)
    config = RunConfig(
        system="u-medsam",
        arguments={**resolve_arguments("u-medsam", "laptop", {}), "init": "none"},
        task=asdict(task),
        seed=options.seed,
        threads=torch.get_num_threads(),
        budget=budget.as_dict(),
        data={"generated pictures": "medmargin.datasets.phantoms.lesson", **names, "trained with": {**arguments}},
        command=["python", *sys.argv],
        scale="laptop",
        **describe_environment(),
    )
    write_run(options.out, config)


def ship(out: Path) -> None:
    """Put finished weights into the package, in half precision (relative rounding 5e-4), with their description."""
    from medmargin.runs import read_run

    run = read_run(out)
    target = SHIPPED / "u-medsam"
    arguments = resolve_arguments("u-medsam", "laptop", {"init": "none"})
    words = pairwise(["", *run.config.command])
    command = ["$MEDMARGIN_DATA" if before == "--data" else word for before, word in words]
    config = run.config.model_copy(update={"arguments": arguments, "command": command})
    state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in
             read_weights(out / "model.safetensors").items()}  # fmt: skip
    shipped = write_run(target, config)
    write_weights(target / "model.safetensors", state)
    write_model_card(
        shipped,
        summary="Starting weights of U-MedSAM (arXiv:2408.08881) at laptop scale: the compact network, trained with "
        "the paper's learned loss weighting on generated pictures and, for one object in six, on the training side of "
        "BUSI (CC0 1.0; Al-Dhabyani et al. 2020) and DSB2018 (CC0 1.0; Caicedo et al. 2019). SharpMin was off: it "
        "belongs to the fine-tuning.",
        results=zero_shot(),
    )
    print(f"{target}: {(target / 'model.safetensors').stat().st_size / 1e6:.1f} MB")


def zero_shot() -> dict[str, str]:
    """Read what `zero_shot.py` measured: Dice beside the ellipse's, per data set; nothing before its first run."""
    path = RESULTS / "zero_shot.json"
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))["results"]
    return {
        f"zero-shot Dice, {name.split('_', 1)[1]} ({result['n']} cases)": f"{result['mean']['dice']:.3f} "
        f"(ellipse alone {result['floors']['ellipse']['dice']:.3f})"
        for name, result in found.items()
    }


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--ship", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
