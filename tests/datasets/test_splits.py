"""Splits by patient: complete, disjoint, repeatable, and never leaking."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.datasets.case import Case
from medmargin.datasets.splits import Splits, make_folds, make_split, read_splits, refuse_leaks, write_splits
from medmargin.errors import ConfigError, DataError


def _cohort(sizes):
    return [Case(f"p{p:02d}_{n}", f"p{p:02d}", ()) for p, size in enumerate(sizes) for n in range(size)]


cohorts = st.lists(st.integers(1, 4), min_size=2, max_size=25).map(_cohort)
seeds = st.integers(0, 2**32 - 1)


def _patients(cases, names):
    return {case.patient for case in cases if case.name in names}


@given(cohorts, st.integers(2, 6), seeds)
def test_folds_validate_each_case_once_and_never_share_a_patient(cases, folds, seed):
    drawn = make_folds(cases, folds=folds, seed=seed)
    names = sorted(case.name for case in cases)
    assert sorted(name for fold in drawn.folds for name in fold["val"]) == names
    for fold in drawn.folds:
        assert sorted((*fold["train"], *fold["val"])) == names
        assert not _patients(cases, fold["train"]) & _patients(cases, fold["val"])
        assert fold["train"]
        assert fold["val"]


@given(cohorts, seeds)
def test_folds_do_not_depend_on_the_order_of_the_cases(cases, seed):
    forward, backward = make_folds(cases, seed=seed), make_folds(cases[::-1], seed=seed)
    for one, other in zip(forward.folds, backward.folds, strict=True):
        assert {part: set(names) for part, names in one.items()} == {part: set(names) for part, names in other.items()}


@given(cohorts.filter(lambda cases: len({case.patient for case in cases}) >= 4), seeds)
def test_a_split_covers_all_cases_in_disjoint_parts(cases, seed):
    fractions = {"train": 0.5, "val": 0.1, "calibration": 0.2, "test": 0.2}
    (fold,) = make_split(cases, fractions=fractions, seed=seed).folds
    assert sorted(name for names in fold.values() for name in names) == sorted(case.name for case in cases)
    groups = [_patients(cases, names) for names in fold.values()]
    assert all(groups)
    assert sum(map(len, groups)) == len({case.patient for case in cases})


def test_parts_get_their_share():
    (fold,) = make_split(_cohort([1] * 100), fractions={"train": 0.7, "val": 0.1, "test": 0.2}).folds
    assert {part: len(names) for part, names in fold.items()} == {"train": 70, "val": 10, "test": 20}


def test_seeds_differ_and_repeat():
    cases = _cohort([1] * 30)
    assert make_folds(cases, seed=1) == make_folds(cases, seed=1)
    assert make_folds(cases, seed=1).folds != make_folds(cases, seed=2).folds


def test_a_single_patient_can_only_be_trained_on():
    drawn = make_folds(_cohort([3]))
    assert drawn.folds == ({"train": ("p00_0", "p00_1", "p00_2")},)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.5, "val": 0.2}, "add up to 1"),
        ({"train": 1.2, "val": -0.2}, "positive"),
        ({"train": 0.5, "holdout": 0.5}, "unknown split holdout"),
        ({}, "positive"),
    ],
)
def test_impossible_fractions_are_refused(fractions, message):
    with pytest.raises(ConfigError, match=message):
        make_split(_cohort([1] * 5), fractions=fractions)


def test_fewer_patients_than_parts_are_refused():
    with pytest.raises(DataError, match="2 parts need at least as many patients, found 1"):
        make_split(_cohort([4]), fractions={"train": 0.5, "test": 0.5})


def test_a_single_fold_is_refused():
    with pytest.raises(ConfigError, match="at least 2 folds"):
        make_folds(_cohort([1, 1]), folds=1)


@given(cohorts, st.booleans())
def test_split_files_come_back_as_written(tmp_path_factory, cases, folds):
    splits = make_folds(cases) if folds else make_split(cases, fractions={"train": 0.5, "val": 0.5})
    path = tmp_path_factory.mktemp("splits") / "split.json"
    write_splits(path, splits)
    assert read_splits(path).folds == splits.folds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "not a split file"),
        ('{"train": "a"}', "not a split file"),
        ('[["a"], ["b"]]', "not a split file"),
        ('{"train": ["a"], "dev": ["b"]}', "unknown part dev"),
        ('{"train": ["a", "b"], "val": ["b"]}', r"listed twice \(1\), e.g. b"),
        ('[{"train": ["a", "a"]}]', "fold 0: cases are listed twice"),
    ],
)
def test_malformed_split_files_are_refused(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_splits(path)


def test_a_missing_split_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json: cannot read"):
        read_splits(tmp_path / "absent.json")


def test_an_absent_fold_is_refused(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    with pytest.raises(DataError, match="no fold 3; it has 1"):
        read_splits(path).fold(3)


def test_row_31_one_patient_on_two_sides_is_refused_by_name():
    parts = {"train": [Case("a_ED", "7", ()), Case("b", "8", ())], "test": [Case("a_ES", "7", ())]}
    with pytest.raises(DataError, match=r"'train' and 'test' share patients \(1\): 7 \(a_ED, a_ES\)"):
        refuse_leaks(parts, source="split.json")
    refuse_leaks({**parts, "test": [Case("c", "9", ())]}, source="split.json")


def test_splits_say_where_they_come_from():
    assert "seed 5" in make_folds(_cohort([1, 1, 1]), seed=5).source
    assert Splits((), "nowhere").folds == ()
