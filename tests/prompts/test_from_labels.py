"""Prompts read off true labels and the floors they give away."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from medmargin.errors import PromptError
from medmargin.prompts.from_labels import box_floor, boxes_from_labels, ellipse_floor
from medmargin.prompts.types import Box, Point, Prompt

label_maps = hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 7)] * 3), elements=st.integers(0, 2))


def test_a_picture_gives_one_box_per_component_with_diagonal_neighbours_joined():
    labels = np.zeros((8, 6, 1), np.uint8)
    labels[1, 1] = labels[2, 2] = 1  # touch at a corner
    labels[5:7, 3:5] = 1
    labels[0, 5] = 2
    prompts = boxes_from_labels(labels, {"lesion": 1, "cyst": 2, "absent": 3}, dims=2)
    assert [(prompt.structure, prompt.box) for prompt in prompts] == [
        ("lesion", Box((1, 1), (2, 2))),
        ("lesion", Box((5, 3), (6, 4))),
        ("cyst", Box((0, 5), (0, 5))),
    ]


def test_a_volume_gives_one_box_per_structure_and_slice_or_one_for_propagation():
    labels = np.zeros((6, 6, 4), np.uint8)
    labels[1:3, 2:5, 1] = 1
    labels[0, 0, 2] = labels[4, 4, 2] = 1
    per_slice = boxes_from_labels(labels, {"organ": 1}, dims=3)
    assert [prompt.box for prompt in per_slice] == [Box((1, 2, 1), (2, 4, 1)), Box((0, 0, 2), (4, 4, 2))]
    whole = boxes_from_labels(labels, {"organ": 1}, dims=3, per_slice=False)
    assert [prompt.box for prompt in whole] == [Box((0, 0, 1), (4, 4, 2))]


@given(label_maps, st.booleans())
def test_filled_boxes_cover_the_structure_and_contain_the_ellipse(labels, per_slice):
    structures = {"first": 1, "second": 2}
    prompts = boxes_from_labels(labels, structures, dims=3, per_slice=per_slice)
    boxes = box_floor(prompts, shape=labels.shape, structures=structures)
    ellipses = ellipse_floor(prompts, shape=labels.shape, structures=structures)
    for name, value in structures.items():
        assert not ((labels == value) & ~boxes[name]).any()
        assert not (ellipses[name] & ~boxes[name]).any()
        assert boxes[name].any() == (labels == value).any()


@given(st.integers(5, 60), st.integers(5, 60))
def test_the_ellipse_has_the_area_of_an_ellipse(width, height):
    prompt = Prompt(structure="disc", box=Box((2, 3), (1 + width, 2 + height)))
    mask = ellipse_floor([prompt], shape=(64, 64, 1), structures=["disc"])["disc"]
    assert mask.sum() == pytest.approx(math.pi / 4 * width * height, rel=0.15)
    np.testing.assert_array_equal(mask[2 : 2 + width], mask[2 : 2 + width][::-1])


def test_nested_structures_do_not_cut_into_each_others_floor():
    prompts = [Prompt(structure="wall", box=Box((0, 0), (9, 9))), Prompt(structure="cavity", box=Box((3, 3), (6, 6)))]
    floor = box_floor(prompts, shape=(10, 10, 1), structures=["wall", "cavity", "absent"])
    assert floor["wall"].sum() == 100
    assert floor["cavity"].sum() == 16
    assert not floor["absent"].any()


def test_a_box_that_ends_between_voxels_or_outside_covers_the_centres_inside():
    prompt = Prompt(structure="organ", box=Box((-2.0, 0.5), (1.5, 2.5)))
    floor = box_floor([prompt], shape=(4, 4, 1), structures=["organ"])["organ"]
    assert floor.sum() == 2 * 2
    assert floor[:2, 1:3].all()
    beyond = Prompt(structure="organ", box=Box((-5.0, 0.0), (-2.0, 3.0)))
    for draw in (box_floor, ellipse_floor):
        assert not draw([beyond], shape=(4, 4, 1), structures=["organ"])["organ"].any()


@pytest.mark.parametrize(
    ("labels", "dims"),
    [(np.zeros((4, 4), int), 2), (np.zeros((4, 4, 2), int), 2), (np.zeros((4, 4, 2), int), 4)],
    ids=["no slice axis", "slices in a picture", "four dimensions"],
)
def test_labels_that_do_not_fit_the_dimensions_are_refused(labels, dims):
    with pytest.raises(PromptError, match="label map"):
        boxes_from_labels(labels, {"organ": 1}, dims=dims)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(structure="organ", points=(Point((1.0, 1.0)),)), "no box"),
        (Prompt(structure="other", box=Box((0, 0), (1, 1))), "another structure"),
        (Prompt(structure="organ", box=Box((0, 0), (1, 1))), "without z on 3 slices"),
    ],
)
def test_floors_refuse_prompts_they_cannot_fill(prompt, message):
    with pytest.raises(PromptError, match=message):
        box_floor([prompt], shape=(4, 4, 3), structures=["organ"])


def _mean_dice(folder: Path, structures: dict[str, int], floor) -> dict[str, float]:
    """Average the floor's Dice per structure over the cases that hold it."""
    scores: dict[str, list[float]] = {name: [] for name in structures}
    for path in sorted((folder / "labelsTr").iterdir()):
        if path.suffix == ".png":
            labels, dims = np.asarray(Image.open(path)).T[:, :, None], 2
        else:
            labels, dims = np.asarray(nibabel.load(path).dataobj).astype(np.uint8), 3
        prompts = boxes_from_labels(labels, structures, dims=dims)
        masks = floor(prompts, shape=labels.shape, structures=structures)
        for name, value in structures.items():
            truth = labels == value
            if truth.any():
                scores[name].append(2 * (truth & masks[name]).sum() / (truth.sum() + masks[name].sum()))
    return {name: float(np.mean(values)) for name, values in scores.items()}


@pytest.mark.parametrize(
    ("dataset", "structures", "box", "ellipse"),
    [
        ("Dataset901_BUSI", ["lesion"], [0.83], [0.90]),
        ("Dataset902_KvasirSEG", ["polyp"], [0.80], [0.89]),
        ("Dataset004_Hippocampus", ["Anterior", "Posterior"], [0.77, 0.78], [0.78, 0.81]),
        ("Dataset908_ACDC", ["RV_cavity", "myocardium", "LV_cavity"], [0.72, 0.57, 0.86], [0.76, 0.64, 0.94]),
    ],
)
def test_floors_agree_with_those_published_for_other_cases(data_root, dataset, structures, box, ellipse):
    values = {name: value for value, name in enumerate(structures, start=1)}
    measured = _mean_dice(data_root / dataset, values, box_floor)
    assert list(measured.values()) == pytest.approx(box, abs=0.02)
    measured = _mean_dice(data_root / dataset, values, ellipse_floor)
    assert list(measured.values()) == pytest.approx(ellipse, abs=0.02)
