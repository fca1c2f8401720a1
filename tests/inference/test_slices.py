"""Slice propagation and prompted slices, with networks whose answers are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medmargin.imaging import Volume
from medmargin.inference.framing import Framing
from medmargin.inference.prompted import PromptedPredictor
from medmargin.prompts.from_labels import boxes_from_labels
from medmargin.prompts.types import Box, Prompt
from medmargin.uncertainty.prompt_perturbation import PromptPerturbation

Make = Callable[..., Volume]


def _cylinder(shift: int = 0, slices: int = 9) -> np.ndarray:
    """A bright disc of radius 6 in every slice of [64, 64, slices], moving `shift` pixels per slice along x."""
    i, j = np.ogrid[:64, :64]
    discs = [(i - 32 - shift * (k - slices // 2)) ** 2 + (j - 30) ** 2 <= 36 for k in range(slices)]
    return np.where(np.stack(discs, axis=2), 200, 10).astype(np.uint8)


def _middle_box(voxels: np.ndarray) -> Box:
    """The box of the middle slice, to be followed through all slices."""
    i, j = np.nonzero(voxels[:, :, voxels.shape[2] // 2] > 100)
    return Box((i.min(), j.min(), 0), (i.max(), j.max(), voxels.shape[2] - 1))


@pytest.mark.parametrize("framing", [Framing("image"), Framing("object", margin=0.5, smallest_fraction=0.4)])
def test_a_cylinder_is_recovered_from_the_box_of_its_middle_slice(
    framing: Framing, oracle: Callable, volume: Make
) -> None:
    voxels = _cylinder()
    predictor = PromptedPredictor(oracle(64), framing=framing, uncertainty=None)
    answer = predictor.predict(volume(voxels), [Prompt("tube", _middle_box(voxels))])
    if framing.kind == "image":  # no resampling: exact
        assert np.array_equal(answer.labels, voxels > 100)
    else:
        overlap = 2 * (answer.labels * (voxels > 100)).sum() / (answer.labels.sum() + (voxels > 100).sum())
        assert overlap > 0.97


def test_a_slow_shift_is_followed(oracle: Callable, volume: Make) -> None:
    voxels = _cylinder(shift=3)
    answer = PromptedPredictor(oracle(64), uncertainty=None).predict(
        volume(voxels), [Prompt("tube", _middle_box(voxels))]
    )
    assert np.array_equal(answer.labels, voxels > 100)


def test_an_object_that_shifts_by_more_than_3_pixels_is_lost_bit_by_bit(oracle: Callable, volume: Make) -> None:
    voxels = _cylinder(shift=5)
    answer = PromptedPredictor(oracle(64), uncertainty=None).predict(
        volume(voxels), [Prompt("tube", _middle_box(voxels))]
    )
    found, truth = answer.labels.sum(axis=(0, 1)), (voxels > 100).sum(axis=(0, 1))
    assert found[4] == truth[4]
    assert (found[[3, 5]] < truth[[3, 5]]).all()
    assert (found[[0, 8]] < found[[3, 5]]).all()


def test_a_wider_margin_follows_a_faster_shift(oracle: Callable, volume: Make) -> None:
    voxels = _cylinder(shift=5)
    answer = PromptedPredictor(oracle(64), uncertainty=None, enlarge=5).predict(
        volume(voxels), [Prompt("tube", _middle_box(voxels))]
    )
    assert np.array_equal(answer.labels, voxels > 100)


def test_after_an_empty_slice_the_original_box_is_asked_again(oracle: Callable, volume: Make) -> None:
    voxels = _cylinder()
    voxels[:, :, 6] = 10
    answer = PromptedPredictor(oracle(64), uncertainty=None).predict(
        volume(voxels), [Prompt("tube", _middle_box(voxels))]
    )
    assert np.array_equal(answer.labels, voxels > 100)


def test_only_the_slices_of_the_box_are_segmented(oracle: Callable, volume: Make) -> None:
    voxels = _cylinder()
    box = _middle_box(voxels)
    answer = PromptedPredictor(oracle(64), uncertainty=None).predict(
        volume(voxels), [Prompt("tube", Box((*box.minimum[:2], 2), (*box.maximum[:2], 6)))]
    )
    assert np.flatnonzero(answer.labels.any(axis=(0, 1))).tolist() == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(("uncertainty", "views"), [(None, 1), (PromptPerturbation(members=4), 2)])
def test_objects_followed_together_share_every_embedding(
    uncertainty: PromptPerturbation | None, views: int, oracle: Callable, volume: Make
) -> None:
    network = oracle(64)
    prompts = [Prompt("a", Box((10, 10, 0), (20, 20, 5))), Prompt("b", Box((30, 30, 3), (50, 50, 8)))]
    PromptedPredictor(network, uncertainty=uncertainty).predict(volume(_cylinder()), prompts)
    assert sum(network.encoded) == 9 * views
    assert max(network.encoded) <= 16


def test_slices_are_encoded_in_batches(oracle: Callable, volume: Make, blobs: np.ndarray) -> None:
    network = oracle(32)
    prompts = boxes_from_labels((blobs > 50).astype(int), {"blob": 1}, dims=3)
    answer = PromptedPredictor(network, uncertainty=None).predict(volume(blobs), prompts)
    slices = len({prompt.box.minimum[2] for prompt in prompts if prompt.box})
    assert sum(network.encoded) == slices
    assert len(network.encoded) == -(-slices // 16)
    assert (answer.labels > 0).sum() > 0


def test_one_box_per_slice_is_not_propagated(oracle: Callable, volume: Make) -> None:
    voxels = _cylinder()
    box = _middle_box(voxels)
    flat = Box((*box.minimum[:2], 3), (*box.maximum[:2], 3))
    answer = PromptedPredictor(oracle(64), uncertainty=None).predict(volume(voxels), [Prompt("tube", flat)])
    assert np.flatnonzero(answer.labels.any(axis=(0, 1))).tolist() == [3]
    assert np.array_equal(answer.labels[:, :, 3], voxels[:, :, 3] > 100)


def test_every_member_follows_its_own_masks(box_filler: Callable, volume: Make) -> None:
    plan = PromptPerturbation(members=6, flips=("none",), outward=0.4, inward=0.0)
    answer = PromptedPredictor(box_filler(64), uncertainty=plan, enlarge=0).predict(
        volume(_cylinder()), [Prompt("tube", Box((26, 24, 0), (37, 35, 8)))]
    )
    # each member's box grows from slice to slice, so the members drift apart away from the middle
    disagreement = answer.uncertainty["epistemic"].sum(axis=(0, 1))
    assert disagreement[4] > 0
    assert disagreement[8] > disagreement[4]
    assert disagreement[0] > disagreement[4]


def test_progress_counts_objects_times_slices(oracle: Callable, volume: Make) -> None:
    seen: list[tuple[int, int]] = []
    prompts = [Prompt("a", Box((10, 10, 0), (20, 20, 5))), Prompt("b", Box((30, 30, 3), (50, 50, 3)))]
    PromptedPredictor(oracle(64), uncertainty=None).predict(
        volume(_cylinder()), prompts, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(done, 7) for done in range(1, 8)]
