"""Unlike the training data: planted changes are flagged in words, images of the same kind are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmargin.datasets import open_dataset
from medmargin.datasets.loading import load_image
from medmargin.datasets.phantoms.cohort import invite_patients, scan_patient
from medmargin.errors import CheckpointError, ConfigError, DataError
from medmargin.imaging import Grid, Volume
from medmargin.uncertainty.trust import ImageFeatures, OutOfDistribution, image_features
from medmargin.uncertainty.trust.shrunk_covariance import ShrunkCovariance


def _phantoms(cases: int, seed: int, dims: int) -> list[tuple[str, Volume]]:
    return [
        (patient.name, Volume(np.round(1000 * scan.image - 1000).astype(np.int16)[None], scan.grid, dims=dims))
        for patient in invite_patients(cases=cases, seed=seed, dims=dims)
        for scan in scan_patient(patient, seed=seed, dims=dims, raters=1, edge_sd_mm=0.8, rater_sd_mm=0.5)
    ]


@pytest.fixture(scope="module")
def training() -> list[tuple[str, Volume]]:
    return _phantoms(32, 0, 3)


@pytest.fixture(scope="module")
def fitted(training: list[tuple[str, Volume]]) -> OutOfDistribution:
    features = [image_features(volume, modality="CT") for _, volume in training]
    return OutOfDistribution.fit(features, [patient for patient, _ in training])


@pytest.fixture(scope="module")
def unseen() -> Volume:
    return _phantoms(1, 77, 3)[0][1]


def _stretched(volume: Volume) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 2] *= 3
    return replace(volume, grid=Grid(volume.grid.shape, affine))


CHANGES = {
    "HU offset": (lambda v: v.with_voxels(v.voxels + 1024), "intensity", "HU; in training"),
    "inverted": (lambda v: v.with_voxels(v.voxels.min() + v.voxels.max() - v.voxels), "intensity", "darker than"),
    "noise": (
        lambda v: v.with_voxels(np.random.default_rng(0).normal(-700, 200, v.voxels.shape)),
        "intensity",
        "are alike by",
    ),
    "three times the spacing": (_stretched, "geometry", "mm apart from foot to head; in training images 1.4 to 2"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_planted_changes_are_flagged_and_named(fitted: OutOfDistribution, unseen: Volume, name: str) -> None:
    change, group, words = CHANGES[name]
    before, after = (fitted.judge(image_features(v, modality="CT")) for v in (unseen, change(unseen)))
    assert not before.flagged
    assert (after.flagged, after.group) == (True, group)
    assert words in after.message
    assert 1 <= len(after.deviations) <= 2
    json.dumps(after.summary(), allow_nan=False)


def test_a_flipped_file_is_the_same_image(fitted: OutOfDistribution, unseen: Volume) -> None:
    turned = unseen.reoriented("PSL")
    assert image_features(turned).values["voxels, from foot to head"] == np.log(unseen.reoriented().grid.shape[2])
    assert not fitted.judge(image_features(turned, modality="CT")).flagged


def test_few_training_patients_state_the_rate_they_can_keep(fitted: OutOfDistribution, unseen: Volume) -> None:
    patients = len(fitted.distances["intensity"])
    answer = fitted.judge(image_features(unseen, modality="CT"), rate=0.05)
    assert answer.rate == pytest.approx(2 / (patients + 1))
    assert f"5% false alarms need 39 training patients, found {patients}" in answer.notes


def test_images_of_the_same_kind_are_flagged_no_more_often_than_asked() -> None:
    data = [(patient, image_features(volume)) for patient, volume in _phantoms(240, 1, 2)]
    shares = []
    for seed in range(8):
        names = sorted({patient for patient, _ in data})
        known = set(np.random.default_rng(seed).permutation(names)[: len(names) // 2])
        train = [(patient, features) for patient, features in data if patient in known]
        model = OutOfDistribution.fit([f for _, f in train], [p for p, _ in train])
        judged = [model.judge(features, rate=0.1) for patient, features in data if patient not in known]
        shares.append(np.mean([answer.flagged for answer in judged]))
        assert all(answer.rate == 0.1 for answer in judged)
    assert np.mean(shares) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 120)
    assert np.mean(shares) > 0  # it does flag the most unusual ones


def test_hippocampus_and_heart_are_told_apart(data_root: Path) -> None:
    brain, heart = (open_dataset(data_root / name) for name in ("Dataset004_Hippocampus", "Dataset908_ACDC"))
    crops = [image_features(load_image(case, brain.task)) for case in brain.cases]
    model = OutOfDistribution.fit(crops[::2], [case.patient for case in brain.cases[::2]])
    same = np.mean([model.judge(crop).flagged for crop in crops[1::2]])
    assert same <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(crops[1::2]))
    hearts = [model.judge(image_features(load_image(case, heart.task))) for case in heart.cases[::4]]
    assert all(answer.flagged for answer in hearts)
    assert "voxels long" in hearts[0].message
    assert any("spacing" in note for note in hearts[0].notes)


def _vectors(count: int, seed: int, size: int = 40) -> np.ndarray:
    """Correlated features on different scales; far fewer vectors than make a covariance matrix invertible."""
    mixing = np.random.default_rng(0).standard_normal((6, size)) * np.linspace(0.01, 10, size)
    rng = np.random.default_rng([1, seed])
    return rng.standard_normal((count, 6)) @ mixing + 0.1 * np.linspace(0.01, 10, size) * rng.standard_normal(
        (count, size)
    )


def _with_embedding(vectors: np.ndarray) -> list[ImageFeatures]:
    return [ImageFeatures({"sized": 1.0}, vector) for vector in vectors]


def test_embeddings_of_the_same_kind_keep_the_rate_and_others_are_flagged() -> None:
    shares = []
    for seed in range(6):
        model = OutOfDistribution.fit(_with_embedding(_vectors(60, seed)), [str(n) for n in range(60)])
        shares.append(
            np.mean([model.judge(image, rate=0.1).flagged for image in _with_embedding(_vectors(100, seed + 50))])
        )
    assert np.mean(shares) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 100)
    across = _vectors(1, 99)[0] + np.linspace(0.01, 10, 40) * np.random.default_rng(5).standard_normal(40)
    answer = model.judge(_with_embedding(across[None])[0])
    assert (answer.flagged, answer.group) == (True, "network description")
    assert model.judge(ImageFeatures({"sized": 1.0})).notes[0].startswith("not compared")
    with pytest.raises(DataError, match="embedding of 3 numbers; expected 40"):
        model.judge(ImageFeatures({"sized": 1.0}, np.zeros(3)))


def test_shrinkage_agrees_with_scikit_learn() -> None:
    from sklearn.covariance import LedoitWolf

    vectors = _vectors(25, 3, size=20)
    fitted = ShrunkCovariance.fit(vectors)
    scaled = (vectors - fitted.centre) / fitted.scale
    reference = LedoitWolf().fit(scaled)
    assert fitted.shrinkage == pytest.approx(reference.shrinkage_, rel=1e-6)
    new = _vectors(1, 4, size=20)[0]
    expected = np.sqrt(reference.mahalanobis(((new - fitted.centre) / fitted.scale)[None])[0] / 20)
    assert fitted.distance(new) == pytest.approx(expected, rel=1e-3)


def test_constant_features_and_small_differences_raise_no_alarm() -> None:
    same = [ImageFeatures({"sized": 1.0, "voxels, across": np.log(100.0)}) for _ in range(40)]
    model = OutOfDistribution.fit(same, [str(n) for n in range(40)])
    assert not model.judge(ImageFeatures({"sized": 1.0, "voxels, across": np.log(103.0)})).flagged
    far = model.judge(ImageFeatures({"sized": 1.0, "voxels, across": np.log(300.0)}))
    assert far.flagged
    assert far.deviations == ("the image is 300 voxels long across; in training images 100",)


def test_json_round_trip_and_damage(fitted: OutOfDistribution, unseen: Volume) -> None:
    vectors = OutOfDistribution.fit(_with_embedding(_vectors(12, 0)), [str(n) for n in range(12)])
    again = OutOfDistribution.from_json(json.loads(json.dumps(vectors.to_json())))
    assert again.judge(_with_embedding(_vectors(1, 9))[0]) == vectors.judge(_with_embedding(_vectors(1, 9))[0])
    content = fitted.to_json()
    features = image_features(_stretched(unseen), modality="CT")
    assert OutOfDistribution.from_json(json.loads(json.dumps(content))).judge(features) == fitted.judge(features)
    content["references"]["sized"]["scale"] = 0
    with pytest.raises(CheckpointError, match=r"references\.sized\.scale"):
        OutOfDistribution.from_json(content)


def test_degenerate_input_is_named(fitted: OutOfDistribution, unseen: Volume) -> None:
    features = image_features(unseen, modality="CT")
    with pytest.raises(DataError, match="1 training patients; expected at least 5"):
        OutOfDistribution.fit([features], ["a"])
    with pytest.raises(ConfigError, match="false alarm rate"):
        fitted.judge(features, rate=0)
    with pytest.raises(DataError, match="NaN"):
        image_features(unseen.with_voxels(np.full(unseen.voxels.shape, np.nan)))
    with pytest.raises(DataError, match="another number of channels"):
        fitted.judge(image_features(replace(unseen, voxels=np.repeat(unseen.voxels, 3, axis=0)), modality="CT"))
    with pytest.raises(DataError, match="sizes"):
        OutOfDistribution.fit([ImageFeatures({"sized": 1.0}, np.zeros(n)) for n in (2, 2, 2, 2, 3)], list("abcde"))
    assert fitted.judge(image_features(unseen.with_voxels(np.zeros(unseen.voxels.shape)), modality="CT")).flagged
