"""Calibrating a run on held-out patients, and everything that later uses it."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pytest

from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.loading import load_case
from medmargin.datasets.phantoms import write_phantom_dataset
from medmargin.errors import CheckpointError, ConfigError, DataError
from medmargin.uncertainty.calibration import Voxels
from medmargin.workflows.calibrate import calibrate, halve
from medmargin.workflows.evaluate import evaluate
from medmargin.workflows.model import load
from medmargin.workflows.predict import predict
from medmargin.workflows.rescaling_fit import Fold, choose_rescaling
from medmargin.workflows.train import train

LEVEL = 0.8  # needs 4 patients: two halves of the ten that are held out can carry it


class Held(NamedTuple):
    """A data set of pictures with a calibration side, and a run that was trained and calibrated on it."""

    data: Path
    split: Path
    run: Path
    answer: dict[str, Any]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures of some 17 patients, and their split."""
    folder = tmp_path_factory.mktemp("data") / "Dataset901_Pictures"
    write_phantom_dataset(folder, dims=2, cases=22, test_cases=3, raters=1)
    by_patient = defaultdict(list)
    for case in open_dataset(folder).cases:
        by_patient[case.patient].append(case.name)
    patients = [by_patient[patient] for patient in sorted(by_patient)]
    sides = {"train": patients[:5], "val": patients[5:6], "calibration": patients[6:], "test": patients[:0]}
    split = folder.parent / "split.json"
    named = {side: [name for names in chosen for name in names] for side, chosen in sides.items() if chosen}
    split.write_text(json.dumps(named), encoding="utf-8")
    return folder, split


def trained(pictures: tuple[Path, Path], run: Path, system: str, steps: int, **settings: Any) -> Path:
    data, split = pictures
    train(
        system, data, run=run, steps=steps, scale="laptop", split=split, settings=settings, progress=False
    )  # fmt: skip
    return run


@pytest.fixture(scope="module")
def automatic(pictures: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Held:
    run = tmp_path_factory.mktemp("runs") / "automatic"
    trained(pictures, run, "udeg-net", 15, image_size=32, edge_channels=8)
    return Held(*pictures, run, calibrate(run, pictures[0], split_file=pictures[1], level=LEVEL))


@pytest.fixture(scope="module")
def prompted(pictures: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Held:
    run = tmp_path_factory.mktemp("runs") / "prompted"
    trained(pictures, run, "u-medsam", 2, members=2)
    return Held(*pictures, run, calibrate(run, pictures[0], split_file=pictures[1], level=LEVEL))


@pytest.fixture
def copied(automatic: Held, tmp_path: Path) -> Held:
    """The automatic run in a folder of its own, to be changed."""
    return automatic._replace(run=Path(shutil.copytree(automatic.run, tmp_path / "run")))


def test_two_halves_or_all_patients_twice() -> None:
    names = [f"p{index}" for index in range(18)]
    halves = halve(names, level=0.9, seed=0)
    assert (len(halves.rescaling), len(halves.guarantees), halves.shared) == (9, 9, False)
    assert not set(halves.rescaling) & set(halves.guarantees)
    assert halve(names, level=0.9, seed=0) == halves
    assert halve(names, level=0.9, seed=1) != halves
    few = halve(names[:17], level=0.9, seed=0)
    assert few.shared
    assert set(few.rescaling) == set(few.guarantees) == set(names[:17])
    with pytest.raises(DataError, match="at least 2"):
        halve(["p"], level=0.9, seed=0)


def test_better_probabilities_are_not_bought_with_overlap() -> None:
    """Where 45 % of the voxels said to be inside with 0.55 are, the best offset would delete the structure."""
    rng = np.random.default_rng(0)
    folds = []
    for _ in range(3):
        inside = np.full(3000, 0.55, np.float32)
        labels = (rng.random(3000) < 0.45).astype(np.uint8)
        voxels = Voxels(np.stack([1 - inside, inside]), labels, np.ones(3000), np.ones(3000, bool), None)
        folds.append(Fold(voxels, ()))
    choice = choose_rescaling(folds)
    assert choice.held_out["vector"] < 0.999 * choice.held_out["none"]
    scaled = folds[0].voxels.probabilities.copy()
    choice.rescaling.scale(scaled, None)
    assert (scaled[1] > 0.5 - 1e-6).all()


def test_the_answer_names_what_was_learned(automatic: Held) -> None:
    answer = automatic.answer
    json.dumps(answer, allow_nan=False)
    patients = answer["patients"]
    assert not patients["shared"]
    assert min(patients["rescaling"], patients["guarantees"]) >= patients["needed_for_a_guarantee"] == 4
    chosen = answer["rescaling"]["all classes"]
    assert set(chosen["held_out_band_nll"]) == {"none", "temperature", "evidence temperature", "evidential", "vector"}
    assert chosen["held_out_band_nll"][chosen["kind"]] <= chosen["held_out_band_nll"]["none"]
    assert answer["after"]["band"]["nll"] < answer["before"]["band"]["nll"]
    assert answer["after"]["ece"] < answer["before"]["ece"]
    assert answer["guarantees"]["organ"]["thresholds"]["risk"] == pytest.approx(1 - LEVEL)
    record = json.loads((automatic.run / "calibration.json").read_text())
    cases = record["data"]["cases"]
    assert not set(cases["rescaling"]) & set(cases["guarantees"])
    assert sorted([*cases["rescaling"], *cases["guarantees"]]) == sorted(
        json.loads(automatic.split.read_text())["calibration"]
    )
    assert record["data"]["sha256"] == open_dataset(automatic.data).fingerprint()["sha256"]


def test_the_same_patients_give_the_same_files(copied: Held) -> None:
    before = [(copied.run / name).read_bytes() for name in ("calibration.json", "trust.json")]
    calibrate(copied.run, copied.data, split_file=copied.split, level=LEVEL)
    assert [(copied.run / name).read_bytes() for name in ("calibration.json", "trust.json")] == before


@pytest.mark.parametrize("side", ["train", "val"])
def test_patients_the_run_has_seen_are_refused_by_name(automatic: Held, side: str) -> None:
    seen = json.loads(automatic.split.read_text())[side][0].rpartition("_")[0] or None
    with pytest.raises(DataError, match=f"{'trained' if side == 'train' else 'selected'} on .*{seen}"):
        calibrate(automatic.run, automatic.data, split=side, split_file=automatic.split)


def test_what_too_few_patients_cannot_carry_is_refused_with_the_number(copied: Held, tmp_path: Path) -> None:
    sides = json.loads(copied.split.read_text())
    few = tmp_path / "few.json"
    few.write_text(json.dumps({**sides, "calibration": sides["calibration"][:4]}), encoding="utf-8")
    answer = calibrate(copied.run, copied.data, split_file=few, level=0.95)
    assert answer["patients"]["shared"]
    assert {kind.partition("/")[2] for kind in answer["refused"]} == {"thresholds", "distances", "volume"}
    assert all("19 are needed" in reason for reason in answer["refused"].values())
    assert answer["predicted_dice"] is None
    assert "5" in answer["predicted_dice_reason"]
    model = load(copied.run)
    assert model.calibrated  # the rescaling is there
    found = model(np.random.default_rng(0).random((40, 40)).astype(np.float32))
    assert found.calibrated
    assert not found.with_margin
    assert not any(structure.guaranteed for structure in found.structures)
    few.write_text(json.dumps({**sides, "calibration": sides["calibration"][:1]}), encoding="utf-8")
    with pytest.raises(DataError, match=r"1 patients .* 9 to guarantee"):
        calibrate(copied.run, copied.data, split_file=few)


def test_predictions_are_rescaled_everywhere(automatic: Held) -> None:
    image, _ = load_case(open_dataset(automatic.data).test_cases[0], open_dataset(automatic.data).task)
    plain, found = load(automatic.run, calibrated=False)(image), load(automatic.run)(image)
    assert found.calibrated
    assert not plain.calibrated
    assert plain.trust is None
    probabilities, before = found.probabilities, plain.probabilities
    assert probabilities is not None
    assert before is not None
    calibration = load(automatic.run).predictor.calibration
    assert calibration is not None
    vacuity = plain.maps["vacuity"]
    np.testing.assert_allclose(probabilities, calibration.apply_probabilities(before, vacuity), atol=1e-5)
    background = 1 - probabilities.sum(axis=0)
    classes = np.concatenate([background[None], probabilities])
    decided = np.diff(np.sort(classes, axis=0)[-2:], axis=0)[0] > 1e-5
    assert (found.labels == classes.argmax(axis=0))[decided].all()
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(classes > 1e-9, classes * np.log(classes), 0).sum(axis=0)
    total, aleatoric, epistemic = (found.uncertainty[part] for part in ("total", "aleatoric", "epistemic"))
    np.testing.assert_allclose(total, entropy, atol=1e-4)
    np.testing.assert_allclose(aleatoric + epistemic, total, atol=1e-6)
    assert epistemic.min() >= 0
    share, share_before = aleatoric / total, plain.uncertainty["aleatoric"] / plain.uncertainty["total"]
    np.testing.assert_allclose(share[total > 0.01], share_before[total > 0.01], atol=1e-3)


def test_margins_are_nested_and_follow_the_thresholds(automatic: Held) -> None:
    image, _ = load_case(open_dataset(automatic.data).test_cases[0], open_dataset(automatic.data).task)
    model = load(automatic.run)
    found, calibration = model(image), model.predictor.calibration
    assert calibration is not None
    assert found.probabilities is not None
    assert found.with_margin
    for index, structure in enumerate(found.structures):
        margin, mask = found.margin(structure.name), found.labels == structure.label
        assert (mask[margin == 2]).all()
        assert (margin[mask] >= 1).all()
        expected = calibration.threshold_regions(structure.name, found.probabilities[index], mask)
        np.testing.assert_array_equal(margin, expected)
    with pytest.raises(ConfigError, match="no margin for 'liver'"):
        found.margin("liver")


def test_files_of_a_calibrated_run(automatic: Held, tmp_path: Path) -> None:
    result, answer = predict(automatic.run, [automatic.data], tmp_path / "with", split="test")
    assert not result.failures
    assert answer["calibrated"]
    case = result.results[0].case
    told = json.loads((tmp_path / "with" / f"{case}_confidence.json").read_text())
    assert told["calibrated"]
    assert isinstance(told["trust"]["out_of_distribution"]["message"], str)
    label = next(structure["label"] for structure in told["structures"] if structure["name"] == "organ")
    margin = np.asarray(nibabel.load(tmp_path / "with" / f"{case}_margin_{label}.nii.gz").dataobj)
    assert set(np.unique(margin)) <= {0, 1, 2}
    assert "organ surely inside" in (tmp_path / "with" / f"{case}_margin_{label}_labels.txt").read_text()
    with open(tmp_path / "with" / f"{case}_confidence.csv", newline="", encoding="utf-8") as stream:
        organ = next(row for row in csv.DictReader(stream) if row["name"] == "organ")
    assert 0 <= float(organ["dice_at_least"]) <= float(organ["predicted_dice"]) <= 1
    assert organ["guaranteed"] == "True"
    assert float(organ["level"]) == LEVEL
    review = json.loads((tmp_path / "with" / "review.json").read_text())
    assert {row["case"] for row in review} == {found.case for found in result.results}
    assert [row["rank"] for row in review] == list(range(1, len(review) + 1))
    assert all(row["reason"] for row in review)
    assert {Path(file).name for file in answer["review"]} == {"review.csv", "review.json"}

    _, plain = predict(automatic.run, [automatic.data], tmp_path / "without", split="test", calibrated=False)
    assert not plain["calibrated"]
    assert plain["review"] is None
    assert "not calibrated" in plain["review_reason"]
    assert not list((tmp_path / "without").glob("*margin*"))
    maps = [nibabel.load(tmp_path / kind / f"{case}_uncertainty.nii.gz").get_fdata() for kind in ("with", "without")]
    assert np.abs(maps[0] - maps[1]).max() > 0.01


def test_an_evaluation_says_how_well_calibration_foretells(automatic: Held, tmp_path: Path) -> None:
    answer = evaluate(automatic.run, automatic.data, report=tmp_path / "report.html")
    json.dumps(answer, allow_nan=False)
    assert answer["calibrated"]
    for entry in answer["cases"]:
        assert set(entry["predicted_dice"]) == set(entry["structures"])
        assert 0 <= entry["predicted_dice"]["organ"]["at_least"] <= entry["predicted_dice"]["organ"]["dice"] <= 1
    assert {"rho", "low", "high", "reason"} <= set(answer["summary"]["trust"]["spearman"])
    assert {volume["level"] for volume in answer["cases"][0]["volumes_px"].values()} == {LEVEL}
    plain = evaluate(automatic.run, automatic.data, calibrated=False)
    assert not plain["calibrated"]
    assert plain["summary"]["trust"] is None
    assert "calibration_before" not in plain
    before = answer["calibration_before"]
    assert before["reliability"] == plain["curves"]["reliability"]
    assert before["uncertainty"]["band"]["ece"] == plain["summary"]["uncertainty"]["band"]["ece"]
    assert before["reliability"] != answer["curves"]["reliability"]
    assert "before and after calibration" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_another_estimator_is_not_calibrated_and_says_so(automatic: Held, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = load(automatic.run, uncertainty="test-time-augmentation")
    assert not model.calibrated
    assert len(caplog.records) == 1
    assert "'evidential', not for 'test-time augmentation, 4 answers'" in caplog.text
    answer = evaluate(automatic.run, automatic.data, uncertainty="test-time-augmentation")
    assert not answer["calibrated"]
    assert "not calibrated" in answer["warning"]


@pytest.mark.parametrize("name", ["calibration.json", "trust.json"])
def test_damaged_files_are_refused(copied: Held, name: str) -> None:
    content = json.loads((copied.run / name).read_text())
    (copied.run / name).write_text(json.dumps({**content, "level": 7}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"{name}.*level"):
        load(copied.run)
    (copied.run / name).write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not JSON"):
        load(copied.run)
    assert not load(copied.run, calibrated=False).calibrated


def test_a_calibration_of_other_weights_is_refused(copied: Held, prompted: Held) -> None:
    content = json.loads((copied.run / "calibration.json").read_text())
    content["data"]["weights"] = json.loads((prompted.run / "calibration.json").read_text())["data"]["weights"]
    (copied.run / "calibration.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="other weights"):
        load(copied.run)


def test_a_promptable_run_is_calibrated_by_structure(prompted: Held, tmp_path: Path) -> None:
    answer = prompted.answer
    assert answer["data"]["prompts"] == "labels (evaluation only)"
    assert set(answer["rescaling"]) == {"organ", "lesion", "tube"}
    data = open_dataset(prompted.data)
    image, label = load_case(data.test_cases[0], data.task)
    assert label is not None
    plain, model = load(prompted.run, calibrated=False), load(prompted.run)
    calibration = model.predictor.calibration
    assert calibration is not None
    inside = np.argwhere(label.voxels[0] == data.task.structures["organ"])[:, :2]
    box = (*inside.min(axis=0).tolist(), *inside.max(axis=0).tolist())
    found, before = model(image, box=box, structure="organ"), plain(image, box=box, structure="organ")
    assert found.calibrated
    assert found.probabilities is not None
    assert before.probabilities is not None
    rescaling = calibration.rescalings[calibration.structures.index("organ")]
    asked = before.probabilities[0] > 0
    expected = np.stack([1 - before.probabilities[0][asked], before.probabilities[0][asked]])
    rescaling.scale(expected)
    np.testing.assert_allclose(found.probabilities[0][asked], expected[1], atol=1e-4)
    assert not found.probabilities[0][~asked].any()
    margin, mask = found.margin("organ"), found.labels == found.structures[0].label
    assert (mask[margin == 2]).all()
    assert (margin[mask] >= 1).all()
    assert found.structures[0].predicted_dice is not None
    result, told = predict(
        prompted.run, [prompted.data], tmp_path, split="test", prompts_from=prompted.data / "labelsTs"
    )
    assert not result.failures
    assert told["review"]


def test_structures_outside_the_calibration_stay_as_they_are(prompted: Held) -> None:
    model = load(prompted.run)
    predictor = model.predictor
    image = np.random.default_rng(0).random((48, 48)).astype(np.float32)
    from medmargin.imaging import from_array
    from medmargin.prompts.types import Box, Prompt

    asked = [Prompt("stranger", box=Box((10, 10), (30, 30)))]
    found = predictor.predict(from_array(image), asked)
    plain = load(prompted.run, calibrated=False).predictor.predict(from_array(image), asked)
    assert not found.calibrated
    assert any("stranger" in warning for warning in found.warnings)
    np.testing.assert_array_equal(found.labels, plain.labels)


def test_shipped_weights_and_local_temperatures_of_prompts_are_refused(prompted: Held) -> None:
    with pytest.raises(ConfigError, match="Copy their folder"):
        calibrate("u-medsam", prompted.data, split_file=prompted.split)
    with pytest.raises(ConfigError, match="--local"):
        calibrate(prompted.run, prompted.data, split_file=prompted.split, local=True)
    with pytest.raises(ConfigError, match=r"level 1\.5"):
        calibrate(prompted.run, prompted.data, split_file=prompted.split, level=1.5)


def test_a_temperature_per_pixel_can_be_tried(copied: Held, tmp_path: Path) -> None:
    sides = json.loads(copied.split.read_text())
    few = tmp_path / "few.json"
    few.write_text(json.dumps({**sides, "calibration": sides["calibration"][:5]}), encoding="utf-8")
    answer = calibrate(copied.run, copied.data, split_file=few, level=LEVEL, local=True)
    tried = answer["rescaling"]["all classes"]["held_out_band_nll"]
    assert set(tried) == {"none", "temperature", "vector", "local temperature"}
    assert all(np.isfinite(list(tried.values())))
