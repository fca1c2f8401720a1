"""Voxels that nobody labelled: nothing an answer says there changes what is measured."""

from __future__ import annotations

import numpy as np
import pytest

from medmargin.errors import DataError
from medmargin.imaging.volume import Grid

IGNORE = 3


def _scene(seed: int = 0):
    """Truth with an unlabelled strip through both structures, and the arguments of an answer."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((12, 14, 10), np.uint8)
    truth[2:7, 3:10, 2:8], truth[7:10, 3:10, 2:8] = 1, 2
    truth[:, 8:, :] = IGNORE
    labels = np.roll(np.where(truth == IGNORE, 0, truth), 1, axis=2).astype(np.uint8)
    labels[truth == IGNORE] = 0
    probabilities = {name: rng.random(truth.shape).astype(np.float32) / 2 for name in ("anterior", "posterior")}
    uncertainty = rng.random(truth.shape).astype(np.float32)
    return truth, {"labels": labels, "probabilities": probabilities, "uncertainty": uncertainty}


def _other_inside(truth, answer, rng):
    """Change an answer in the strip only."""
    gap = truth == IGNORE
    return {
        "labels": np.where(gap, rng.integers(0, 3, truth.shape), answer["labels"]).astype(np.uint8),
        "probabilities": {
            name: np.where(gap, rng.random(truth.shape) / 2, values).astype(np.float32)
            for name, values in answer["probabilities"].items()
        },
        "uncertainty": np.where(gap, rng.random(truth.shape), answer["uncertainty"]).astype(np.float32),
    }


@pytest.fixture
def measured(make_case):
    return lambda truth, answer, **more: make_case(truth=truth, ignore=IGNORE, **answer, **more)


@pytest.mark.parametrize("seed", range(4))
def test_answers_in_unlabelled_voxels_change_no_figure(seed, measured):
    rng = np.random.default_rng(seed)
    truth, answer = _scene(seed)
    rater = np.where(rng.random(truth.shape) < 0.1, 1, truth).astype(np.uint8)
    one, other = (measured(truth, given, raters=[rater]).entry for given in (answer, _other_inside(truth, answer, rng)))
    for entry in (one, other):  # it needs no truth and sees the whole image
        entry["uncertainty"].pop("case_score")
    assert one == other


def test_an_answer_that_is_wrong_only_there_is_perfect(measured):
    truth, answer = _scene()
    answer["labels"] = np.where(truth == IGNORE, 2, truth).astype(np.uint8)
    entry = measured(truth, answer).entry
    for figures in entry["structures"].values():
        assert (figures["dice"], figures["nsd"], figures["hd95_mm"]) == (1.0, 1.0, 0.0)
    assert entry["uncertainty"]["error_rate"] == entry["uncertainty"]["band"]["error_rate"] == 0.0


def test_the_same_answer_outside_of_them_loses(measured):
    truth, answer = _scene()
    assert measured(truth, answer).entry["structures"]["anterior"]["dice"] < 1.0


def test_counts_are_those_of_the_labelled_part_alone(measured, make_case):
    truth, answer = _scene()
    part = np.s_[:, :8, :]
    whole = measured(truth, answer).whole
    alone = make_case(
        truth=truth[part], labels=answer["labels"][part], uncertainty=answer["uncertainty"][part],
        probabilities={name: values[part] for name, values in answer["probabilities"].items()},
        grid=Grid(truth[part].shape, np.diag([1.0, 1.0, 2.0, 1.0]), "mm"), floors=None,
    ).whole  # fmt: skip
    assert (whole.voxels, whole.errors, whole.bins.items) == (alone.voxels, alone.errors, alone.bins.items)
    assert whole.brier == pytest.approx(alone.brier, rel=1e-6)
    assert whole.likelihood == pytest.approx(alone.likelihood, rel=1e-6)
    np.testing.assert_array_equal(whole.filtered, alone.filtered)


def test_volumes_are_counted_outside_of_them_and_have_no_interval(measured):
    truth, answer = _scene()
    volume = measured(truth, answer).entry["volumes_ml"]["anterior"]
    assert volume["true"] == pytest.approx(np.count_nonzero(truth == 1) * 2e-3)
    assert volume["low"] is None
    assert "whole image" in volume["low_reason"]


def test_what_prompts_alone_give_does_not_count_there_either(measured):
    truth, answer = _scene()
    masks = {name: (truth == value) | (truth == IGNORE) for name, value in {"anterior": 1, "posterior": 2}.items()}
    floors = measured(truth, answer, floors={"box": masks, "ellipse": masks}).entry["floors"]
    assert floors["box"] == {"anterior": 1.0, "posterior": 1.0}


def test_a_case_without_unlabelled_voxels_is_measured_as_ever(make_case):
    assert make_case(ignore=IGNORE).entry == make_case().entry


def test_nothing_labelled_at_all_has_no_figures_of_voxels(measured):
    truth, answer = _scene()
    entry = measured(np.full_like(truth, IGNORE), answer).entry
    assert entry["structures"]["anterior"]["state"] == "absent"
    assert entry["uncertainty"]["ece"] is None
    assert entry["uncertainty"]["error_rate_reason"] == "no voxel in this region"


def test_a_rater_s_unlabelled_voxels_leave_only_the_raters_figures(measured):
    truth, answer = _scene()
    truth[truth == IGNORE] = 0
    rater = truth.copy()
    rater[:3] = IGNORE
    entry = measured(truth, answer, raters=[rater]).entry
    assert entry["raters"]["mean"]["rater_dice"] == 1.0
    expected = measured(truth, answer).entry
    assert entry["structures"] == expected["structures"]
    assert entry["uncertainty"] == expected["uncertainty"]


def test_an_answer_cannot_give_the_value(measured):
    truth, answer = _scene()
    answer["labels"] = truth
    with pytest.raises(DataError, match=r"the prediction holds the values \[3\]"):
        measured(truth, answer)
