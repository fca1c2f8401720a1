"""Features of an answer: closed forms, agreement with a plain computation, streaming, and faulty maps."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medmargin.errors import DataError
from medmargin.uncertainty.trust import FEATURES, SliceToLook, answer_features, case_features
from medmargin.uncertainty.volumes import expected_dice


def _structure(label: int = 1, low: float = 10, high: float = 40, confidence: float = 0.7) -> SimpleNamespace:
    return SimpleNamespace(name=f"s{label}", label=label, low_voxels=low, high_voxels=high, confidence=confidence)


def _features(labels: np.ndarray, **maps):
    maps.setdefault("total", np.zeros(labels.shape, np.float32))
    return case_features(labels, [_structure()], **maps)["s1"]


@pytest.fixture
def cube() -> np.ndarray:
    labels = np.zeros((20, 22, 24), np.uint8)
    labels[6:12, 7:13, 8:14] = 1
    return labels


def test_every_feature_has_a_range_and_a_reason(cube: np.ndarray) -> None:
    assert set(_features(cube).values) == set(FEATURES)
    assert all(feature.range and feature.why and feature.sentence for feature in FEATURES.values())


def test_a_cube_is_compact_and_in_one_piece(cube: np.ndarray) -> None:
    found = _features(cube)
    assert found.values["compactness"] == pytest.approx(1)
    assert (found.values["largest_piece"], found.pieces, found.voxels) == (1, 1, 216)
    assert found.values["log_voxels"] == pytest.approx(np.log(216))
    assert found.values["interval_width"] == pytest.approx(30 / 40)


def test_loose_voxels_lower_compactness_and_the_largest_piece(cube: np.ndarray) -> None:
    cube[16::3, 1::3, 1::3] = 1
    found, loose = _features(cube), int(cube.sum()) - 216
    assert found.values["largest_piece"] == pytest.approx(216 / (216 + loose))
    assert found.pieces == 1 + loose
    assert found.values["compactness"] < 0.8


def test_a_picture_is_measured_in_its_plane() -> None:
    labels = np.zeros((30, 30, 1), np.uint8)
    labels[10:20, 10:20] = 1
    found = _features(labels)
    assert found.values["compactness"] == pytest.approx(1)
    assert found.look == SliceToLook(2, 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_features_equal_a_plain_computation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (ndimage.gaussian_filter(rng.standard_normal((14, 15, 13)), 1.5) > 0.05).astype(np.uint8)
    labels[rng.integers(14)] = 2
    total, probability, vacuity = rng.random((3, *labels.shape))
    epistemic = total * rng.random(labels.shape)
    found = _features(labels, total=total, probabilities=[probability], epistemic=epistemic, vacuity=vacuity).values
    mask = labels == 1
    distance = np.where(mask, ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask))
    band = distance <= 3
    padded = np.pad(mask, 1)
    faces = sum(int((padded != np.roll(padded, 1, axis)).sum()) for axis in range(3))
    assert found["border_uncertainty"] == pytest.approx(total[band].mean())
    assert found["border_vacuity"] == pytest.approx(vacuity[band].mean())
    assert found["epistemic_share"] == pytest.approx(epistemic[band].sum() / total[band].sum())
    assert found["compactness"] == pytest.approx(min(6 * mask.sum() ** (2 / 3) / faces, 1))
    expected = expected_dice(probability[mask].sum(), probability.sum(), int(mask.sum()))
    assert found["expected_dice"] == pytest.approx(expected)


@pytest.mark.parametrize("slab", [1, 700, 2000])
def test_slabs_change_nothing(cube: np.ndarray, slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    cube[rng.random(cube.shape) < 0.02] = 1
    maps = {"total": rng.random(cube.shape), "probabilities": rng.random((1, *cube.shape))}
    whole = _features(cube, **maps)
    monkeypatch.setattr(answer_features, "_SLAB_VOXELS", slab)
    parts = _features(cube, **maps)
    assert parts.look == whole.look
    assert {k: v for k, v in parts.values.items() if v is not None} == pytest.approx(
        {k: v for k, v in whole.values.items() if v is not None}
    )


@pytest.mark.parametrize(("spacing", "axis"), [((1, 1, 1), 2), ((3, 1, 1), 0), ((1, 5, 2), 1), ((0.7, 0.7, 0.7), 2)])
def test_the_slice_to_look_at_is_the_most_uncertain_one_as_acquired(
    cube: np.ndarray, spacing: tuple[float, ...], axis: int
) -> None:
    total = np.zeros(cube.shape)
    total[7, 8, 9] = 1.0
    total[19, 0, 0] = 100.0  # far from the structure: none of its doubt
    assert _features(cube, total=total, spacing=spacing).look == SliceToLook(axis, (7, 8, 9)[axis])


def test_without_probabilities_the_confidence_stands_in(cube: np.ndarray) -> None:
    assert _features(cube).values["expected_dice"] == 0.7
    assert _features(cube).values["epistemic_share"] is None


def test_an_empty_mask_has_a_slice_and_no_border() -> None:
    total = np.zeros((5, 6, 7))
    total[2, 3, 4] = 1
    found = _features(np.zeros((5, 6, 7), np.uint8), total=total)
    assert (found.voxels, found.values["expected_dice"], found.values["border_uncertainty"]) == (0, 0.0, None)
    assert found.look == SliceToLook(2, 4)


def test_a_mask_that_fills_the_image_has_no_border() -> None:
    found = _features(np.ones((5, 6, 7), np.uint8), total=np.ones((5, 6, 7)))
    assert found.values["border_uncertainty"] == 0


@pytest.mark.parametrize("name", ["total", "epistemic", "vacuity", "probabilities"])
def test_maps_that_are_not_finite_or_do_not_fit_are_named(cube: np.ndarray, name: str) -> None:
    faulty = np.zeros(cube.shape)
    faulty[8, 8, 8] = np.nan
    with pytest.raises(DataError, match=rf"{name}.*NaN"):
        _features(cube, **{name: faulty[None] if name == "probabilities" else faulty})
    with pytest.raises(DataError, match=rf"{name}.*does not fit"):
        _features(cube, **{name: np.zeros((1, 2, 3, 4)) if name == "probabilities" else np.zeros((2, 3, 4))})


def test_an_impossible_interval_is_refused(cube: np.ndarray) -> None:
    with pytest.raises(DataError, match="low <= high"):
        case_features(cube, [_structure(low=5, high=4)], total=np.zeros(cube.shape))


def test_a_structure_around_another_is_measured_with_what_lies_in_it(cube: np.ndarray) -> None:
    total = np.random.default_rng(0).random(cube.shape).astype(np.float32)
    nested = cube.copy()
    nested[8:10, 9:11, 10:12] = 2
    nested[13:15, 7:13, 8:14] = 2  # a core outside the box of the whole's own value
    joined = (nested > 0).astype(np.uint8)
    structures = [_structure(1), _structure(2)]
    found = case_features(nested, structures, total=total, members={"s1": (1, 2), "s2": (2,)})
    assert found["s1"] == _features(joined, total=total)
    assert found["s2"] == case_features(nested, structures, total=total)["s2"]
