"""What calibration learns from nested structures and from cases that nobody labelled everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medmargin.datasets import Task
from medmargin.errors import ConfigError
from medmargin.evaluation.calibration import equal_width, expected_error, reliability, top_label
from medmargin.imaging import from_array
from medmargin.inference.segmentation import Segmentation, StructureResult
from medmargin.uncertainty.calibration import EvidenceTemperature, Unchanged, Voxels
from medmargin.workflows.calibrate import calibrate
from medmargin.workflows.evaluate import evaluate
from medmargin.workflows.guarantee_fit import FigureCounter, GuaranteeFit
from medmargin.workflows.model import load
from medmargin.workflows.rescaling_fit import Fold, RescalingFit, choose_rescaling

NESTED = Task(
    "Tumour", ("MRI",), {"whole": 1, "core": 2}, regions={"whole": (1, 2), "core": (2,)}, ignore=3
)  # fmt: skip
PLAIN = Task("Organs", ("MRI",), {"a": 1, "b": 2}, ignore=3)
SHAPE = (14, 15, 12)
PATIENTS = [f"p{number}" for number in range(9)]


def nested_truth(shift: int = 0) -> np.ndarray:
    truth = np.zeros(SHAPE, np.uint8)
    truth[2:12, 2 + shift : 12 + shift, 2:10] = 1
    truth[5:9, 5 + shift : 9 + shift, 4:8] = 2
    return truth


def answer_of(labels: np.ndarray, probabilities: np.ndarray, task: Task, **more: object) -> Segmentation:
    """An answer with label values and probabilities [S, I, J, K] as they are."""
    found = []
    for name, values in task.members.items():
        size = int(np.isin(labels, values).sum())
        found.append(
            StructureResult(name, task.structures[name], size, 0.9 * size, 1.1 * size, None, None, None, 0.9, 0.8)
        )
    total = np.zeros(labels.shape, np.float32)
    image = from_array(np.random.default_rng(0).random(labels.shape).astype(np.float32), spacing=(1.0, 1.0, 1.0))
    return Segmentation(
        labels, {"total": total}, found, image, probabilities=probabilities.astype(np.float32),
        members=task.members if task.regions else {}, **more,
    )  # fmt: skip


def certain(labels: np.ndarray, task: Task) -> np.ndarray:
    return np.stack([np.isin(labels, values).astype(np.float32) for values in task.members.values()])


def fitted(task: Task, cases: list[tuple[np.ndarray, np.ndarray]]) -> GuaranteeFit:
    fit = GuaranteeFit(tuple(task.structures), task, level=0.85)
    for patient, (truth, labels) in zip(PATIENTS, cases, strict=True):
        fit.add(patient, patient, answer_of(labels, certain(labels, task), task), truth)
    return fit


def test_a_perfect_answer_to_nested_structures_needs_no_margin() -> None:
    cases = [(nested_truth(index % 3), nested_truth(index % 3)) for index in range(9)]
    found, refused = fitted(NESTED, cases).guarantees()
    assert not refused
    for each in found.values():
        assert (each.distances.outer, each.distances.inner) == (0, 0)
        assert each.volume.stretch < 0
    predicted, _ = fitted(NESTED, cases).predicted_dice()
    assert predicted is not None


def test_a_whole_that_is_right_stays_right_where_its_core_is_missed() -> None:
    cases = [(nested_truth(), np.minimum(nested_truth(), 1)) for _ in range(9)]
    found, refused = fitted(NESTED, cases).guarantees()
    assert (found["whole"].distances.outer, found["whole"].distances.inner) == (0, 0)
    assert found["core"].distances is None
    assert "missed altogether" in refused["core/distances"]


@pytest.mark.parametrize("task", [NESTED, PLAIN])
def test_answers_where_nobody_labelled_change_nothing_that_is_learned(task: Task) -> None:
    rng = np.random.default_rng(0)

    def learned(change: bool) -> tuple[object, object, object]:
        cases, counter = [], FigureCounter(task)
        rescaling = RescalingFit(
            tuple(task.structures), PATIENTS, task, exclusive=not task.regions, local=False, seed=0
        )
        for index, patient in enumerate(PATIENTS):
            truth = nested_truth(index % 2)
            labels = np.roll(truth, 1, axis=index % 3)
            truth[:, :, 7:] = 3
            if change:
                labels[:, :, 7:] = rng.integers(0, 3, labels[:, :, 7:].shape)
            noise = np.random.default_rng(index).random(SHAPE)
            maps = 0.1 + 0.3 * noise + 0.3 * certain(labels, task)
            if change:
                maps[..., 7:] = 0.5 * rng.random(maps[..., 7:].shape)
            answer = answer_of(labels, maps, task)
            cases.append((truth, np.where(truth == 3, 0, labels).astype(np.uint8) if change else labels))
            counter.add(answer, truth)
            if index < 3:
                rescaling.add(patient, patient, answer, truth, None)
        found, _ = fitted(task, cases).guarantees()
        thresholds = {name: each.thresholds for name, each in found.items()}
        return counter.figures(), rescaling.choose(), thresholds

    one, other = learned(False), learned(True)
    assert one[0] == other[0]
    assert one[1] == other[1]
    assert one[2] == other[2]


def test_false_voxels_count_where_somebody_labelled_and_the_volume_is_not_known() -> None:
    truth = nested_truth()
    truth[:, :, 10:] = 3
    labels = nested_truth()
    labels[:, :, 10:] = 1  # only where nobody labelled
    found, refused = fitted(PLAIN, [(truth, labels)] * 9).guarantees()
    assert (found["a"].distances.outer, found["a"].distances.inner) == (0, 0)
    assert found["a"].volume is None
    assert "not labelled" in refused["a/volume"]
    worse = labels.copy()
    worse[0:2, 2:12, 2:10] = 1
    found, _ = fitted(PLAIN, [(truth, worse)] * 9).guarantees()
    assert found["a"].distances.inner > 1


def test_the_figures_of_nested_structures_are_asked_one_by_one() -> None:
    rng = np.random.default_rng(1)
    truth = nested_truth()
    maps = np.clip(0.2 * rng.random((2, *SHAPE)) + 0.7 * certain(truth, NESTED), 0, 1)
    counter = FigureCounter(NESTED)
    counter.add(answer_of(truth, maps, NESTED), truth)
    inside = np.float32(maps).ravel()
    pairs = top_label(np.stack([1 - inside, inside], axis=1), certain(truth, NESTED).astype(int).ravel())
    expected = expected_error(reliability(*pairs, equal_width(15)))
    assert counter.figures()["ece"] == pytest.approx(expected, abs=1e-6)


def test_calibrated_regions_are_left_alone_and_too_sure_ones_are_not() -> None:
    for sharpness, kind in ((1.0, "none"), (3.0, "temperature")):
        fit = RescalingFit(tuple(NESTED.structures), PATIENTS, NESTED, exclusive=False, local=False, seed=0)
        rng = np.random.default_rng(2)
        for patient in PATIENTS:
            chances = np.clip(rng.beta(2, 2, (2, 16, 16, 6)), 0.02, 0.98)
            whole, core = rng.random(chances.shape) < chances
            chances[1] *= chances[0]
            core &= whole  # the chance of a core is then the product
            truth = (whole.astype(np.uint8) + core).astype(np.uint8)
            odds = (chances / (1 - chances)) ** sharpness
            answer = answer_of(truth, odds / (1 + odds), NESTED)
            fit.add(patient, patient, answer, truth, None)
        rescalings, held_out = fit.choose()
        assert set(held_out) == {"whole", "core"}
        assert [each.kind for each in rescalings] == [kind, kind]
        if kind == "temperature":
            assert [each.temperature for each in rescalings] == pytest.approx([3.0, 3.0], rel=0.1)


def test_evidence_temperature_is_chosen_where_evidence_is_blunt() -> None:
    rng, folds = np.random.default_rng(3), []
    for _ in range(3):
        logits = rng.normal(0, 2, (3, 3_000))
        chances = np.exp(logits) / np.exp(logits).sum(axis=0)
        labels = (rng.random(3_000) > np.cumsum(chances, axis=0)).sum(axis=0).clip(0, 2)
        evidence = np.logaddexp(0, 4 * logits)
        strength = evidence.sum(axis=0) + 3
        voxels = Voxels(
            ((evidence + 1) / strength).astype(np.float32), labels, np.ones(3_000), np.ones(3_000, bool),
            (3 / strength).astype(np.float32),
        )  # fmt: skip
        folds.append(Fold(voxels, ()))
    choice = choose_rescaling(folds)
    assert isinstance(choice.rescaling, EvidenceTemperature)
    block = folds[0].voxels.probabilities.copy()
    before = block.argmax(axis=0)
    labels, vacuity = folds[0].voxels.labels, folds[0].voxels.vacuity
    errors = []
    for rescaling in (Unchanged(), choice.rescaling):
        rescaling.scale(block, vacuity)
        errors.append(expected_error(reliability(*top_label(block.T, labels), equal_width(15))))
    assert errors[0] > 0.05
    assert errors[1] < 0.02  # 15 bins of 3000 voxels
    assert np.array_equal(block.argmax(axis=0), before)


@pytest.fixture(scope="module")
def tumours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Volumes of 12 patients with a core in a whole, some slices of half of them unlabelled; and a run on two."""
    folder = tmp_path_factory.mktemp("data") / "Dataset902_Tumours"
    content = {
        "channel_names": {"0": "MRI"}, "regions_class_order": [1, 2], "file_ending": ".nii.gz",
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    }  # fmt: skip
    rng = np.random.default_rng(4)
    for number in range(12):
        truth = np.zeros((18, 20, 12), np.uint8)
        low = rng.integers(2, 5, 3)
        truth[low[0] : low[0] + 11, low[1] : low[1] + 12, low[2] : low[2] + 6] = 1
        truth[low[0] + 3 : low[0] + 8, low[1] + 3 : low[1] + 9, low[2] + 1 : low[2] + 5] = 2
        image = (truth * 60.0 + rng.normal(0, 25, truth.shape)).astype(np.float32)
        if number % 2:
            truth[:, :, 8:] = 3
        for part, voxels in (("imagesTr", image), ("labelsTr", truth)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            file = nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0]))
            file.header.set_xyzt_units("mm")
            nibabel.save(file, folder / part / f"case_{number:02}{'_0000' if part == 'imagesTr' else ''}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps({**content, "numTraining": 12}), encoding="utf-8")
    names = [f"case_{number:02}" for number in range(12)]
    split = folder.parent / "split.json"
    sides = {"train": names[:3], "val": names[3:4], "calibration": names[4:]}
    split.write_text(json.dumps(sides), encoding="utf-8")
    return folder, split


@pytest.fixture(scope="module")
def calibrated(tumours: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    from medmargin.workflows.train import train

    run = tmp_path_factory.mktemp("runs") / "tumours"
    train("plain-unet", tumours[0], run=run, steps=8, scale="laptop", split=tumours[1], progress=False)
    return run, calibrate(run, tumours[0], split_file=tumours[1], level=0.8)


def test_a_run_on_nested_structures_is_calibrated_by_structure(
    calibrated: tuple[Path, dict], tumours: tuple[Path, Path]
) -> None:
    run, answer = calibrated
    json.dumps(answer, allow_nan=False)
    assert not answer["failed"]
    assert set(answer["rescaling"]) == {"whole", "core"}
    assert answer["after"]["band"]["nll"] <= answer["before"]["band"]["nll"] * 1.02
    model = load(run)
    calibration = model.predictor.calibration
    assert calibration is not None
    assert not calibration.exclusive
    found = model(tumours[0] / "imagesTr" / "case_04_0000.nii.gz")
    assert found.calibrated
    for structure, probability in zip(found.structures, found.probabilities, strict=True):
        mask = found.mask(structure)
        assert structure.voxels == np.count_nonzero(mask)
        if calibration.guarantees[structure.name].thresholds is not None:
            expected = calibration.threshold_regions(structure.name, probability, mask)
            np.testing.assert_array_equal(found.margin(structure.name), expected)
    assert np.count_nonzero(found.mask(found.structures[0])) > np.count_nonzero(found.labels == 1)


def test_an_evaluation_of_it_measures_regions(calibrated: tuple[Path, dict], tumours: tuple[Path, Path]) -> None:
    answer = evaluate(calibrated[0], tumours[0], split_file=tumours[1], split="calibration")
    json.dumps(answer, allow_nan=False)
    assert answer["calibrated"]
    assert not answer["failed"]
    for figures in (answer["summary"]["uncertainty"], answer["summary"]["uncertainty"]["band"]):
        assert all(0 <= figures[name] <= 1 for name in ("ece_classwise", "ece_adaptive", "pavpu"))


def test_a_temperature_per_pixel_is_refused_for_regions(
    calibrated: tuple[Path, dict], tumours: tuple[Path, Path]
) -> None:
    with pytest.raises(ConfigError, match="not prompts or regions"):
        calibrate(calibrated[0], tumours[0], split_file=tumours[1], local=True)
