"""`review_list`: which cases a person should look at first, why, and at which slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medmargin.errors import DataError
from medmargin.uncertainty.trust.answer_features import FEATURES, CaseFeatures
from medmargin.uncertainty.trust.out_of_distribution import Familiarity
from medmargin.uncertainty.trust.predicted_dice import DicePrediction

STANDS_OUT = 0.8
"""Share of held-out masks that must look better before a feature is named as the reason."""
_AXIS = "ijk"


@dataclass(frozen=True)
class StructureForReview:
    """One structure of a case.

    Attributes:
        features: of the answer. prediction: its predicted Dice.
        standing: feature -> share of held-out masks that look better (`PredictedDice.standing`).
    """

    features: CaseFeatures
    prediction: DicePrediction
    standing: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseForReview:
    """One case; `familiarity` is None where no training images were measured."""

    case: str
    patient: str
    structures: Mapping[str, StructureForReview]
    familiarity: Familiarity | None = None


def review_list(cases: Sequence[CaseForReview]) -> list[dict[str, Any]]:
    """Order cases by how much a look at them is worth.

    Cases unlike the training images come first, because no prediction can be relied on there; then by falling expected
    error, which is 1 - the predicted Dice of the case's worst structure; then by name.

    Args:
        cases: each with at least one structure.

    Returns:
        One flat object per case, ready for JSON and CSV: "rank" (from 1), "case", "patient", "structure" (the worst),
        "expected_error", "predicted_dice", "dice_at_least" (None where there is no bound) and "level",
        "unlike_training" (None where not measured), "slice" (index from 0 in the file's own grid), "axis" ("i", "j",
        "k") and "reason" in words.

    Raises:
        DataError: a case has no structure.
    """
    for case in cases:
        if not case.structures:
            raise DataError(f"{case.case}: no structure was predicted; expected at least one to review")
    rows = sorted((_row(case) for case in cases), key=_urgency)
    return [{"rank": rank, **row} for rank, row in enumerate(rows, start=1)]


def _urgency(row: Mapping[str, Any]) -> tuple[bool, float, str]:
    return not row["unlike_training"], -row["expected_error"], row["case"]


def _row(case: CaseForReview) -> dict[str, Any]:
    name, worst = min(case.structures.items(), key=lambda pair: (pair[1].prediction.dice, pair[0]))
    prediction, look = worst.prediction, worst.features.look
    return {
        "case": case.case,
        "patient": case.patient,
        "structure": name,
        "expected_error": 1 - prediction.dice,
        "predicted_dice": prediction.dice,
        "dice_at_least": prediction.at_least,
        "level": prediction.level,
        "unlike_training": None if case.familiarity is None else case.familiarity.flagged,
        "slice": look.index,
        "axis": _AXIS[look.axis],
        "reason": _reason(case, name, worst),
    }


def _reason(case: CaseForReview, name: str, worst: StructureForReview) -> str:
    sentences = []
    if case.familiarity is not None and case.familiarity.flagged:
        sentences.append(case.familiarity.message)
    if not worst.features.voxels:
        return " ".join([*sentences, f"{name}: no mask was found. If the structure is there, it was missed."])
    prediction = worst.prediction
    sentence = f"{name}: the mask is expected to reach a Dice of {prediction.dice:.2f} (1 is perfect)"
    if prediction.at_least is not None:
        sentence += f", and at least {prediction.at_least:.2f} in {100 * prediction.level:.0f} of 100 patients"
    return " ".join([*sentences, f"{sentence}.", _why(worst)])


def _why(worst: StructureForReview) -> str:
    standing = {feature: share for feature, share in worst.standing.items() if feature != "expected_dice"}
    feature, share = max(standing.items(), key=lambda pair: pair[1], default=("", 0.0))
    if share < STANDS_OUT:
        feature, share = "expected_dice", worst.standing.get("expected_dice", 0.0)
    if share < STANDS_OUT:
        return "Nothing in its mask stands out."
    sentence = FEATURES[feature].sentence
    if feature == "largest_piece":
        sentence += f" ({worst.features.pieces})"
    better = f"{100 * share:.0f} of 100 calibration masks look better in this"
    return f"{sentence[0].upper()}{sentence[1:]}: {better}."
