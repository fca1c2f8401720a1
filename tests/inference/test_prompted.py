"""The predictor: LiteMedSAM's arithmetic, every orientation, uncertainty and volumes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from medmargin.errors import BudgetError, ConfigError, PromptError
from medmargin.imaging import Grid, Volume
from medmargin.inference.framing import Framing
from medmargin.inference.prompted import PromptedPredictor
from medmargin.inference.segmentation import PROMPTS_FROM_LABELS
from medmargin.networks.promptable import Promptable
from medmargin.prompts.from_labels import boxes_from_labels
from medmargin.prompts.types import Box, Point, Prompt
from medmargin.uncertainty.prompt_perturbation import PromptPerturbation

AXIS_CODES = ["".join(code) for axes in permutations(("LR", "AP", "SI")) for code in product(*axes)]
Make = Callable[..., Volume]


def _photo(height: int = 90, width: int = 140) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


def test_a_picture_is_segmented_with_litemedsams_arithmetic(tiny_network: Promptable, picture: Make) -> None:
    pixels, box = _photo(), (17, 23, 81, 66)
    prompt = Prompt("a", Box(box[:2], box[2:]))
    answer = PromptedPredictor(tiny_network, uncertainty=None).predict(picture(pixels), [prompt])
    ratio = 64 / 140
    small = cv2.resize(pixels, (64, 41), interpolation=cv2.INTER_AREA).astype(np.float32)
    small = (small - small.min()) / (small.max() - small.min())
    image = torch.from_numpy(np.pad(small, ((0, 23), (0, 0), (0, 0)))).permute(2, 0, 1)[None]
    boxes = torch.tensor([[float(int(value * ratio)) for value in box]])
    with torch.inference_mode():
        logits = tiny_network(image, boxes=boxes).logits[..., :41, :64]
        expected = torch.sigmoid(F.interpolate(logits, (90, 140), mode="bilinear", align_corners=False))[0, 0].numpy()
    assert answer.probabilities is not None
    np.testing.assert_allclose(answer.probabilities[0, :, :, 0].T, expected, atol=1e-5)
    assert np.array_equal(answer.labels[:, :, 0].T, expected > 0.5)


@pytest.mark.parametrize(("uncertainty", "views"), [(None, 1), (PromptPerturbation(), 2)])
def test_a_picture_is_encoded_once_for_all_its_boxes(
    uncertainty: PromptPerturbation | None, views: int, oracle: Callable, picture: Make
) -> None:
    network = oracle()
    prompts = [Prompt(f"cell {index}", Box((5 * index, 4), (5 * index + 9, 30))) for index in range(12)]
    PromptedPredictor(network, uncertainty=uncertainty).predict(picture(_photo()), prompts)
    assert network.encoded == [views]
    assert sum(network.decoded) == 12 * (uncertainty.members if uncertainty else 1)


@pytest.mark.parametrize("per_slice", [True, False])
@pytest.mark.parametrize("codes", AXIS_CODES)
def test_every_axis_code_gets_the_same_answer_on_its_own_grid(
    codes: str, per_slice: bool, oracle: Callable, volume: Make, blobs: np.ndarray
) -> None:
    original = volume(blobs, affine=np.diag([1.0, 0.8, 2.5, 1.0]))
    prompts = boxes_from_labels((blobs > 50).astype(int), {"blob": 1}, dims=3, per_slice=per_slice)
    predictor = PromptedPredictor(oracle(), uncertainty=PromptPerturbation(members=3), framing=Framing("object"))
    expected = predictor.predict(original, prompts)
    turned = original.reoriented(codes)
    answer = predictor.predict(turned, [_turned(prompt, original, turned) for prompt in prompts])
    assert answer.labels.any()
    back = turned.with_voxels(answer.labels).reoriented("RAS").voxels[0]
    assert np.array_equal(back, expected.labels)
    for name, values in answer.uncertainty.items():
        assert np.array_equal(turned.with_voxels(values).reoriented("RAS").voxels[0], expected.uncertainty[name])
    assert answer.structures == expected.structures


def _turned(prompt: Prompt, original: Volume, turned: Volume) -> Prompt:
    """Give a prompt in voxels of another orientation of the same image."""
    assert prompt.box is not None
    move = np.linalg.solve(turned.affine, original.affine)
    ends = np.array([prompt.box.minimum, prompt.box.maximum]) @ move[:3, :3].T + move[:3, 3]
    low, high = np.round(ends.min(axis=0), 6), np.round(ends.max(axis=0), 6)
    return Prompt(prompt.structure, Box(tuple(low.tolist()), tuple(high.tolist())))


def test_an_oblique_anisotropic_volume_is_answered_on_its_own_grid(
    oracle: Callable, volume: Make, blobs: np.ndarray
) -> None:
    turn = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.7, 0.7, 4.0])
    affine[:3, 3] = [-30, 12, 8]
    image = volume(blobs, affine=affine)
    prompts = boxes_from_labels((blobs > 50).astype(int), {"blob": 1}, dims=3)
    answer = PromptedPredictor(oracle(), uncertainty=None).predict(image, prompts)
    truth = blobs > 50
    assert answer.image.grid.matches(image.grid)
    assert 2 * (truth & (answer.labels > 0)).sum() / (truth.sum() + (answer.labels > 0).sum()) > 0.85
    (structure,) = answer.structures
    assert structure.volume_ml == pytest.approx((answer.labels > 0).sum() * 0.7 * 0.7 * 4.0 / 1000)


def test_total_is_aleatoric_plus_epistemic(tiny_network: Promptable, picture: Make) -> None:
    prompts = [Prompt("a", Box((10, 10), (60, 60))), Prompt("b", Box((40, 20), (120, 80)))]
    answer = PromptedPredictor(tiny_network).predict(picture(_photo()), prompts)
    maps = answer.uncertainty
    np.testing.assert_allclose(maps["aleatoric"] + maps["epistemic"], maps["total"], atol=1e-6)
    assert maps["epistemic"].min() >= -1e-7
    assert maps["epistemic"].max() > 0
    assert maps["total"].max() <= np.log(2) + 1e-6
    assert all(values.shape == answer.labels.shape for values in maps.values())


def test_a_network_that_never_wavers_has_no_epistemic_uncertainty(
    stubborn: Callable, volume: Make, blobs: np.ndarray
) -> None:
    prompts = boxes_from_labels((blobs > 50).astype(int), {"blob": 1}, dims=3)
    network = stubborn(32)
    answer = PromptedPredictor(network, uncertainty=PromptPerturbation(flips=("none",))).predict(volume(blobs), prompts)
    assert answer.uncertainty["epistemic"].max() == 0
    assert answer.forward_passes == 8


def test_a_network_that_follows_the_box_is_uncertain_at_its_sides(box_filler: Callable, picture: Make) -> None:
    answer = PromptedPredictor(box_filler()).predict(picture(_photo(32, 32)), [Prompt("a", Box((8, 8), (23, 23)))])
    doubt = answer.uncertainty["epistemic"][:, :, 0]
    assert doubt[8, 16] > 0
    assert doubt[16, 16] == 0
    (structure,) = answer.structures
    assert structure.low_voxels < structure.voxels < structure.high_voxels


def test_a_single_answer_has_a_total_uncertainty_only(tiny_network: Promptable, picture: Make) -> None:
    answer = PromptedPredictor(tiny_network, uncertainty=None).predict(
        picture(_photo()), [Prompt("a", Box((9, 9), (50, 50)))]
    )
    assert list(answer.uncertainty) == ["total"]
    assert answer.forward_passes == 1
    assert answer.uncertainty["total"].max() > 0


def test_a_flip_is_undone(oracle: Callable, picture: Make) -> None:
    pixels = np.zeros((30, 32), np.uint8)
    pixels[5:14, 3:10] = 255
    plan = PromptPerturbation(members=3, flips=("none", "horizontal", "vertical"))
    prompt = Prompt("a", Box((3, 5), (9, 13)))
    answer = PromptedPredictor(oracle(32), uncertainty=plan).predict(picture(pixels), [prompt])
    assert np.array_equal(answer.labels[:, :, 0].T > 0, pixels > 0)
    assert answer.uncertainty["epistemic"].max() == 0


def test_points_and_masks_are_asked_with_the_whole_picture(oracle: Callable, picture: Make) -> None:
    pixels = np.zeros((32, 32), np.uint8)
    pixels[5:14, 3:10] = 255
    network = oracle(32)
    predictor = PromptedPredictor(network, framing=Framing("object"), uncertainty=None)
    answer = predictor.predict(picture(pixels), [Prompt("a", points=(Point((5, 8)), Point((30, 30), positive=False)))])
    assert np.array_equal(answer.labels[:, :, 0].T > 0, pixels > 0)
    assert network.seen[0]["points"].tolist() == [[[5, 8], [30, 30]]]
    assert network.seen[0]["point_labels"].tolist() == [[1, 0]]
    mask = np.zeros((32, 32, 1), bool)
    mask[2:12, 4:16] = True
    answer = predictor.predict(picture(pixels), [Prompt("a", mask=mask)])
    assert network.seen[1]["masks"].shape == (1, 1, 32, 32)
    assert answer.labels.any()


def test_volumes_know_the_size_of_anisotropic_voxels(oracle: Callable, volume: Make, blobs: np.ndarray) -> None:
    image = volume(blobs, affine=np.diag([0.5, 0.5, 6.0, 1.0]))
    prompts = boxes_from_labels((blobs > 50).astype(int), {"blob": 1}, dims=3)
    (structure,) = PromptedPredictor(oracle()).predict(image, prompts).structures
    assert structure.volume_ml == pytest.approx(structure.voxels * 0.5 * 0.5 * 6 / 1000)
    assert structure.low_ml <= structure.volume_ml <= structure.high_ml
    assert structure.reason == ""


def test_a_volume_of_unknown_spacing_has_no_millilitres_but_a_reason(
    oracle: Callable, volume: Make, blobs: np.ndarray
) -> None:
    prompts = boxes_from_labels((blobs > 50).astype(int), {"blob": 1}, dims=3)
    (structure,) = PromptedPredictor(oracle()).predict(volume(blobs, unit="px"), prompts).structures
    assert structure.volume_ml is structure.low_ml is structure.high_ml is None
    assert "how large a voxel is" in structure.reason
    assert structure.low_voxels <= structure.voxels <= structure.high_voxels


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.99))
def test_volume_intervals_hold_their_estimate_and_confidence_is_a_fraction(
    hesitant: torch.nn.Module, seed: int, level: float
) -> None:
    rng = np.random.default_rng(seed)
    image = Volume(rng.random((1, 24, 20, 3)), Grid((24, 20, 3), np.diag([1.0, 1.0, 2.0, 1.0])))
    corners = rng.integers(0, 12, (2, 3)), rng.integers(0, 8, (2, 3))
    prompts = [
        Prompt(name, Box((*low[:2].tolist(), index), (*(low + size)[:2].tolist(), index + 1)))
        for name, low, size, index in zip("ab", *corners, (0, 1), strict=True)
    ]
    predictor = PromptedPredictor(hesitant, level=level, uncertainty=PromptPerturbation(members=3))
    for structure in predictor.predict(image, prompts).structures:
        assert structure.low_ml <= structure.volume_ml <= structure.high_ml
        assert 0 <= structure.confidence <= 1


def test_label_values_follow_the_task_or_the_order_of_the_prompts(oracle: Callable, picture: Make) -> None:
    pixels = np.zeros((32, 32), np.uint8)
    pixels[2:10, 2:10] = pixels[20:30, 20:30] = 255
    prompts = [Prompt("late", Box((20, 20), (29, 29))), Prompt("early", Box((2, 2), (9, 9)))]
    predictor = PromptedPredictor(oracle())
    plain = predictor.predict(picture(pixels), prompts)
    assert plain.names == {1: "late", 2: "early"}
    task = predictor.predict(picture(pixels), prompts, labels={"early": 1, "middle": 7, "late": 300})
    assert task.names == {300: "late", 1: "early"}
    assert task.labels[25, 25, 0] == 300
    assert task.labels[5, 5, 0] == 1
    with pytest.raises(PromptError, match="'late' is unknown; expected one of early"):
        predictor.predict(picture(pixels), prompts, labels={"early": 1})


def test_challenge_images_let_later_boxes_overwrite(box_filler: Callable, picture: Make) -> None:
    prompts = [Prompt("1", Box((2, 2), (20, 20))), Prompt("2", Box((10, 10), (30, 30)))]
    predictor = PromptedPredictor(box_filler(), uncertainty=None)
    challenge = predictor.predict(picture(_photo(32, 32), format="npz"), prompts)
    assert challenge.labels[15, 15, 0] == 2
    first = predictor.predict(picture(_photo(32, 32)), prompts)  # equally probable: the first keeps the voxel
    assert first.labels[15, 15, 0] == 1


def test_memory_too_small_is_refused_before_anything_is_encoded(
    oracle: Callable, volume: Make, blobs: np.ndarray
) -> None:
    network = oracle()
    with pytest.raises(BudgetError):
        PromptedPredictor(network, memory=1000).predict(volume(blobs), [Prompt("a", Box((2, 2, 2), (9, 9, 9)))])
    assert network.encoded == []


def test_the_network_and_torch_are_left_as_they_were(oracle: Callable, picture: Make) -> None:
    network = oracle()
    network.train()
    threads = torch.get_num_threads()
    predictor = PromptedPredictor(network, threads=1)
    answer = predictor.predict(
        picture(_photo()), [Prompt("a", Box((9, 9), (50, 50)))], prompts_source=PROMPTS_FROM_LABELS
    )
    assert network.training
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()
    assert answer.prompts_source == "labels (evaluation only)"


def test_one_seed_gives_one_answer(tiny_network: Promptable, picture: Make) -> None:
    prompts = [Prompt("a", Box((10, 10), (60, 60)))]
    first, second = (PromptedPredictor(tiny_network).predict(picture(_photo()), prompts) for _ in range(2))
    for name, values in first.uncertainty.items():
        assert np.array_equal(values, second.uncertainty[name])


@pytest.mark.parametrize("arguments", [{"level": 1.0}, {"enlarge": -1}, {"threads": 0}])
def test_values_out_of_range_are_refused(arguments: dict, oracle: Callable) -> None:
    with pytest.raises(ConfigError):
        PromptedPredictor(oracle(), **arguments)
