"""Predicted Dice: planted relations come back, noise does not, the bound holds, files survive, gaps are named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from medmargin.errors import CheckpointError, ConfigError, DataError
from medmargin.uncertainty.trust import (
    CaseFeatures,
    PredictedDice,
    ScoredStructure,
    SliceToLook,
    spearman,
)
from medmargin.uncertainty.trust.regression import fit_isotonic, fit_ridge

_LOOK = SliceToLook(2, 0)


def _values(**given: float | None) -> CaseFeatures:
    names = ("expected_dice", "border_uncertainty", "epistemic_share", "border_vacuity", "interval_width", "log_voxels",
             "compactness", "largest_piece")  # fmt: skip
    return CaseFeatures(given.pop("voxels", 100), 1, dict.fromkeys(names) | given, _LOOK)


def _patients(count: int, seed: int, *, noise: float = 0.04, structure: str = "organ") -> list[ScoredStructure]:
    """Patients whose expected Dice is 0.1 too high and whose Dice scatters by `noise` about it."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        quality = rng.uniform(0.4, 0.85)
        features = _values(
            expected_dice=quality + 0.1,
            border_uncertainty=0.5 - 0.3 * quality + rng.normal(0, 0.1),
            interval_width=float(rng.random()),
            log_voxels=float(rng.normal(8, 1)),
            compactness=float(rng.random()),
            largest_piece=1.0,
        )
        dice = float(np.clip(quality + rng.normal(0, noise), 0, 1))
        found.append(ScoredStructure(f"c{seed}_{index}", f"p{seed}_{index}", structure, features, dice))
    return found


def _permuted(scored: list[ScoredStructure], seed: int) -> list[ScoredStructure]:
    order = np.random.default_rng(seed).permutation(len(scored))
    return [replace(entry, dice=scored[other].dice) for entry, other in zip(scored, order, strict=True)]


def _predicted(model: PredictedDice, scored: list[ScoredStructure]) -> np.ndarray:
    return np.array([model.predict(entry.structure, entry.features).dice for entry in scored])


def test_a_planted_relation_is_recovered_from_twenty_patients() -> None:
    model, test = PredictedDice.fit(_patients(20, 0)), _patients(100, 1)
    truth, predicted = np.array([entry.dice for entry in test]), _predicted(model, test)
    assert np.sqrt(((predicted - truth) ** 2).mean()) < 0.07
    assert abs((predicted - truth).mean()) < 0.03  # the score itself is 0.1 too high
    assert spearman(predicted, truth, [entry.patient for entry in test]).low > 0.8


def test_permuting_the_dice_leaves_the_mean() -> None:
    chosen = [PredictedDice.fit(_permuted(_patients(20, seed), seed)).pooled.chosen for seed in range(12)]
    assert chosen.count("constant") >= 10
    model = PredictedDice.fit(_patients(20, 3)).pooled
    assert model.chosen != "constant"
    assert model.errors[model.chosen] < 0.5 * model.errors["constant"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_isotonic_curve_is_monotone_and_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, weights = rng.integers(0, 12, 25) / 12, rng.random(25), rng.uniform(0.2, 1, 25)
    curve = fit_isotonic({"x": x}, y, weights, feature="x", rising=True)
    at = np.linspace(-0.5, 1.5, 50)
    assert (np.diff(curve.predict({"x": at}, 50)) >= 0).all()
    reference = IsotonicRegression(out_of_bounds="clip").fit(x, y, sample_weight=weights)
    assert curve.predict({"x": at}, 50) == pytest.approx(reference.predict(at), abs=1e-4)


def test_ridge_recovers_a_plane_and_does_not_extrapolate() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 200))
    model = fit_ridge({"a": a, "b": b, "c": np.ones(200)}, 0.2 + 0.3 * a + 0.2 * b, np.ones(200), penalty=1e-9)
    assert model.features == ("a", "b")
    assert model.predict({"a": np.array([0.5]), "b": np.array([0.5])}, 1)[0] == pytest.approx(0.45, abs=1e-6)
    edge, beyond = ({"a": np.array([value]), "b": np.array([0.5])} for value in (a.max(), 40.0))
    assert model.predict(beyond, 1) == pytest.approx(model.predict(edge, 1))


@pytest.mark.parametrize("count", [12, 20])
def test_the_bound_holds_as_often_as_it_says(count: int) -> None:
    shares = []
    for seed in range(16):
        model, test = PredictedDice.fit(_patients(count, seed, noise=0.08)), _patients(100, 1000 + seed, noise=0.08)
        bounds = [model.predict("organ", entry.features, level=0.9).at_least for entry in test]
        shares.append(np.mean([entry.dice >= bound for entry, bound in zip(test, bounds, strict=True)]))
    assert np.mean(shares) >= 0.9 - 3 * np.std(shares, ddof=1) / np.sqrt(len(shares))
    assert np.mean(shares) < 0.99  # it says something


def test_all_cases_of_a_patient_are_inside_the_bound_together() -> None:
    shares = []
    for seed in range(8):
        rng, scored = np.random.default_rng(seed), []
        for patient, own in enumerate(_patients(60, seed)):
            shift = rng.normal(0, 0.08)
            dices = np.clip([own.dice + shift + rng.normal(0, 0.02) for _ in range(3)], 0, 1)
            scored.append([replace(own, case=f"{patient}_{n}", dice=float(dice)) for n, dice in enumerate(dices)])
        model = PredictedDice.fit([entry for group in scored[:20] for entry in group])
        held = [all(e.dice >= model.predict("organ", e.features).at_least for e in group) for group in scored[20:]]
        shares.append(np.mean(held))
        assert model.pooled.patients == 20
    assert np.mean(shares) >= 0.9 - 3 * np.std(shares, ddof=1) / np.sqrt(len(shares))


def test_a_higher_level_asks_for_a_lower_bound() -> None:
    model, features = PredictedDice.fit(_patients(30, 0)), _patients(1, 9)[0].features
    low, high = (model.predict("organ", features, level=level) for level in (0.95, 0.5))
    assert low.at_least < high.at_least <= high.dice


def test_too_few_patients_for_a_bound_give_the_number() -> None:
    answer = PredictedDice.fit(_patients(8, 0)).predict("organ", _patients(1, 1)[0].features, level=0.9)
    assert answer.at_least is None
    assert "needs 9 held-out patients, found 8" in answer.reason
    exact = PredictedDice.fit(_patients(9, 0)).predict("organ", _patients(1, 1)[0].features, level=0.9)
    assert exact.at_least is not None


def test_rare_structures_use_the_pooled_fit() -> None:
    scored = _patients(20, 0) + _patients(6, 0, structure="rare")
    model = PredictedDice.fit(scored)
    assert set(model.structures) == {"organ"}
    assert model.pooled.patients == 20
    assert "all structures together" in model.predict("rare", scored[-1].features).model
    with pytest.raises(DataError, match="'liver' was not calibrated; expected one of organ, rare"):
        model.predict("liver", scored[0].features)


def test_json_round_trip_is_exact() -> None:
    model = PredictedDice.fit(_patients(15, 0))
    again = PredictedDice.from_json(json.loads(json.dumps(model.to_json())))
    test = _patients(20, 1)
    assert [again.predict("organ", e.features) for e in test] == [model.predict("organ", e.features) for e in test]


def test_a_damaged_file_is_refused_by_field() -> None:
    content = PredictedDice.fit(_patients(15, 0)).to_json()
    content["pooled"]["excess"][3] = "a lot"
    with pytest.raises(CheckpointError, match=r"calibration\.json.*pooled\.excess\.3"):
        PredictedDice.from_json(content, source="calibration.json")
    del content["pooled"]
    with pytest.raises(CheckpointError, match="pooled"):
        PredictedDice.from_json(content)


def test_degenerate_patients() -> None:
    with pytest.raises(DataError, match="1 held-out patients with a mask; expected at least 5"):
        PredictedDice.fit(_patients(1, 0))
    scored = _patients(12, 0)
    broken = replace(scored[3].features, values=scored[3].features.values | {"compactness": np.nan})
    with pytest.raises(DataError, match=r"c0_3, organ: feature 'compactness' is nan"):
        PredictedDice.fit([*scored[:3], replace(scored[3], features=broken), *scored[4:]])
    with pytest.raises(DataError, match="Dice nan"):
        PredictedDice.fit([replace(scored[0], dice=np.nan), *scored[1:]])
    same = [replace(entry, features=scored[0].features) for entry in scored]
    model = PredictedDice.fit(same)
    assert model.pooled.chosen == "constant"
    assert model.pooled.unused["compactness"] == "the same in all held-out cases"
    assert model.predict("organ", scored[5].features).dice == pytest.approx(np.mean([e.dice for e in scored]))
    with pytest.raises(ConfigError, match="level"):
        model.predict("organ", scored[0].features, level=1)


def test_empty_masks_are_not_regressed() -> None:
    scored = _patients(15, 0)
    empty = _values(expected_dice=0.0, log_voxels=0.0, interval_width=0.0, voxels=0)
    model = PredictedDice.fit([*scored, ScoredStructure("e", "e", "organ", empty, 0.0)])
    assert model == PredictedDice.fit(scored)
    answer = model.predict("organ", empty)
    assert (answer.dice, answer.at_least, answer.model) == (0.0, 0.0, "no mask")
    assert "if the structure is there" in answer.reason


def test_a_feature_the_answer_lacks_is_named() -> None:
    model = PredictedDice.fit(_patients(20, 0))
    assert "expected_dice" in model.pooled.model.features
    with pytest.raises(DataError, match=r"no 'expected_dice'.*medmargin calibrate"):
        model.predict("organ", _values(border_uncertainty=0.1))


def test_standing_tells_how_many_look_better() -> None:
    model = PredictedDice.fit(_patients(40, 0))
    bad = model.standing("organ", _values(expected_dice=0.0, border_uncertainty=9.0))
    assert (bad["expected_dice"], bad["border_uncertainty"]) == (1, 1)
    assert model.standing("organ", _values(expected_dice=1.0))["expected_dice"] == 0


def test_features_that_went_the_wrong_way_explain_nothing() -> None:
    flipped = [
        replace(
            e,
            features=replace(e.features, values=e.features.values | {"epistemic_share": e.dice, "compactness": e.dice}),
        )
        for e in _patients(30, 0)
    ]
    standing = PredictedDice.fit(flipped).standing("organ", _values(epistemic_share=1.0, compactness=0.0))
    assert standing == {"compactness": 1}


def test_spearman_is_that_of_scipy_with_an_interval_around_it() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 8, 60).astype(float)
    y = x + rng.normal(0, 3, 60)
    found = spearman(x, y, [str(index // 2) for index in range(60)])
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low < found.rho < found.high
    assert (found.patients, found.cases) == (30, 60)
    assert spearman(np.ones(9), rng.random(9), list("abcdefghi")).rho is None
    assert spearman([1, 2], [3, 4], ["a", "a"]).low is None
    with pytest.raises(DataError, match="NaN"):
        spearman([1, np.nan], [1, 2], ["a", "b"])


def test_spearman_interval_covers_zero_for_unrelated_numbers() -> None:
    rng = np.random.default_rng(1)
    names = [str(index) for index in range(30)]
    found = [spearman(*rng.random((2, 30)), names, seed=seed) for seed in range(12)]
    assert np.mean([f.low <= 0 <= f.high for f in found]) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 12)
