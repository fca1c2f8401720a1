"""`Calibration`: the same answer in one piece and in slabs, a file that comes back equal, damage named by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmargin.errors import CheckpointError, ConfigError, DataError
from medmargin.uncertainty.calibration import (
    Calibration,
    DistanceMargins,
    EvidentialRescaling,
    Figures,
    Patients,
    StructureGuarantees,
    Temperature,
    ThresholdMargins,
    Unchanged,
    VectorScaling,
    VolumeScale,
    classes,
    read_calibration,
    with_background,
    write_calibration,
)


def calibration(*rescalings: Any, exclusive: bool = True, **fields: Any) -> Calibration:
    return Calibration(
        level=0.9,
        estimator="evidential",
        structures=("liver", "tumour"),
        exclusive=exclusive,
        rescalings=rescalings or (Temperature(temperature=1.5),),
        guarantees={
            "liver": StructureGuarantees(
                thresholds=ThresholdMargins(loss="volume", risk=0.1, outer=0.1, inner=0.9, patients=20),
                distances=DistanceMargins(level=0.9, outer=4.5, inner=2.0, tolerated=0, patients=20),
                volume=VolumeScale(level=0.9, stretch=1.0, patients=20),
            )
        },
        refused={"tumour/volume": "volume interval of tumour: 3 patients"},
        patients=Patients(rescaling=20, guarantees=20, shared=True),
        data={"name": "abdomen", "sha256": "0" * 64, "cases": ["a", "b"]},
        before=Figures(nll=0.4, ece=0.02, band_nll=0.9, band_ece=0.06),
        after=Figures(nll=0.3),
        **fields,
    )


def maps(shape: tuple[int, ...] = (40, 30, 20), seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed).gamma(0.3, size=(3, *shape)).astype(np.float32)
    return raw / raw.sum(axis=0)


@pytest.fixture
def _small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "_SLAB_BYTES", 3 * 4 * 30 * 20 * 7)


RESCALINGS = [
    Unchanged(),
    Temperature(temperature=2.0),
    VectorScaling(slopes=(0.5, 0.7, 1.1), offsets=(0.0, 0.3, -0.4)),
    EvidentialRescaling(scale_of_evidence=0.3, exponent=0.8),
]


@pytest.mark.usefixtures("_small_slabs")
@pytest.mark.parametrize("rescaling", RESCALINGS, ids=lambda each: each.kind)
def test_slabs_give_the_answer_of_the_whole(rescaling: Any) -> None:
    probabilities, vacuity = maps(), np.full((40, 30, 20), 0.2, np.float32)
    expected = probabilities.copy()
    rescaling.scale(expected, vacuity)
    unchanged = probabilities.copy()
    found = calibration(rescaling).apply_probabilities(probabilities, vacuity)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(probabilities, unchanged)
    in_place = calibration(rescaling).apply_probabilities(probabilities, vacuity, out=probabilities)
    assert in_place is probabilities
    np.testing.assert_array_equal(probabilities, expected)


@pytest.mark.usefixtures("_small_slabs")
def test_structures_alone_get_the_same_answer_as_with_their_background() -> None:
    probabilities = 0.97 * maps() + np.float32(0.01)  # a background far below the rounding of 1 would be lost
    for rescaling in RESCALINGS[:3]:
        used = calibration(rescaling)
        whole, alone = used.apply_probabilities(probabilities), used.apply_probabilities(probabilities[1:])
        assert alone.shape == (2, 40, 30, 20)
        np.testing.assert_allclose(alone, whole[1:], atol=1e-5)


def test_structures_of_their_own_are_rescaled_each_against_its_outside() -> None:
    probabilities = np.random.default_rng(1).random((2, 5, 6)).astype(np.float32)
    found = calibration(Temperature(temperature=2.0), Unchanged(), exclusive=False).apply_probabilities(probabilities)
    inside, outside = np.sqrt(probabilities[0]), np.sqrt(1 - probabilities[0])
    np.testing.assert_allclose(found[0], inside / (inside + outside), rtol=1e-5)
    np.testing.assert_allclose(found[1], probabilities[1], rtol=1e-6)


def test_vacuity_follows_the_evidence() -> None:
    evidence = np.random.default_rng(2).gamma(1, 5, (3, 9, 8))
    strength = 3 + evidence.sum(axis=0)
    probabilities, vacuity = ((evidence + 1) / strength).astype(np.float32), (3 / strength).astype(np.float32)
    found = calibration(EvidentialRescaling(scale_of_evidence=0.5)).apply_vacuity(probabilities, vacuity)
    np.testing.assert_allclose(found, 3 / (3 + 0.5 * evidence.sum(axis=0)), rtol=1e-4)
    assert calibration(Temperature(temperature=2)).apply_vacuity(probabilities, vacuity) is vacuity


def test_a_memory_map_is_rescaled_in_its_file(tmp_path: Path) -> None:
    probabilities = maps()
    mapped = np.memmap(tmp_path / "p.bin", np.float32, "w+", shape=probabilities.shape)
    mapped[:] = probabilities
    used = calibration()
    used.apply_probabilities(mapped, out=mapped)
    np.testing.assert_array_equal(mapped, used.apply_probabilities(probabilities))


def test_guarantees_are_applied_or_the_reason_is_given() -> None:
    used = calibration()
    assert used.apply_volume("liver", 90, 100, 110) == pytest.approx((79, 121))
    mask = np.zeros((9, 9), bool)
    mask[3:6, 3:6] = True
    assert used.threshold_regions("liver", np.where(mask, 0.95, 0.05), mask)[4, 4] == 2
    assert used.distance_regions("liver", mask, (2.0, 2.0))[4, 4] == 2
    with pytest.raises(ConfigError, match="volume of tumour: volume interval of tumour: 3 patients"):
        used.apply_volume("tumour", 1, 2, 3)
    with pytest.raises(ConfigError, match="distances of tumour: it was not calibrated"):
        used.distance_regions("tumour", mask, (1, 1))


def test_answers_that_do_not_fit_are_refused() -> None:
    used = calibration()
    with pytest.raises(DataError, match="4 probability maps"):
        used.apply_probabilities(np.full((4, 5, 5), 0.25, np.float32))
    with pytest.raises(DataError, match="vacuity of shape"):
        used.apply_probabilities(maps((5, 5)), np.ones((4, 5), np.float32))
    with pytest.raises(DataError, match="vacuity map"):
        calibration(EvidentialRescaling(scale_of_evidence=2)).apply_probabilities(maps((5, 5)))
    with pytest.raises(ConfigError, match="'evidential', not for 'softmax'"):
        used.require_estimator("softmax")
    used.require_estimator("evidential")


@pytest.mark.parametrize("rescaling", RESCALINGS, ids=lambda each: each.kind)
def test_the_file_comes_back_equal(tmp_path: Path, rescaling: Any) -> None:
    written = calibration(rescaling)
    write_calibration(tmp_path / "calibration.json", written)
    assert read_calibration(tmp_path / "calibration.json") == written


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        (lambda content: content.pop("level"), "level"),
        (lambda content: content.update(extra=1), "extra"),
        (lambda content: content.update(format=2), "format"),
        (lambda content: content["rescalings"][0].update(temperature=-1), "rescalings.0.temperature.temperature"),
        (lambda content: content["rescalings"][0].update(kind="magic"), "rescalings.0"),
        (lambda content: content["guarantees"]["liver"]["volume"].update(stretch=None), "liver.volume.stretch"),
        (lambda content: content["guarantees"].update(spleen={}), "unknown structure spleen"),
        (lambda content: content["patients"].update(shared="perhaps"), "patients.shared"),
        (lambda content: content.update(rescalings=[]), "0 given, 1 expected"),
        (lambda content: content.update(structures=["liver", "tumour", "cyst"], rescalings=[
            {"kind": "vector", "slopes": [1, 1, 1], "offsets": [0, 0, 0]}]), "3 slopes for 4 classes"),
    ],
)  # fmt: skip
def test_damage_is_named_by_its_field(tmp_path: Path, damage: Any, field: str) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, calibration())
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=field.replace(".", r"\.")):
        read_calibration(path)


def test_a_file_that_is_cut_or_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_calibration(path)
    write_calibration(path, calibration())
    path.write_text(path.read_text()[:100])
    with pytest.raises(CheckpointError, match="not JSON"):
        read_calibration(path)


def test_background_is_what_the_structures_leave() -> None:
    np.testing.assert_allclose(with_background(np.array([[0.2], [0.3]]))[:, 0], [0.5, 0.2, 0.3], rtol=1e-6)
