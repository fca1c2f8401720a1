"""From features to Dice with few patients: a constant, an isotonic curve on one score, or ridge regression.

All answer in [0, 1] and none extrapolates: a feature outside the range seen counts as the end of that range. Which one
is used is decided by their error on patients left out (`choose`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import isotonic_regression

from medmargin.uncertainty.trust.stored import Stored

Array = NDArray[np.float64]
Columns = Mapping[str, Array]

PENALTIES = (0.01, 0.1, 1.0)
ISOTONIC = {"expected_dice": True, "border_uncertainty": False}
"""Scores an isotonic curve is tried on, and whether Dice rises with them."""
_FOLDS = 10


class Constant(Stored):
    """The mean Dice, whatever the features say."""

    kind: Literal["constant"] = "constant"
    dice: float

    def predict(self, columns: Columns, count: int) -> Array:
        """Predict `count` masks; `columns` hold as many values each."""
        return np.full(count, self.dice)

    @property
    def features(self) -> tuple[str, ...]:
        return ()


class Isotonic(Stored):
    """A curve that never falls (or never rises) in one feature: linear between the knots, flat outside them."""

    kind: Literal["isotonic"] = "isotonic"
    feature: str
    at: list[float] = Field(min_length=1)
    dice: list[float] = Field(min_length=1)

    def predict(self, columns: Columns, count: int) -> Array:
        """Predict `count` masks; `columns` hold as many values each."""
        return np.interp(columns[self.feature], self.at, self.dice)

    @property
    def features(self) -> tuple[str, ...]:
        return (self.feature,)


class Ridge(Stored):
    """intercept + sum_f weight_f (x_f - centre_f), x_f cut to [low_f, high_f], the answer cut to [0, 1]."""

    kind: Literal["ridge"] = "ridge"
    penalty: float = Field(gt=0)
    intercept: float
    terms: dict[str, tuple[float, float, float, float]]  # feature -> (weight, centre, low, high)

    def predict(self, columns: Columns, count: int) -> Array:
        """Predict `count` masks; `columns` hold as many values each."""
        answer: Array | float = self.intercept
        for feature, (weight, centre, low, high) in self.terms.items():
            answer = answer + weight * (np.clip(columns[feature], low, high) - centre)
        return np.clip(answer, 0, 1)

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self.terms)


Model = Annotated[Constant | Isotonic | Ridge, Field(discriminator="kind")]
Fit = Callable[[Columns, Array, Array], Constant | Isotonic | Ridge]


class Choice(NamedTuple):
    """The chosen model's name and, per candidate, its mean squared error on patients left out."""

    name: str
    errors: dict[str, float]


def candidates(columns: Columns) -> dict[str, Fit]:
    """List what is tried on these features: name -> fit(columns, dice [N], weights [N])."""
    found: dict[str, Fit] = {"constant": _fit_constant}
    for feature, rising in ISOTONIC.items():
        if feature in columns:
            found[f"isotonic on {feature}"] = partial(fit_isotonic, feature=feature, rising=rising)
    if columns:
        for penalty in PENALTIES:
            found[f"ridge, penalty {penalty:g}"] = partial(fit_ridge, penalty=penalty)
    return found


def choose(columns: Columns, dice: Array, patients: NDArray[np.intp], weights: Array) -> Choice:
    """Compare the candidates on patients left out.

    Ten folds of patients (one patient at a time up to ten patients), drawn once from a fixed seed. The constant is only
    left for a candidate whose squared error is smaller by more than one standard error of the difference over patients:
    with few patients a curve through noise would otherwise win by luck.
    """
    count = int(patients.max()) + 1
    fold = (np.random.default_rng(count).permutation(count) % min(_FOLDS, count))[patients]
    size = np.bincount(patients, weights)
    errors: dict[str, Array] = {}
    fits = candidates(columns)
    predicted = {name: np.empty_like(dice) for name in fits}
    for left in range(int(fold.max()) + 1):
        out, kept = fold == left, fold != left
        inside, outside = ({f: c[rows] for f, c in columns.items()} for rows in (kept, out))
        for name, fit in fits.items():
            predicted[name][out] = fit(inside, dice[kept], weights[kept]).predict(outside, int(out.sum()))
    for name, values in predicted.items():
        errors[name] = np.bincount(patients, weights * (values - dice) ** 2) / size
    means = {name: float(values.mean()) for name, values in errors.items()}
    best = min(means, key=lambda name: means[name])
    gain = errors["constant"] - errors[best]
    if gain.mean() <= gain.std(ddof=1) / np.sqrt(count):
        best = "constant"
    return Choice(best, means)


def _fit_constant(columns: Columns, dice: Array, weights: Array) -> Constant:
    return Constant.model_construct(dice=float(np.average(dice, weights=weights)))


def fit_isotonic(columns: Columns, dice: Array, weights: Array, *, feature: str, rising: bool) -> Isotonic:
    """Fit the weighted least-squares curve that never falls (rises) in `feature`, by pooling adjacent violators."""
    at, place = np.unique(columns[feature], return_inverse=True)
    weight = np.bincount(place, weights)
    curve = isotonic_regression(np.bincount(place, weights * dice) / weight, weights=weight, increasing=rising).x
    curve = np.clip(curve, 0, 1)
    steps = np.diff(curve) != 0
    edge = np.r_[True, steps] | np.r_[steps, True]  # the ends of every flat piece say it all
    return Isotonic.model_construct(feature=feature, at=at[edge].round(6).tolist(), dice=curve[edge].round(6).tolist())


def fit_ridge(columns: Columns, dice: Array, weights: Array, *, penalty: float) -> Ridge:
    """Minimise mean_w (y - b - z beta)^2 + penalty |beta|^2 over standardised features z; constant ones drop out."""
    names = list(columns)
    x = np.stack([columns[name] for name in names], axis=1)
    weights = weights / weights.sum()
    centre = weights @ x
    spread = np.sqrt(weights @ (x - centre) ** 2)
    varies = spread > 1e-9 * np.maximum(np.abs(centre), 1)
    z = (x - centre)[:, varies] / spread[varies]
    mean = float(weights @ dice)
    gram = (z * weights[:, None]).T @ z + penalty * np.eye(z.shape[1])
    beta = np.linalg.solve(gram, (z * weights[:, None]).T @ (dice - mean)) / spread[varies]
    kept = [(name, column) for name, column in zip(names, range(len(names)), strict=True) if varies[column]]
    low, high = x.min(axis=0), x.max(axis=0)
    terms = {
        name: (float(weight), float(centre[column]), float(low[column]), float(high[column]))
        for (name, column), weight in zip(kept, beta, strict=True)
    }
    return Ridge.model_construct(penalty=penalty, intercept=mean, terms=terms)
