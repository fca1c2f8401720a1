"""The predictor of volumes: grids, windows, passes, regions, rules, calibration, memory and files."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations, product
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from medmargin.datasets.planning import Configuration, Normalisation, Plan, Resampling
from medmargin.errors import BudgetError, ConfigError, DataError, PromptError
from medmargin.imaging import Volume
from medmargin.inference import Job, Rule, Segmentation, VolumePredictor, predict_cases
from medmargin.inference.trust import Trust
from medmargin.inference.volume_budget import expected_geometry
from medmargin.networks.prediction import Prediction
from medmargin.prompts.types import Box, Prompt
from medmargin.transforms.preparation import Preparation
from medmargin.uncertainty.calibration import (
    Calibration,
    Patients,
    StructureGuarantees,
    Temperature,
    ThresholdMargins,
)
from medmargin.uncertainty.decomposition import binary_entropy, class_entropy
from medmargin.uncertainty.estimators import (
    Ensemble,
    Estimator,
    Evidential,
    MonteCarloDropout,
    Softmax,
    VolumeMirrors,
)

AXIS_CODES = ["".join(code) for axes in permutations(("LR", "AP", "SI")) for code in product(*axes)]
Make = Callable[..., Volume]


class Bright(nn.Module):
    """Class or region k is likely where the first channel is above k - 0.5.

    Args:
        shift: sees everything further along the last axis than it is. look_around: weight of the neighbours' mean.
    """

    def __init__(
        self, classes: int = 2, *, dims: int = 3, channels: int = 1, evidence: str | None = None, regions: bool = False,
        dropout: float = 0.0, shift: int = 0, look_around: float = 0.0, sharpness: float = 20.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.classes, self.dims, self.channels, self.evidence, self.regions = classes, dims, channels, evidence, regions
        self.sharpness = nn.Parameter(torch.tensor(float(sharpness)))
        self.dropout, self.shift, self.look_around = nn.Dropout(dropout), shift, look_around
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Prediction:
        self.seen.append(tuple(image.shape))
        grey = image[:, :1].roll(self.shift, dims=-1)
        if self.look_around:
            pool = nn.functional.avg_pool3d if self.dims == 3 else nn.functional.avg_pool2d
            grey = (1 - self.look_around) * grey + self.look_around * pool(grey, 5, 1, 2, count_include_pad=False)
        first = 1 if self.regions else 0
        steps = torch.arange(first, first + self.classes).reshape(1, -1, *[1] * self.dims)
        logits = 0.5 + grey - steps if self.regions else 0.5 - (grey - steps).abs()
        return Prediction(self.dropout(self.sharpness * logits))

    def encoder(self, image: Tensor) -> list[Tensor]:
        return [image, torch.cat([image, image + 1], 1)]


def _plan(
    *spacing: float, patch: tuple[int, ...] = (8, 8, 8), channels: int = 1, crop: bool = False, classes: int = 2,
    order: tuple[int, int, int] = (2, 1, 0),
) -> tuple[Plan, Configuration]:  # fmt: skip
    ones, threes = (1,) * len(patch), (3,) * len(patch)
    configuration = Configuration(
        name=f"{len(patch)}d", spacing=spacing or (1.0,) * len(patch), median_shape=patch, patch=patch, batch_size=1,
        strides=(ones,), kernels=(threes,), features=(4,), channels=channels, classes=classes,
    )  # fmt: skip
    schemes = tuple(Normalisation(f"MRI {index}", "none") for index in range(channels))
    plan = Plan(
        "Toy", 1, "laptop", 1, "float32", "mm", order, 1, crop, schemes, Resampling(), (configuration,),
        configuration.name,
    )  # fmt: skip
    return plan, configuration


def _predictor(
    networks: nn.Module | list[nn.Module],
    uncertainty: Estimator | None = None,
    planned: tuple[Plan, Configuration] | None = None,
    **more,
) -> VolumePredictor:
    first = networks[0] if isinstance(networks, list) else networks
    plan, configuration = planned or _plan()
    names = [f"structure {index}" for index in range(1, first.classes + first.regions)]
    single = Softmax() if first.evidence is None else Evidential()
    return VolumePredictor(
        networks, structures=names, plan=plan, configuration=configuration, uncertainty=uncertainty or single, **more
    )


def _same(first: Segmentation, second: Segmentation, tolerance: float = 1e-5) -> None:
    assert np.array_equal(first.labels, second.labels)
    for name, values in {**first.uncertainty, **first.maps}.items():
        np.testing.assert_allclose(values, {**second.uncertainty, **second.maps}[name], atol=tolerance, rtol=0)
    for one, other in zip(first.structures, second.structures, strict=True):
        assert one.voxels == other.voxels
        assert one.low_voxels == pytest.approx(other.low_voxels, abs=1)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture
def scene(blobs: np.ndarray) -> np.ndarray:
    """Blobs of value 1 [20, 24, 16] in noise that does not reach them."""
    return (blobs / 100 + np.random.default_rng(0).uniform(-0.2, 0.2, blobs.shape)).astype(np.float32)


# Grids


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_every_axis_code_gets_the_same_answer_on_its_own_grid(codes: str, volume: Make, scene: np.ndarray) -> None:
    original = volume(scene, affine=np.diag([1.0, 0.8, 2.5, 1.0]))
    predictor = _predictor(Bright(evidence="relu"), planned=_plan(2.0, 1.0, 1.0))
    expected, turned = predictor.predict(original), original.reoriented(codes)
    answer = predictor.predict(turned)
    assert expected.labels.any()
    for values, reference in [
        (answer.labels, expected.labels),
        *((answer.uncertainty[name], expected.uncertainty[name]) for name in ("total", "aleatoric", "epistemic")),
        (answer.maps["vacuity"], expected.maps["vacuity"]),
    ]:
        assert np.array_equal(turned.with_voxels(values).reoriented("RAS").voxels[0], reference)
    assert answer.structures == expected.structures


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("patch", [(8, 8, 8), (12, 10, 8), (40, 40, 40), (16, 5, 3)])
def test_a_threshold_finds_the_exact_blobs(patch: tuple[int, ...], crop: bool, volume: Make, blobs: np.ndarray) -> None:
    network = Bright()
    answer = _predictor(network, planned=_plan(patch=patch, crop=crop)).predict(volume(blobs / 100))
    assert np.array_equal(answer.labels, (blobs > 0).astype(np.uint8))
    assert {shape[2:] for shape in network.seen} == {patch}
    assert answer.structures[0].voxels == np.count_nonzero(blobs)
    assert answer.labels.dtype == np.uint8


def test_outside_the_crop_there_is_surely_background(volume: Make) -> None:
    voxels = np.zeros((14, 12, 10), np.float32)
    voxels[4:10, 3:9, 2:7] = np.random.default_rng(1).uniform(0.2, 0.9, (6, 6, 5))
    answer = _predictor(Bright(evidence="relu"), planned=_plan(crop=True)).predict(volume(voxels))
    outside = np.ones(voxels.shape, bool)
    outside[4:10, 3:9, 2:7] = False
    for values in (answer.labels, answer.probabilities[0], *answer.uncertainty.values(), *answer.maps.values()):
        assert not values[outside].any()
    assert answer.uncertainty["total"][~outside].all()


def test_an_oblique_anisotropic_volume_is_answered_on_its_own_voxels(volume: Make, blobs: np.ndarray) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-0.96, -0.28, 0.0], [0.28, -0.96, 0.0], [0.0, 0.0, -1.0]]) @ np.diag([0.7, 0.7, 4.0])
    affine[:3, 3] = [-30, 12, 8]
    image = volume(blobs / 100, affine=affine)
    answer = _predictor(Bright(sharpness=4), planned=_plan(4.0, 0.5, 0.5)).predict(image)
    assert answer.image.grid.matches(image.grid)
    assert _dice(answer.labels > 0, blobs > 0) > 0.97
    (structure,) = answer.structures
    assert structure.volume_ml == pytest.approx((answer.labels > 0).sum() * 0.7 * 0.7 * 4.0 / 1000)
    assert structure.low_ml <= structure.volume_ml <= structure.high_ml


def test_a_sheared_volume_comes_back_sheared(volume: Make, blobs: np.ndarray) -> None:
    affine = np.eye(4)
    affine[1, 2] = 0.3
    answer = _predictor(Bright(evidence="relu")).predict(volume(blobs / 100, affine=affine))
    assert _dice(answer.labels > 0, blobs > 0) > 0.9
    np.testing.assert_allclose(
        answer.uncertainty["total"], answer.uncertainty["aleatoric"] + answer.uncertainty["epistemic"], atol=1e-6
    )
    assert any("sheared" in warning for warning in answer.warnings)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_slice(dims: int, axis: int, volume: Make) -> None:
    voxels = np.zeros((9, 8, 1), np.float32)
    voxels[2:6, 3:7] = 1
    patch = (8, 8, 8)[-dims:]
    image = volume(np.moveaxis(voxels, 2, axis))
    answer = _predictor(Bright(dims=dims), planned=_plan(patch=patch)).predict(image)
    assert np.array_equal(np.moveaxis(answer.labels, axis, 2), voxels)


def test_slices_of_a_two_dimensional_network_share_batches(volume: Make, scene: np.ndarray, blobs: np.ndarray) -> None:
    network = Bright(dims=2, evidence="relu")
    answer = _predictor(network, planned=_plan(1.0, 1.0, patch=(24, 20))).predict(volume(scene))
    assert network.seen == [(16, 1, 24, 20)]
    assert np.array_equal(answer.labels, (blobs > 0).astype(np.uint8))
    windows = _predictor(Bright(dims=2, evidence="relu"), planned=_plan(1.0, 1.0, patch=(7, 9))).predict(volume(scene))
    _same(windows, answer)


def test_a_colour_picture(picture: Make) -> None:
    pixels = np.zeros((30, 41, 3), np.uint8)
    pixels[8:22, 10:30] = 1
    answer = _predictor(Bright(dims=2, channels=3), planned=_plan(patch=(16, 16), channels=3)).predict(picture(pixels))
    assert np.array_equal(answer.labels[:, :, 0].T, pixels[..., 0])
    assert answer.structures[0].volume_ml is None


def test_probabilities_are_resampled_linearly_and_the_label_is_the_largest(volume: Make, scene: np.ndarray) -> None:
    image = volume(scene, affine=np.diag([1.0, 1.0, 1.5, 1.0]))
    planned = _plan(1.0, 2.0, 1.6)
    answer = _predictor(Bright(3, sharpness=3), planned=planned).predict(image)
    prepared = Preparation(image, *planned)
    with torch.inference_mode():
        coarse = Bright(3, sharpness=3)(torch.from_numpy(prepared.voxels)[None]).logits[0].softmax(0).numpy()
    zoom = np.divide(prepared.shape, prepared.voxels.shape[1:])
    fine = np.stack([ndimage.zoom(one, zoom, order=1, mode="nearest", grid_mode=True) for one in coarse])
    fine = fine.transpose(0, 3, 2, 1)
    np.testing.assert_allclose(answer.probabilities, fine[1:], atol=1e-5)
    np.testing.assert_allclose(answer.uncertainty["total"], class_entropy(fine), atol=1e-5)
    assert (answer.labels == fine.argmax(axis=0)).mean() > 0.999
    confident = answer.structures[0]
    inside = fine[1][answer.labels == 1].sum()
    assert confident.confidence == pytest.approx(2 * inside / (confident.voxels + fine[1].sum()), abs=5e-3)


# Strips


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.7, 0.6, 1.0), (1.0, 1.5, 0.8)])
@pytest.mark.parametrize("regions", [False, True])
def test_strips_give_what_the_whole_gives(
    spacing: tuple[float, ...], regions: bool, volume: Make, scene: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Bright(2, regions=regions, look_around=0.6, sharpness=6)
    predictor = _predictor(
        network, VolumeMirrors((0, 2)), _plan(*spacing), regions=_NESTED if regions else None,
        rules=[Rule("structure 1", keep_largest=True, fill_holes=True)],
    )  # fmt: skip
    whole = predictor.predict(volume(scene))
    for count in (2, 3, 7):
        monkeypatch.setattr("medmargin.inference.volumes.plan_volume", _forced(count))
        seen: list[tuple[int, int]] = []
        _same(predictor.predict(volume(scene), progress=lambda *state, seen=seen: seen.append(state)), whole)
        assert seen[-1][0] == seen[-1][1]


def _forced(strips: int) -> Callable[..., object]:
    from medmargin.inference.volume_budget import plan_volume

    return lambda *given, **more: replace(plan_volume(*given, **more), strips=strips)


# Passes


def test_a_softmax_answer_has_a_total_uncertainty_only(volume: Make, scene: np.ndarray) -> None:
    answer = _predictor(Bright()).predict(volume(scene))
    assert list(answer.uncertainty) == ["total"]
    assert answer.maps == {}
    assert answer.forward_passes == 1
    assert 0 < answer.uncertainty["total"].max() <= np.log(2) + 1e-6


def test_equal_networks_differ_in_nothing(volume: Make, scene: np.ndarray) -> None:
    alone = _predictor(Bright(3)).predict(volume(scene))
    answer = _predictor([Bright(3), Bright(3)], Ensemble(2)).predict(volume(scene))
    np.testing.assert_allclose(answer.uncertainty["total"], alone.uncertainty["total"], atol=1e-6)
    assert answer.uncertainty["epistemic"].max() < 1e-6
    assert answer.uncertainty_source == "deep ensemble"


@pytest.mark.parametrize(("dims", "axes"), [(3, (0, 1, 2)), (2, (0, 1))])
def test_mirrors_agree_unless_the_network_leans_to_one_side(
    dims: int, axes: tuple[int, ...], volume: Make, scene: np.ndarray, blobs: np.ndarray
) -> None:
    planned = _plan(patch=(8, 8, 8)[-dims:])
    straight = _predictor(Bright(dims=dims, look_around=0.3), VolumeMirrors(axes), planned).predict(volume(scene))
    leaning = _predictor(Bright(dims=dims, shift=2), VolumeMirrors(axes), planned).predict(volume(scene))
    once = _predictor(Bright(dims=dims, look_around=0.3), planned=planned).predict(volume(scene))
    assert straight.forward_passes == 2**dims
    np.testing.assert_allclose(straight.probabilities, once.probabilities, atol=1e-5)
    assert leaning.uncertainty["epistemic"].max() > 0.3
    assert straight.uncertainty["epistemic"].mean() < 0.3 * leaning.uncertainty["epistemic"].mean()
    assert _dice(straight.labels > 0, blobs > 0) > 0.9


def test_dropout_makes_passes_differ_and_leaves_no_trace(volume: Make, scene: np.ndarray) -> None:
    network = Bright(dropout=0.5).train()
    state = torch.get_rng_state()
    predictor = _predictor(network, MonteCarloDropout(4))
    first = predictor.predict(volume(scene))
    assert first.uncertainty["epistemic"].max() > 0.05
    assert network.training
    assert network.dropout.training
    assert torch.equal(torch.get_rng_state(), state)
    _same(predictor.predict(volume(scene)), first, tolerance=0)


def test_an_interrupted_prediction_leaves_the_network_as_it_was(volume: Make, scene: np.ndarray) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    network, threads = Bright().train(), torch.get_num_threads()
    predictor = _predictor(network, threads=threads + 1)
    with pytest.raises(KeyboardInterrupt):
        predictor.predict(volume(scene), progress=interrupt)
    assert network.training
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()
    assert predictor.predict(volume(scene)).labels.any()


# Regions and rules

_NESTED = {"structure 1": (1, 2), "structure 2": (2,)}


def test_regions_lie_in_each_other_and_later_ones_are_written_over(volume: Make) -> None:
    voxels = np.random.default_rng(2).choice([0.0, 1.0, 2.0], (9, 8, 7)).astype(np.float32)
    answer = _predictor(Bright(2, regions=True, sharpness=4), regions=_NESTED).predict(
        volume(voxels), labels={"structure 1": 7, "structure 2": 3}
    )
    assert np.array_equal(answer.labels, np.array([0, 7, 3])[voxels.astype(int)])
    outer, inner = answer.structures
    assert (outer.voxels, inner.voxels) == ((voxels > 0).sum(), (voxels > 1).sum())
    expected = 1 / (1 + np.exp(-4 * (voxels - np.array([0.5, 1.5])[:, None, None, None])))
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(answer.uncertainty["total"], binary_entropy(expected).max(axis=0), atol=1e-5)
    inside = expected[0][voxels > 0].sum()
    assert outer.confidence == pytest.approx(2 * inside / (outer.voxels + expected[0].sum()), abs=5e-3)


def test_the_most_uncertain_region_speaks_for_the_parts(volume: Make, scene: np.ndarray) -> None:
    networks = [Bright(2, regions=True, sharpness=2), Bright(2, regions=True, sharpness=9)]
    both = _predictor(networks, Ensemble(2), regions=_NESTED).predict(volume(scene))
    each = [_predictor(one, regions=_NESTED).predict(volume(scene)).probabilities for one in networks]
    totals = binary_entropy(np.mean(each, axis=0))
    expected = np.mean([binary_entropy(one) for one in each], axis=0)
    speaks = totals.argmax(axis=0)[None]
    np.testing.assert_allclose(both.uncertainty["total"], totals.max(axis=0), atol=1e-5)
    aleatoric = np.take_along_axis(expected, speaks, axis=0)[0]
    np.testing.assert_allclose(both.uncertainty["aleatoric"], aleatoric, atol=1e-5)


@pytest.mark.parametrize("regions", [None, _NESTED])
def test_rules_keep_one_piece_without_holes(regions: dict | None, volume: Make) -> None:
    voxels = np.zeros((16, 16, 16), np.float32)
    voxels[2:10, 2:10, 2:10] = 1
    voxels[4:8, 4:8, 4:8] = 0  # a hole, with another structure in it
    voxels[5, 5, 5] = 2
    voxels[12:15, 12:15, 12:15] = 1
    voxels[13, 13, 13] = 2
    network = Bright(2 if regions else 3, regions=regions is not None)
    rules = [Rule("structure 1", keep_largest=True, fill_holes=True)]
    answer = _predictor(network, regions=regions, rules=rules).predict(volume(voxels))
    expected = np.zeros(voxels.shape, np.uint8)
    expected[2:10, 2:10, 2:10] = 1
    expected[5, 5, 5] = 2
    if regions:
        expected[5, 5, 5] = 1  # a piece of structure 1 of its own, and then its hole
    else:
        expected[13, 13, 13] = 2  # not a part of structure 1: its own rule would say
    assert np.array_equal(answer.labels, expected)
    counts = [int((expected > 0).sum()) if regions else int((expected == 1).sum()), int((expected == 2).sum())]
    assert [structure.voxels for structure in answer.structures] == counts
    assert answer.structures[0].confidence < 0.95  # the hole was filled against the network's word


def test_rules_without_anything_to_do_change_nothing(volume: Make, scene: np.ndarray) -> None:
    plain = _predictor(Bright(3)).predict(volume(scene))
    rules = [Rule("structure 2", keep_largest=True, fill_holes=True), Rule("structure 1")]
    _same(_predictor(Bright(3), rules=rules).predict(volume(scene)), plain)


# Calibration


def _calibration(structures: int, *, exclusive: bool, temperature: float = 2.0) -> Calibration:
    names = tuple(f"structure {index}" for index in range(1, structures + 1))
    promise = StructureGuarantees(
        thresholds=ThresholdMargins(loss="volume", risk=0.1, outer=0.2, inner=0.9, patients=20)
    )
    return Calibration(
        level=0.9, estimator="softmax entropy", structures=names, exclusive=exclusive,
        rescalings=(Temperature(temperature=temperature),) * (1 if exclusive else structures),
        guarantees={names[0]: promise}, patients=Patients(rescaling=20, guarantees=20, shared=False), data={},
    )  # fmt: skip


@pytest.mark.parametrize("regions", [False, True])
def test_a_calibrated_answer_is_rescaled_and_has_margins(regions: bool, volume: Make, scene: np.ndarray) -> None:
    network = Bright(2 if regions else 3, regions=regions, sharpness=6)
    predictor = _predictor(network, regions=_NESTED if regions else None)
    plain = predictor.predict(volume(scene))
    predictor.calibration = _calibration(2, exclusive=not regions)
    answer = predictor.predict(volume(scene))
    if regions:
        odds = np.sqrt(plain.probabilities / (1 - plain.probabilities))
        np.testing.assert_allclose(answer.probabilities, odds / (1 + odds), atol=1e-4)
    else:
        classes = np.sqrt(np.concatenate([1 - plain.probabilities.sum(axis=0)[None], plain.probabilities]).clip(1e-12))
        np.testing.assert_allclose(answer.probabilities, (classes / classes.sum(axis=0))[1:], atol=1e-3)
    assert answer.calibrated
    assert answer.uncertainty["total"].mean() > plain.uncertainty["total"].mean()
    margin = answer.margin("structure 1")
    assert np.array_equal(margin > 0, (answer.probabilities[0] >= 0.2) | (answer.labels == 1))


def test_a_local_temperature_sees_the_slice_on_the_images_own_grid(
    volume: Make, scene: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    predictor = _predictor(Bright(3), planned=_plan(1.0, 2.0, 2.0), memory=2**40)
    predictor.calibration = _calibration(2, exclusive=True)
    monkeypatch.setattr("medmargin.inference.volumes.looks_at_image", lambda calibration: True)
    apply = Calibration.apply_probabilities

    def watched(self, probabilities, vacuity=None, image=None, **more):
        seen.append(image)
        return apply(self, probabilities, vacuity, image, **more)

    monkeypatch.setattr(Calibration, "apply_probabilities", watched)
    predictor.predict(volume(scene))
    assert [picture.shape for picture in seen] == [(1, 24, 20)] * 16
    smooth = ndimage.zoom(
        Preparation(volume(scene), predictor.plan, predictor.configuration).voxels[0, 3], 2, order=1, mode="nearest",
        grid_mode=True,
    )  # fmt: skip
    np.testing.assert_allclose(seen[3][0], smooth, atol=1e-5)


# What fits together, and memory


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _predictor(Bright(), MonteCarloDropout()), "no dropout"),
        (lambda: _predictor(Bright(dims=2)), "2-D network of 1 channels; the plan is for 3-D"),
        (lambda: _predictor(Bright(2, regions=True)), "regions none"),
        (lambda: _predictor(Bright(3), regions=_NESTED), "regions structure 1, structure 2"),
        (lambda: _predictor(Bright(), rules=[Rule("liver")]), "no structure is called 'liver'"),
        (lambda: _predictor(Bright(), level=1.0), "level"),
        (lambda: _predictor(Bright(), step=0.0), "step"),
        (lambda: _predictor(Bright(), precision="float16"), "bf16"),
        (lambda: VolumePredictor([], structures=["a"], plan=_plan()[0], configuration=_plan()[1],
                                 uncertainty=Softmax()), "found 0"),
        (lambda: VolumePredictor(Bright(3), structures=["a"], plan=_plan()[0], configuration=_plan()[1],
                                 uncertainty=Softmax()), "answers 2 of them"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make: Callable[[], VolumePredictor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_images_and_requests_that_do_not_fit_are_refused(volume: Make, picture: Make, scene: np.ndarray) -> None:
    predictor = _predictor(Bright(2, channels=2), planned=_plan(channels=2))
    with pytest.raises(DataError, match=r"1 channels.*MRI 0, MRI 1"):
        predictor.predict(volume(scene))
    predictor = _predictor(Bright())
    with pytest.raises(DataError, match=r"picture \(2-D\).*3-D"):
        predictor.predict(picture(np.eye(16, dtype=np.uint8)))
    with pytest.raises(DataError, match="no signal"):
        predictor.predict(volume(np.ones((8, 8, 8), np.float32)))
    with pytest.raises(PromptError, match="by itself"):
        predictor.predict(volume(scene), [Prompt("structure 1", Box((1, 1, 1), (2, 2, 2)))])
    with pytest.raises(ConfigError, match="exclude each other"):
        predictor.predict(volume(scene), later_overwrites=True)
    with pytest.raises(ConfigError, match="'structure 1' has no label value"):
        predictor.predict(volume(scene), labels={"other": 1})


def test_too_little_memory_is_refused_before_the_start_with_an_estimate(volume: Make, scene: np.ndarray) -> None:
    network = Bright()
    with pytest.raises(BudgetError, match=r"16 x 24 x 20 voxels needs about \d+\.\d\d GB, more than the 0.01 GB"):
        _predictor(network, memory=10 * 2**20).predict(volume(scene))
    assert not network.seen


def test_memory_is_kept_by_strips_and_small_batches(volume: Make) -> None:
    voxels = np.random.default_rng(3).uniform(0, 6, (32, 320, 48)).astype(np.float32)
    network = Bright(40)
    planned = _plan(patch=(32, 32, 32), classes=40)

    def peak(memory: int | None) -> tuple[Segmentation, int]:
        network.seen.clear()
        tracemalloc.start()
        predictor = _predictor(network, planned=planned, memory=memory, step=1.0)
        answer = predictor.predict(volume(voxels), probabilities=False)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return answer, found

    wide, at_ease = peak(None)
    whole = 4 * 40 * voxels.size
    assert at_ease < whole
    assert max(shape[0] for shape in network.seen) == 8
    with pytest.raises(BudgetError) as refused:
        peak(1)
    least = float(str(refused.value).split("about ")[1].split(" ")[0]) * 2**30
    narrow, tight = peak(int(least + 15 * 2**20))
    assert tight < 0.7 * at_ease
    assert max(shape[0] for shape in network.seen) < 8
    _same(narrow, wide)


def test_the_expected_sizes_are_those_of_the_preparation(volume: Make, scene: np.ndarray) -> None:
    for codes, order in product(("RAS", "SAR", "PIL"), ((2, 1, 0), (0, 1, 2), (1, 2, 0))):
        image = volume(scene, affine=np.diag([1.0, 0.8, 2.5, 1.0])).reoriented(codes)
        plan, configuration = _plan(1.7, 1.1, 0.9, order=order)
        prepared = Preparation(image, plan, configuration)
        found = expected_geometry(image, plan, configuration, (8, 8, 8))
        assert (found.image, found.grid) == (prepared.shape, prepared.voxels.shape[1:])


# Files and callers


def test_the_embedding_is_the_mean_of_the_deepest_map(volume: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray | None] = []

    def assess(self, answer: Segmentation, embedding: np.ndarray | None) -> None:
        seen.append(embedding)

    monkeypatch.setattr(Trust, "assess", assess)
    monkeypatch.setattr(Trust, "needs_embedding", True)
    voxels = np.full((16, 16, 16), 2.0, np.float32)
    voxels[0, 0, 0] = 1
    for dims in (2, 3):
        predictor = _predictor(Bright(dims=dims), planned=_plan(patch=(8, 8, 8)[-dims:]))
        predictor.trust = Trust(level=0.9, modality="MR", predicted_dice=None, out_of_distribution=None)
        predictor.predict(volume(voxels))
        assert seen[-1] == pytest.approx([2, 3], abs=1e-2)
    monkeypatch.delattr(Bright, "encoder")
    predictor.predict(volume(voxels))
    assert seen[-1] is None


def test_progress_counts_the_windows(volume: Make, scene: np.ndarray) -> None:
    seen: list[tuple[int, int]] = []
    _predictor(Bright()).predict(volume(scene), progress=lambda *state: seen.append(state))
    assert seen[-1] == (prod((3, 5, 4)), prod((3, 5, 4)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_cases_are_written_with_their_maps(volume: Make, scene: np.ndarray, tmp_path: Path) -> None:
    predictor = _predictor(Bright(evidence="softplus"))
    outcome = predict_cases(predictor, [Job("case", lambda: (volume(scene), ()))], tmp_path)
    assert not outcome.failures
    names = {path.name for path in tmp_path.iterdir()}
    assert {"case_seg.nii.gz", "case_uncertainty.nii.gz", "case_vacuity.nii.gz"} <= names
    content = json.loads((tmp_path / "case_confidence.json").read_text())
    assert content["prompts"] == "none"
    assert content["uncertainty"] == {"source": "evidential", "forward_passes": 1, "unit": "nats"}
