"""`PredictedDice`: the Dice a mask will have against an expert, learned from held-out patients, with a lower bound.

The estimate is that of the model chosen in `regression`. The bound is the one-sided jackknife-minmax of Barber, Candes,
Ramdas, Tibshirani 2021, "Predictive inference with the jackknife+" (arXiv:1905.02928): with f_i the model chosen and
fitted without patient i and r_i = f_i(x_i) - Dice_i its excess there, Dice >= min_i f_i(x) - (the k-th smallest r_i),
k = ceil((n + 1) level), holds for a new patient of the same kind with at least the probability `level`. A patient with
several cases counts with the largest excess, so the bound holds for all cases of a new patient at once.

Masks without voxels are not regressed: their Dice is 0 wherever the structure exists.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from medmargin.errors import ConfigError, DataError
from medmargin.uncertainty.trust.answer_features import FEATURES, CaseFeatures
from medmargin.uncertainty.trust.correlation import rank_correlation
from medmargin.uncertainty.trust.regression import Array, Columns, Model, candidates, choose
from medmargin.uncertainty.trust.stored import Stored

FEWEST_PATIENTS = 5
FEWEST_PATIENTS_OF_A_STRUCTURE = 12
_STANDING = np.linspace(0, 1, 21)
_TELLING = 1.64  # standard errors of a rank correlation: 5 % of unrelated features get there
EMPTY = "no mask was found; if the structure is there, the Dice is 0"


@dataclass(frozen=True)
class ScoredStructure:
    """One structure of one case of a held-out patient: what the answer said, and the Dice it had."""

    case: str
    patient: str
    structure: str
    features: CaseFeatures
    dice: float


class DicePrediction(NamedTuple):
    """What to expect of a mask.

    Attributes:
        dice: estimate in [0, 1].
        at_least: the Dice is at least this with the probability `level`, or None where `reason` says why.
        model: how the estimate was made. patients: held-out patients behind it.
        reason: why there is no bound or no regression; empty otherwise.
    """

    dice: float
    at_least: float | None
    level: float
    model: str
    patients: int
    reason: str = ""


class DiceModel(Stored):
    """The fit for one structure (or for all of them together).

    Attributes:
        chosen: name of the model. model: fitted on all patients.
        errors: candidate -> mean squared error on patients left out.
        without: the model chosen and fitted without each patient. excess: largest prediction - Dice of that patient.
        unused: feature -> why it could not be used.
        standing: feature -> its 0, 5, .. 100 % quantiles over the held-out masks, for the features whose bad side did
            go with a lower Dice there.
    """

    chosen: str
    model: Model
    errors: dict[str, float]
    without: list[Model] = Field(min_length=2)
    excess: list[float] = Field(min_length=2)
    unused: dict[str, str]
    standing: dict[str, list[float]]

    @property
    def patients(self) -> int:
        return len(self.excess)


class PredictedDice(Stored):
    """Fitted on held-out patients by `fit`; `predict` is then asked for every new answer.

    Attributes:
        structures: structure -> its own fit, where at least 12 patients show it.
        pooled: the fit to all structures together, for the others.
        names: every structure that was seen.
    """

    structures: dict[str, DiceModel]
    pooled: DiceModel
    names: list[str]

    @classmethod
    def fit(cls, scored: Sequence[ScoredStructure]) -> PredictedDice:
        """Learn from held-out patients.

        Args:
            scored: structures of cases; those without mask are left out.

        Raises:
            DataError: a Dice is not in [0, 1], a feature is NaN, or fewer than 5 patients have a mask.
        """
        _require_sound(scored)
        shown = [entry for entry in scored if entry.features.voxels]
        names = sorted({entry.structure for entry in scored})
        own = {name: [entry for entry in shown if entry.structure == name] for name in names}
        enough = {n: e for n, e in own.items() if _patients(e) >= FEWEST_PATIENTS_OF_A_STRUCTURE}
        pooled = _fit(shown)
        if len(names) == 1:
            return cls(structures=dict.fromkeys(enough, pooled), pooled=pooled, names=names)
        return cls(structures={name: _fit(entries) for name, entries in enough.items()}, pooled=pooled, names=names)

    def predict(self, structure: str, features: CaseFeatures, *, level: float = 0.9) -> DicePrediction:
        """Predict the Dice of one structure of a new answer.

        Args:
            structure: its name. features: of the answer. level: probability of the bound, in (0, 1).

        Raises:
            ConfigError: the level is not between 0 and 1.
            DataError: a structure that calibration has not seen, or a feature it used and this answer lacks.
        """
        if not 0 < level < 1:
            raise ConfigError(f"level of the Dice bound is {level}; expected a probability between 0 and 1")
        fitted = self._of(structure)
        if not features.voxels:
            return DicePrediction(0.0, 0.0, level, "no mask", fitted.patients, EMPTY)
        columns = _columns_of(features, fitted, structure)
        estimate = float(fitted.model.predict(columns, 1)[0])
        bound, reason = _bound(fitted, columns, level)
        at_least = None if bound is None else min(bound, estimate)
        scope = "" if structure in self.structures else ", all structures together"
        return DicePrediction(estimate, at_least, level, fitted.chosen + scope, fitted.patients, reason)

    def standing(self, structure: str, features: CaseFeatures) -> dict[str, float]:
        """Rank a mask among the held-out ones: feature -> share of them, in [0, 1], that look better than it.

        Only features that told good from bad masks there; which they are depends on the network and its uncertainty.
        """
        found = {}
        for feature, quantiles in self._of(structure).standing.items():
            value = features.values[feature]
            if value is not None and quantiles[0] < quantiles[-1]:
                below = float(np.interp(value, quantiles, _STANDING))
                found[feature] = below if FEATURES[feature].bad_side > 0 else 1 - below
        return found

    def _of(self, structure: str) -> DiceModel:
        if structure not in self.names:
            known = ", ".join(self.names)
            raise DataError(f"structure '{structure}' was not calibrated; expected one of {known}. Calibrate again.")
        return self.structures.get(structure, self.pooled)


def patients_needed(level: float) -> int:
    """Count the held-out patients a bound of this level needs: n >= 1 / (1 - level) - 1."""
    return math.ceil(1 / (1 - level) - 1 - 1e-9)


def _bound(fitted: DiceModel, columns: Columns, level: float) -> tuple[float | None, str]:
    count, needed = fitted.patients, patients_needed(level)
    if count < needed:
        reason = f"a bound that holds with {level:.0%} needs {needed} held-out patients, found {count}"
        return None, reason
    rank = min(math.ceil((count + 1) * level - 1e-9), count)
    lowest = min(float(model.predict(columns, 1)[0]) for model in fitted.without)
    return max(lowest - sorted(fitted.excess)[rank - 1], 0.0), ""


def _fit(entries: Sequence[ScoredStructure]) -> DiceModel:
    names, patients = np.unique([entry.patient for entry in entries], return_inverse=True)
    columns, unused = _columns(entries)
    dice = np.array([entry.dice for entry in entries], np.float64)
    weights = 1 / np.bincount(patients)[patients]  # every patient counts once
    everyone = np.ones(len(entries), bool)
    model, chosen, errors = _chosen(columns, dice, patients, weights, everyone)
    without, excess = [], []
    for patient in range(len(names)):
        left = patients == patient
        held_out, _, _ = _chosen(columns, dice, patients, weights, ~left)
        without.append(held_out)
        excess.append(float((held_out.predict(_rows(columns, left), int(left.sum())) - dice[left]).max()))
    telling = [name for name, column in columns.items() if _is_telling(name, column, dice)]
    standing = {name: np.quantile(columns[name], _STANDING).tolist() for name in telling}
    return DiceModel(
        chosen=chosen, model=model, errors=errors, without=without, excess=excess, unused=unused, standing=standing
    )


def _chosen(
    columns: Columns, dice: Array, patients: NDArray[np.intp], weights: Array, rows: NDArray[np.bool_]
) -> tuple[Model, str, dict[str, float]]:
    """Choose and fit on some rows; the choice belongs to the fit, or the bound would not hold."""
    inside = _rows(columns, rows)
    _, renumbered = np.unique(patients[rows], return_inverse=True)
    choice = choose(inside, dice[rows], renumbered, weights[rows])
    return candidates(inside)[choice.name](inside, dice[rows], weights[rows]), choice.name, choice.errors


def _rows(columns: Columns, rows: NDArray[np.bool_]) -> dict[str, Array]:
    return {name: column[rows] for name, column in columns.items()}


def _columns(entries: Sequence[ScoredStructure]) -> tuple[dict[str, Array], dict[str, str]]:
    """Give the features that every case has and that differ between cases; say why the others are not used."""
    columns, unused = {}, {}
    for name in FEATURES:
        values = [entry.features.values[name] for entry in entries]
        missing = sum(value is None for value in values)
        if missing:
            unused[name] = f"{missing} of {len(values)} held-out cases do not have it"
            continue
        column = np.array(values, np.float64)
        if np.ptp(column) == 0:
            unused[name] = "the same in all held-out cases"
            continue
        columns[name] = column
    return columns, unused


def _columns_of(features: CaseFeatures, fitted: DiceModel, structure: str) -> dict[str, Array]:
    needed = {name for model in (fitted.model, *fitted.without) for name in model.features}
    columns = {}
    for name in sorted(needed, key=list(FEATURES).index):
        value = features.values[name]
        if value is None or not np.isfinite(value):
            raise DataError(
                f"{structure}: the answer has no '{name}', on which its predicted Dice was calibrated. Predict with "
                "the uncertainty that was used in 'medmargin calibrate', or calibrate again with this one."
            )
        columns[name] = np.array([value], np.float64)
    return columns


def _is_telling(feature: str, column: Array, dice: Array) -> bool:
    rho = rank_correlation(column, dice)
    return rho is not None and -FEATURES[feature].bad_side * rho * np.sqrt(len(dice)) >= _TELLING


def _patients(entries: Sequence[ScoredStructure]) -> int:
    return len({entry.patient for entry in entries})


def _require_sound(scored: Sequence[ScoredStructure]) -> None:
    for entry in scored:
        where = f"{entry.case}, {entry.structure}"
        if not 0 <= entry.dice <= 1:
            raise DataError(f"{where}: Dice {entry.dice}; expected a number between 0 and 1")
        bad = [name for name, value in entry.features.values.items() if value is not None and not np.isfinite(value)]
        if bad:
            raise DataError(f"{where}: feature '{bad[0]}' is {entry.features.values[bad[0]]}; expected a finite number")
    found = _patients([entry for entry in scored if entry.features.voxels])
    if found < FEWEST_PATIENTS:
        raise DataError(
            f"predicted Dice: {found} held-out patients with a mask; expected at least {FEWEST_PATIENTS}, and "
            f"{patients_needed(0.9)} for a bound that holds with 90 %. Hold out more patients for calibration."
        )
