"""`Trust`: what held-out patients taught about trusting whole cases, as it stands in `trust.json`; and its verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from medmargin.errors import CheckpointError
from medmargin.storage import write_json
from medmargin.uncertainty.trust import (
    CaseFeatures,
    DicePrediction,
    Familiarity,
    OutOfDistribution,
    PredictedDice,
    case_features,
    image_features,
)
from medmargin.uncertainty.trust.stored import Stored

if TYPE_CHECKING:
    from medmargin.inference.segmentation import Segmentation


@dataclass(frozen=True)
class CaseTrust:
    """How far one answer can be trusted.

    Attributes:
        features: structure -> what its answer says about itself.
        predictions: structure -> predicted Dice. standing: structure -> how it compares with held-out masks.
        familiarity: whether the image is like the training images, or None.
        reasons: why there is no predicted Dice ("predicted_dice") or no comparison ("out_of_distribution").
    """

    features: Mapping[str, CaseFeatures]
    predictions: Mapping[str, DicePrediction]
    standing: Mapping[str, Mapping[str, float]]
    familiarity: Familiarity | None
    reasons: Mapping[str, str]

    def summary(self) -> dict[str, Any]:
        """Give the verdict as an object for JSON: "structures" and "out_of_distribution"."""
        found: dict[str, Any] = {
            "structures": {
                name: {
                    "predicted_dice": prediction.dice,
                    "dice_at_least": prediction.at_least,
                    "level": prediction.level,
                    "model": prediction.model,
                    "patients": prediction.patients,
                    "reason": prediction.reason,
                }
                for name, prediction in self.predictions.items()
            },
            "out_of_distribution": None if self.familiarity is None else self.familiarity.summary(),
        }
        return found | {f"{name}_reason": reason for name, reason in self.reasons.items()}


class Trust(Stored):
    """What is needed to judge a new case.

    Attributes:
        format: version of the file's layout.
        level: of the bounds of the Dice. modality: of the images, see `Task`.
        predicted_dice: fitted on held-out patients. out_of_distribution: fitted on training images.
        reasons: why one of them is None.
    """

    format: Literal[1] = 1
    level: float = Field(gt=0, lt=1)
    modality: str
    predicted_dice: PredictedDice | None
    out_of_distribution: OutOfDistribution | None
    reasons: dict[str, str] = Field(default_factory=dict)

    @property
    def needs_embedding(self) -> bool:
        """Whether images are compared by the network's description too."""
        return self.out_of_distribution is not None and self.out_of_distribution.embedding is not None

    def assess(self, answer: Segmentation, embedding: NDArray[np.floating] | None) -> CaseTrust:
        """Judge an answer, as rescaled and before its volume intervals are stretched.

        Args:
            embedding: the network's description of the image, where `needs_embedding`.
        """
        features = features_of(answer)
        model = self.predicted_dice
        known = {} if model is None else {name: f for name, f in features.items() if name in model.names}
        familiarity = None
        if self.out_of_distribution is not None:
            image = image_features(answer.image, modality=self.modality, embedding=embedding)
            familiarity = self.out_of_distribution.judge(image)
        return CaseTrust(
            features,
            {} if model is None else {name: model.predict(name, f, level=self.level) for name, f in known.items()},
            {} if model is None else {name: model.standing(name, f) for name, f in known.items()},
            familiarity,
            self.reasons,
        )


def features_of(answer: Segmentation) -> dict[str, CaseFeatures]:
    """Measure what an answer says about itself, the same way when trust is fitted and when it is asked for."""
    return case_features(
        answer.labels,
        answer.structures,
        total=answer.uncertainty["total"],
        epistemic=answer.uncertainty.get("epistemic"),
        vacuity=answer.maps.get("vacuity"),
        spacing=answer.image.grid.spacing,
        members=answer.members or None,
    )


def write_trust(path: Path | str, trust: Trust) -> None:
    """Write `trust.json`. Raises BudgetError where it cannot be written."""
    write_json(path, trust.to_json())


def read_trust(path: Path | str) -> Trust:
    """Read `trust.json`.

    Raises:
        CheckpointError: it cannot be read or is damaged; the message names the field.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). Calibrate the run again.") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}). The file is damaged; calibrate the run again.") from error
    return Trust.from_json(content, source=path)
