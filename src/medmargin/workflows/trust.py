"""Trust in whole cases along the journeys: training images, the review list, and how well it foretells."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medmargin.datasets.dataset import Dataset
from medmargin.datasets.loading import load_image
from medmargin.errors import DataError
from medmargin.inference.embedding import image_embedding
from medmargin.inference.stack import SliceStack
from medmargin.inference.trust import CaseTrust
from medmargin.storage import atomic_path, write_json
from medmargin.uncertainty.trust import (
    CaseForReview,
    OutOfDistribution,
    StructureForReview,
    image_features,
    review_list,
    spearman,
)
from medmargin.workflows.model import Model

_MOST_CASES = 200  # of the reference: more take time and change little


def training_reference(model: Model, data: Dataset) -> tuple[OutOfDistribution | None, str]:
    """Learn what the images are like that the run was trained on.

    Args:
        data: the calibration data set; of the training cases those are used that it holds, at most 200, drawn from a
            fixed seed.

    Returns:
        The reference, or None with the reason.
    """
    held = {case.name: case for case in (*data.cases, *data.unlabelled_cases, *data.test_cases)}
    names = [name for name in model.run.config.data.get("train", ()) if name in held]
    if not names:
        return None, f"'{data.name}' does not hold the images that the run was trained on"
    if len(names) > _MOST_CASES:
        names = sorted(np.random.default_rng(0).choice(names, _MOST_CASES, replace=False).tolist())
    predictor = model.predictor
    network = predictor.networks[0] if hasattr(predictor, "networks") else predictor.network
    features = []
    try:
        for name in names:
            image = load_image(held[name], data.task)
            embedding = None
            if hasattr(network, "image_encoder"):
                embedding = image_embedding(network, SliceStack(image, predictor.normalise), predictor.threads)
            features.append(image_features(image, modality=data.task.modality, embedding=embedding))
        return OutOfDistribution.fit(features, [held[name].patient for name in names]), ""
    except DataError as error:
        return None, str(error)


def write_review(folder: Path, cases: Iterable[tuple[str, str, CaseTrust | None]]) -> tuple[list[Path], str]:
    """Write `review.csv` and `review.json`: which cases to look at first, why, and at which slice.

    Args:
        cases: name, patient and trust of each.

    Returns:
        The files, or none with the reason.
    """
    rows: list[CaseForReview] = []
    reasons: set[str] = set()
    for case, patient, trust in cases:
        if trust is None or not trust.predictions:
            reasons.add("the run is not calibrated" if trust is None else _no_prediction(trust))
            continue
        structures = {
            name: StructureForReview(trust.features[name], prediction, trust.standing[name])
            for name, prediction in trust.predictions.items()
        }
        rows.append(CaseForReview(case, patient, structures, trust.familiarity))
    if not rows:
        return [], "; ".join(sorted(reasons)) or "no case was predicted"
    listed = review_list(rows)
    table, readable = folder / "review.csv", folder / "review.json"
    with atomic_path(table) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(listed[0]))
        writer.writeheader()
        writer.writerows(listed)
    write_json(readable, listed)
    return [table, readable], ""


def _no_prediction(trust: CaseTrust) -> str:
    return trust.reasons.get("predicted_dice", "no structure was calibrated")


def predicted_dice_entry(trust: CaseTrust) -> dict[str, Any]:
    """Give a case's predicted Dice by structure, as `evaluate --json` has it."""
    return {
        name: {"dice": prediction.dice, "at_least": prediction.at_least, "level": prediction.level}
        | ({"at_least_reason": prediction.reason} if prediction.at_least is None else {})
        for name, prediction in trust.predictions.items()
    }


def summarise_trust(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Compare predicted with true Dice over the cases of an evaluation; None where nothing was predicted.

    Returns:
        "spearman" over all masks and "structures" -> Spearman's correlation with its interval over patients, how often
        the lower bound of the Dice held ("held" of "n", by "level"), and how many images are unlike training.
    """
    pairs: dict[str, list[tuple[str, float, float, float | None]]] = {}
    for entry in entries:
        for name, predicted in entry.get("predicted_dice", {}).items():
            measured = entry["structures"][name]
            if measured["state"] != "absent":  # where there is nothing, and nothing was found, no mask can be judged
                pair = entry["patient"], predicted["dice"], measured["dice"], predicted["at_least"]
                pairs.setdefault(name, []).append(pair)
    if not pairs:
        return None
    everything = [pair for found in pairs.values() for pair in found]
    judged = [entry["out_of_distribution"] for entry in entries if entry.get("out_of_distribution")]
    return {
        **_compared(everything),
        "structures": {name: _compared(found) for name, found in pairs.items()},
        "unlike_training": {"flagged": sum(found["flagged"] for found in judged), "n": len(judged)},
    }


def _compared(pairs: Sequence[tuple[str, float, float, float | None]]) -> dict[str, Any]:
    patients, predicted, true, bounds = zip(*pairs, strict=True)
    bounded = [dice >= bound for dice, bound in zip(true, bounds, strict=True) if bound is not None]
    return {
        "spearman": asdict(spearman(predicted, true, patients)),
        "mean_absolute_error": float(np.abs(np.subtract(predicted, true)).mean()),
        "bound": {"held": sum(bounded), "n": len(bounded)},
    }
