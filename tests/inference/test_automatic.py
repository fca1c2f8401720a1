"""The predictor without prompts: geometry, cuts, passes, memory, prompts on top and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.errors import BudgetError, CheckpointError, ConfigError, PromptError
from medmargin.imaging import Volume
from medmargin.inference import AutomaticPredictor, Job, Segmentation, predict_cases
from medmargin.networks.evidence import opinion
from medmargin.networks.prediction import Prediction
from medmargin.networks.udeg_net import udeg_net
from medmargin.prompts.types import Box, Point, Prompt
from medmargin.uncertainty.dirichlet import decompose_dirichlet
from medmargin.uncertainty.estimators import (
    Ensemble,
    Estimator,
    Evidential,
    MonteCarloDropout,
    Snapshots,
    Softmax,
    TestTimeAugmentation,
)

AXIS_CODES = ["".join(code) for axes in permutations(("LR", "AP", "SI")) for code in product(*axes)]
Make = Callable[..., Volume]


class Thresholds(nn.Module):
    """Segments by intensity: class k is most likely where the picture is near k / (K - 1).

    Args:
        evidence, dropout, edges: what the answer is made of. reduce: logits come at size / reduce.
    """

    def __init__(
        self,
        size: int = 32,
        classes: int = 2,
        *,
        evidence: str | None = "softplus",
        dropout: float = 0.0,
        edges: bool = False,
        reduce: int = 1,
    ) -> None:
        super().__init__()
        self.image_size, self.classes, self.evidence, self.edges, self.reduce = size, classes, evidence, edges, reduce
        self.dropout = nn.Dropout2d(dropout)
        self.sharpness = nn.Parameter(torch.tensor(20.0))
        self.calls: list[dict[str, Tensor | None]] = []

    def forward(
        self,
        image: Tensor,
        boxes: Tensor | None = None,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Prediction:
        self.calls.append({"image": image, "boxes": boxes, "points": points, "point_labels": point_labels})
        grey = F.avg_pool2d(image.mean(1, keepdim=True), self.reduce)
        centres = torch.linspace(0, 1, self.classes).reshape(1, -1, 1, 1)
        logits = self.dropout(self.sharpness * (0.5 / max(self.classes - 1, 1) - (grey - centres).abs()))
        return Prediction(logits, edges=torch.cat([grey, 1 - grey], 1) * 6 if self.edges else None)


class Shifted(Thresholds):
    """Sees an object further right than it is, so that a mirror contradicts it."""

    def forward(self, image: Tensor, **prompts: Tensor | None) -> Prediction:
        return super().forward(image.roll(2, dims=-1), **prompts)


def _predictor(
    network: nn.Module | list[nn.Module], uncertainty: Estimator | None = None, **more
) -> AutomaticPredictor:
    first = network[0] if isinstance(network, list) else network
    names = [f"structure {index}" for index in range(1, first.classes)]
    return AutomaticPredictor(network, structures=names, uncertainty=uncertainty or Evidential(), **more)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def _same(first: Segmentation, second: Segmentation, tolerance: float = 0.0) -> None:
    assert np.array_equal(first.labels, second.labels)
    for name, values in {**first.uncertainty, **first.maps}.items():
        np.testing.assert_allclose(values, {**second.uncertainty, **second.maps}[name], atol=tolerance, rtol=0)


# Geometry


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_every_axis_code_gets_the_same_answer_on_its_own_grid(codes: str, volume: Make, blobs: np.ndarray) -> None:
    original = volume(blobs, affine=np.diag([1.0, 0.8, 2.5, 1.0]))
    predictor = _predictor(Thresholds(edges=True), TestTimeAugmentation())
    expected = predictor.predict(original)
    turned = original.reoriented(codes)
    answer = predictor.predict(turned)
    assert answer.labels.any()
    for values, reference in [
        (answer.labels, expected.labels),
        *((answer.uncertainty[name], expected.uncertainty[name]) for name in expected.uncertainty),
        *((answer.maps[name], expected.maps[name]) for name in expected.maps),
    ]:
        assert np.array_equal(turned.with_voxels(values).reoriented("RAS").voxels[0], reference)
    assert answer.structures == expected.structures


def test_an_oblique_anisotropic_volume_is_answered_on_its_own_voxels(volume: Make, blobs: np.ndarray) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-0.96, -0.28, 0.0], [0.28, -0.96, 0.0], [0.0, 0.0, -1.0]]) @ np.diag([0.7, 0.7, 4.0])
    affine[:3, 3] = [-30, 12, 8]
    image = volume(blobs, affine=affine)
    answer = _predictor(Thresholds()).predict(image)
    assert answer.image.grid.matches(image.grid)
    # Slices without an object are stretched to [0, 1] like all others, but a constant one is 0.
    assert _dice(answer.labels > 0, blobs > 0) > 0.95
    (structure,) = answer.structures
    assert structure.volume_ml == pytest.approx((answer.labels > 0).sum() * 0.7 * 0.7 * 4.0 / 1000)
    assert structure.low_ml <= structure.volume_ml <= structure.high_ml


def test_each_slice_keeps_its_own_voxels_when_sizes_agree(volume: Make) -> None:
    voxels = np.random.default_rng(0).choice([0.0, 50.0, 100.0], (32, 32, 5)).astype(np.float32)
    answer = _predictor(Thresholds(32, 3)).predict(volume(voxels))
    assert np.array_equal(answer.labels, (voxels / 50).astype(int))
    assert answer.labels.dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_colour_picture_that_is_not_square(dtype: type, picture: Make) -> None:
    pixels = np.zeros((30, 75, 3), dtype)
    pixels[8:22, 40:70] = np.iinfo(dtype).max
    answer = _predictor(Thresholds(64, reduce=2)).predict(picture(pixels))
    assert answer.labels.shape == (75, 30, 1)
    assert _dice(answer.labels[:, :, 0].T > 0, pixels[..., 0] > 0) > 0.95
    assert answer.structures[0].volume_ml is None


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("planes", ["axial", "three"])
def test_a_volume_of_one_slice_has_one_cut(axis: int, planes: str, volume: Make) -> None:
    voxels = np.zeros((24, 20, 1), np.float32)
    voxels[5:15, 4:12] = 1
    network = Thresholds()
    answer = _predictor(network, planes=planes).predict(volume(np.moveaxis(voxels, 2, axis)))
    assert _dice(np.moveaxis(answer.labels, axis, 2) > 0, voxels > 0) > 0.9
    assert len(network.calls) == answer.forward_passes == 1


def test_the_logits_not_the_probabilities_are_brought_to_the_slice(picture: Make) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (32, 32)).astype(np.uint8)
    network = Thresholds(32, 3, reduce=4)
    answer = _predictor(network).predict(picture(pixels))
    image = torch.from_numpy((pixels - pixels.min()) / np.float32(np.ptp(pixels))).expand(1, 3, 32, 32)
    with torch.inference_mode():
        found = opinion(F.interpolate(network(image).logits, (32, 32), mode="bilinear", align_corners=False))
    assert answer.probabilities is not None
    np.testing.assert_allclose(answer.probabilities[..., 0].transpose(0, 2, 1), found.probability[0, 1:], atol=1e-6)
    np.testing.assert_allclose(answer.maps["vacuity"][..., 0].T, found.uncertainty[0, 0], atol=1e-6)
    parts = decompose_dirichlet(found.alpha[0].numpy())
    for name, part in zip(("total", "aleatoric", "epistemic"), parts, strict=True):
        np.testing.assert_allclose(answer.uncertainty[name][..., 0].T, part, atol=1e-5)


# Three cuts


def test_three_cuts_equal_one_where_the_network_sees_the_same_in_all(volume: Make) -> None:
    voxels = np.random.default_rng(2).integers(0, 2, (16, 16, 16)).astype(np.float32)  # every slice holds 0 and 1
    network = Thresholds(16)
    one = _predictor(network).predict(volume(voxels))
    three = _predictor(network, planes="three").predict(volume(voxels))
    _same(three, one, tolerance=1e-6)
    assert three.forward_passes == 3
    assert three.structures[0].low_voxels == one.structures[0].low_voxels
    assert three.structures[0].high_voxels == one.structures[0].high_voxels


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR", "PIL"])
def test_three_cuts_land_on_the_same_voxels(codes: str, volume: Make, blobs: np.ndarray) -> None:
    original = volume(blobs, affine=np.diag([1.0, 0.8, 2.5, 1.0]))
    turned = original.reoriented(codes)
    answer = _predictor(Thresholds(32, evidence=None), Softmax(), planes="three").predict(turned)
    back = turned.with_voxels(answer.labels).reoriented("RAS").voxels[0]
    assert _dice(back > 0, blobs > 0) > 0.95
    assert answer.probabilities is not None
    assert np.array_equal(answer.probabilities[0] > 0.5, answer.labels > 0)


def test_cuts_that_disagree_are_epistemic(volume: Make) -> None:
    voxels = np.random.default_rng(3).integers(0, 2, (16, 16, 16)).astype(np.float32)
    answer = _predictor(Shifted(16, evidence=None), Softmax(), planes="three").predict(volume(voxels))
    assert answer.uncertainty["epistemic"].max() > 0.2
    np.testing.assert_allclose(
        answer.uncertainty["total"], answer.uncertainty["aleatoric"] + answer.uncertainty["epistemic"], atol=1e-6
    )


# Passes


def test_a_softmax_answer_has_a_total_uncertainty_only(volume: Make, blobs: np.ndarray) -> None:
    answer = _predictor(Thresholds(evidence=None), Softmax()).predict(volume(blobs))
    assert list(answer.uncertainty) == ["total"]
    assert answer.maps == {}
    assert answer.uncertainty["total"].max() <= np.log(2) + 1e-6


def test_mirrors_of_a_network_that_sees_them_alike_agree(volume: Make, blobs: np.ndarray) -> None:
    answer = _predictor(Thresholds(edges=True), TestTimeAugmentation()).predict(volume(blobs))
    assert answer.forward_passes == 4
    assert answer.uncertainty["epistemic"].max() < 1e-6
    assert _dice(answer.labels > 0, blobs > 0) > 0.95
    assert set(answer.maps) == {"vacuity", "edge", "edge_uncertainty"}


def test_mirrors_of_a_network_that_leans_to_one_side_disagree(volume: Make, blobs: np.ndarray) -> None:
    answer = _predictor(Shifted(), TestTimeAugmentation()).predict(volume(blobs))
    assert answer.uncertainty["epistemic"].max() > 0.05


def test_dropout_makes_passes_differ_whatever_the_batch(
    volume: Make, blobs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Thresholds(dropout=0.5, evidence=None)
    network.train()
    state = torch.get_rng_state()
    predictor = _predictor(network, MonteCarloDropout(6))
    first = predictor.predict(volume(blobs))
    assert first.uncertainty["epistemic"].max() > 0.05
    assert network.training
    assert network.dropout.training
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr("medmargin.inference.budget._MOST_IMAGES", 3)
    _same(predictor.predict(volume(blobs)), first)
    other = _predictor(network, MonteCarloDropout(6, seed=5)).predict(volume(blobs))
    assert not np.array_equal(other.uncertainty["total"], first.uncertainty["total"])


def test_dropout_switches_nothing_else_on(volume: Make, blobs: np.ndarray) -> None:
    network = nn.ModuleDict({"norm": nn.BatchNorm2d(3)})
    inner = Thresholds(dropout=0.5)
    inner.extra = network
    _predictor(inner, MonteCarloDropout(2)).predict(volume(blobs))
    seen = []
    inner.register_forward_pre_hook(lambda module, _: seen.append((module.dropout.training, network["norm"].training)))
    _predictor(inner, MonteCarloDropout(2)).predict(volume(blobs))
    assert set(seen) == {(True, False)}


def test_equal_networks_have_no_epistemic_uncertainty_at_all(volume: Make, blobs: np.ndarray) -> None:
    alone = _predictor(Thresholds(classes=3, evidence=None), Softmax()).predict(volume(blobs))
    for estimator in (Ensemble(3), Snapshots(3)):
        members = [Thresholds(classes=3, evidence=None) for _ in range(3)]
        answer = _predictor(members, estimator).predict(volume(blobs))
        assert answer.uncertainty["epistemic"].max() == 0
        assert np.array_equal(answer.uncertainty["total"], alone.uncertainty["total"])
        assert answer.uncertainty_source == estimator.name
        assert all(member.calls for member in members)


def test_small_batches_give_what_large_ones_give(
    volume: Make, blobs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = [Shifted(classes=3, edges=True), Thresholds(classes=3, edges=True)]
    predictor = _predictor(networks, Ensemble(2), planes="three")
    large = predictor.predict(volume(blobs))
    monkeypatch.setattr("medmargin.inference.budget._MOST_IMAGES", 1)
    networks[0].calls.clear()
    small = predictor.predict(volume(blobs))
    _same(small, large, tolerance=1e-6)
    assert {len(call["image"]) for call in networks[0].calls} == {1}
    assert small.structures == large.structures


def test_streamed_means_equal_those_of_all_passes_together(picture: Make) -> None:
    pixels = np.random.default_rng(4).integers(0, 255, (32, 32)).astype(np.uint8)
    networks = [Thresholds(32, 3), Shifted(32, 3)]
    answer = _predictor(networks, Ensemble(2)).predict(picture(pixels))
    both = [_predictor(network).predict(picture(pixels)) for network in networks]
    np.testing.assert_allclose(answer.probabilities, np.mean([one.probabilities for one in both], axis=0), atol=1e-6)
    np.testing.assert_allclose(
        answer.maps["vacuity"], np.mean([one.maps["vacuity"] for one in both], axis=0), atol=1e-6
    )


def test_udeg_net_is_asked_with_and_without_prompts_and_dropout(volume: Make, blobs: np.ndarray) -> None:
    network = udeg_net("compact", classes=3, image_size=32, lora_rank=0, dropout=0.3)
    network.observe(torch.linspace(0, 1, 100))
    alone = _predictor(network).predict(volume(blobs))
    assert set(alone.maps) == {"vacuity", "edge", "edge_uncertainty"}
    assert all(0 <= values.min() <= values.max() <= 1 for values in alone.maps.values())
    assert alone.summary()["flagged"]["threshold"] == pytest.approx(0.95, abs=0.02)
    box = Prompt("structure 2", Box((2, 3, 4), (9, 12, 6)), points=(Point((5, 6, 5)),))
    prompted = _predictor(network).predict(volume(blobs), [box])
    changed = np.abs(prompted.uncertainty["total"] - alone.uncertainty["total"]).max(axis=(0, 1)) > 1e-4
    assert np.flatnonzero(changed).tolist() == [4, 5, 6]
    sampled = _predictor(network, MonteCarloDropout(3)).predict(volume(blobs))
    assert sampled.uncertainty["epistemic"].max() > 0


# What fits together


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _predictor(Thresholds(), MonteCarloDropout()), "no dropout"),
        (lambda: _predictor(Thresholds(), Softmax()), "gives evidence"),
        (lambda: _predictor(Thresholds(evidence=None), Evidential()), "no evidence"),
        (lambda: _predictor(Thresholds(), Ensemble(2)), "expected 2 networks, found 1"),
        (lambda: _predictor([Thresholds(), Thresholds()], Evidential()), "expected 1 networks, found 2"),
        (lambda: _predictor([Thresholds(), Thresholds(classes=3)], Ensemble(2)), "alike"),
        (lambda: AutomaticPredictor([], structures=["a"], uncertainty=Evidential()), "found 0"),
        (lambda: AutomaticPredictor(Thresholds(), structures=["a", "b"], uncertainty=Evidential()), "2 classes"),
        (lambda: AutomaticPredictor(Thresholds(classes=3), structures=["a", "a"], uncertainty=Evidential()), "names"),
        (lambda: _predictor(Thresholds(), level=1.0), "level"),
        (lambda: _predictor(Thresholds(), planes="coronal"), "planes"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], AutomaticPredictor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_what_is_set_later_is_checked_too(volume: Make, blobs: np.ndarray) -> None:
    predictor = _predictor(Thresholds())
    predictor.uncertainty = MonteCarloDropout()
    with pytest.raises(ConfigError, match="no dropout"):
        predictor.predict(volume(blobs))
    predictor.networks, predictor.uncertainty = (Thresholds(16), Thresholds(16)), Ensemble(2)
    assert predictor.predict(volume(blobs)).forward_passes == predictor.forward_passes == 2
    predictor.networks = (Thresholds(16, 3), Thresholds(16, 3))
    with pytest.raises(ConfigError, match="3 classes"):
        predictor.predict(volume(blobs))


def test_memory_too_small_is_refused_before_anything_is_asked(volume: Make, blobs: np.ndarray) -> None:
    network = Thresholds()
    predictor = _predictor(network)
    predictor.memory = 1000
    with pytest.raises(BudgetError):
        predictor.predict(volume(blobs))
    assert network.calls == []


def test_answers_that_are_not_finite_are_refused(volume: Make, blobs: np.ndarray) -> None:
    network = Thresholds()
    nn.init.constant_(network.sharpness, torch.nan)
    with pytest.raises(CheckpointError, match="not finite"):
        _predictor(network).predict(volume(blobs))


def test_labels_take_the_values_of_the_task(volume: Make) -> None:
    voxels = np.random.default_rng(5).choice([0.0, 50.0, 100.0], (16, 16, 3)).astype(np.float32)
    predictor = _predictor(Thresholds(16, 3))
    answer = predictor.predict(volume(voxels), labels={"structure 2": 4, "structure 1": 9})
    assert np.array_equal(answer.labels, np.array([0, 9, 4])[(voxels / 50).astype(int)])
    assert answer.names == {9: "structure 1", 4: "structure 2"}
    with pytest.raises(ConfigError, match="structure 2"):
        predictor.predict(volume(voxels), labels={"structure 1": 1})


# Prompts on top


def test_a_box_and_a_point_reach_the_slices_they_touch(volume: Make, blobs: np.ndarray) -> None:
    network = Thresholds(24)
    prompts = [
        Prompt("structure 1", Box((2, 3, 4), (9, 12, 6))),
        Prompt("structure 1", points=(Point((14, 16, 10)), Point((1, 2, 10), positive=False))),
    ]
    answer = _predictor(network).predict(volume(blobs), prompts)
    by_kind = {(call["boxes"] is not None, call["points"] is not None): call for call in network.calls}
    assert {kind: len(call["image"]) for kind, call in by_kind.items()} == {
        (False, False): 12,
        (True, False): 3,
        (False, True): 1,
    }
    assert by_kind[True, False]["boxes"].tolist() == [[2, 3, 9, 12]] * 3
    assert by_kind[False, True]["points"].tolist() == [[[14, 16], [1, 2]]]
    assert by_kind[False, True]["point_labels"].tolist() == [[1, 0]]
    assert answer.prompts_source == "user"
    _same(answer, _predictor(network).predict(volume(blobs)))  # this network ignores prompts: no slice is lost


def test_mirrors_carry_their_prompts_along(picture: Make) -> None:
    pixels = np.zeros((16, 32), np.uint8)
    pixels[3:9, 4:20] = 255
    network = Thresholds(32)
    prompt = Prompt("structure 1", Box((4, 3), (19, 8)), points=(Point((4, 3)),))
    _predictor(network, TestTimeAugmentation()).predict(picture(pixels), [prompt])
    for call in network.calls:
        x_min, y_min, x_max, y_max = call["boxes"][0].int().tolist()
        inside = torch.zeros(32, 32)
        inside[y_min : y_max + 1, x_min : x_max + 1] = 1
        assert torch.equal(inside, call["image"][0, 0])
        assert call["points"][0, 0].tolist() in [[x, y] for x in (x_min, x_max) for y in (y_min, y_max)]


def test_two_structures_in_one_slice_share_the_box_around_them(picture: Make) -> None:
    network = Thresholds(32, 3)
    prompts = [Prompt("structure 1", Box((4, 3), (9, 8))), Prompt("structure 2", Box((20, 6), (30, 12)))]
    _predictor(network).predict(picture(np.eye(32, dtype=np.uint8)), prompts)
    assert network.calls[0]["boxes"].tolist() == [[4, 3, 30, 12]]


def test_a_box_drawn_in_one_slice_says_nothing_in_the_other_cuts(volume: Make, blobs: np.ndarray) -> None:
    network = Thresholds(24)
    _predictor(network, planes="three").predict(volume(blobs), [Prompt("structure 1", Box((2, 3, 5), (9, 12, 5)))])
    assert [len(call["boxes"]) for call in network.calls if call["boxes"] is not None] == [1]
    network.calls.clear()
    _predictor(network, planes="three").predict(volume(blobs), [Prompt("structure 1", Box((2, 3, 4), (9, 12, 6)))])
    assert sum(len(call["boxes"]) for call in network.calls if call["boxes"] is not None) == 3 + 8 + 10


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("liver", Box((1, 1, 1), (5, 5, 5))), "'liver' is unknown; expected one of structure 1"),
        (Prompt("structure 1", mask=np.ones((20, 24, 16))), "no mask"),
        (Prompt("structure 1", Box((1, 1, 1), (50, 5, 5))), "outside"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(prompt: Prompt, message: str, volume: Make, blobs: np.ndarray) -> None:
    with pytest.raises(PromptError, match=message):
        _predictor(Thresholds()).predict(volume(blobs), [prompt])


# Files


def test_flagged_voxels_are_those_with_little_evidence(volume: Make, blobs: np.ndarray) -> None:
    network = Thresholds()
    network.flag_threshold = torch.tensor(torch.nan)
    image = volume(blobs, affine=np.diag([0.5, 0.5, 6.0, 1.0]))
    assert _predictor(network).predict(image).summary()["flagged"] is None
    network.flag_threshold = torch.tensor(0.25)
    answer = _predictor(network).predict(image)
    count = int((answer.maps["vacuity"] > 0.25).sum())
    assert 0 < count < blobs.size
    flagged = answer.summary()["flagged"]
    assert flagged == {"threshold": 0.25, "voxels": count, "volume_ml": pytest.approx(count * 1.5 / 1000)}


def test_the_maps_are_written_beside_the_others(volume: Make, blobs: np.ndarray, tmp_path: Path) -> None:
    network = Thresholds(edges=True)
    network.flag_threshold = torch.tensor(0.25)
    image = volume(blobs, affine=np.diag([-0.7, 0.9, 3.0, 1.0]))
    outcome = predict_cases(_predictor(network), [Job("case", lambda: (image, ()))], tmp_path, keep=True)
    assert not outcome.failures
    answer = outcome.results[0].segmentation
    assert answer is not None
    for name in ("vacuity", "edge", "edge_uncertainty"):
        written = nibabel.load(tmp_path / f"case_{name}.nii.gz")
        assert written.get_data_dtype() == np.uint8
        np.testing.assert_allclose(written.get_fdata(), answer.maps[name], atol=1 / 500 + 1e-6)
        assert np.allclose(written.affine, image.affine, atol=1e-5)
    content = json.loads((tmp_path / "case_confidence.json").read_text())
    assert content["prompts"] == "none"
    assert content["flagged"]["threshold"] == 0.25
    assert content["uncertainty"] == {"source": "evidential", "forward_passes": 1, "unit": "nats"}


def test_progress_counts_the_slices_of_every_cut(volume: Make, blobs: np.ndarray) -> None:
    seen: list[tuple[int, int]] = []
    _predictor(Thresholds(), planes="three").predict(volume(blobs), progress=lambda *state: seen.append(state))
    assert seen == [(done, 60) for done in range(1, 61)]
