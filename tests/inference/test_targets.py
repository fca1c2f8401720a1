"""Prompts placed in the stack, and the ones that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmargin.errors import PromptError
from medmargin.imaging import Volume
from medmargin.inference.stack import SliceStack
from medmargin.inference.targets import Target, targets_from
from medmargin.prompts.types import Box, Point, Prompt

Make = Callable[..., Volume]


def _targets(image: Volume, *prompts: Prompt) -> tuple[list[Target], list[str]]:
    names = {prompt.structure: index for index, prompt in enumerate(prompts)}
    return targets_from(prompts, names, stack=SliceStack(image), volume=image)


@pytest.fixture
def scan(volume: Make) -> Volume:
    return volume(np.random.default_rng(0).random((20, 30, 10)))


@pytest.fixture
def photo(picture: Make) -> Volume:
    return picture(np.random.default_rng(0).random((30, 20)))


def test_a_box_over_several_slices_is_followed(scan: Volume) -> None:
    (target,), warnings = _targets(scan, Prompt("a", Box((2, 3, 1), (9, 8, 6)), (Point((4, 5, 2)),)))
    assert target.sweep == ((2, 3, 9, 8), 1, 6)
    assert target.slices == 6
    assert list(target.cues) == [2]
    assert warnings == []


def test_a_box_in_one_slice_stands_for_that_slice(scan: Volume) -> None:
    (target,), _ = _targets(scan, Prompt("a", Box((2, 3, 4), (9, 8, 4))))
    assert target.sweep is None
    assert {index: cue.box for index, cue in target.cues.items()} == {4: (2, 3, 9, 8)}


def test_points_alone_stand_for_their_slices_and_may_mean_anything_in_the_picture(scan: Volume) -> None:
    points = (Point((4, 5, 2)), Point((6, 7, 2), positive=False), Point((1, 1, 5)))
    (target,), _ = _targets(scan, Prompt("a", points=points))
    assert list(target.cues) == [2, 5]
    assert target.cues[2].points.tolist() == [[4, 5], [6, 7]]
    assert target.cues[2].positive.tolist() == [True, False]
    assert target.cues[2].extent is None


def test_points_widen_the_view_of_their_box(scan: Volume) -> None:
    (target,), _ = _targets(scan, Prompt("a", Box((2, 3, 1), (9, 8, 6)), (Point((15, 5, 2), positive=False),)))
    assert target.extent == (2, 3, 15, 8)


def test_a_mask_gives_its_tight_box_in_every_slice(scan: Volume) -> None:
    mask = np.zeros((20, 30, 10), bool)
    mask[3:6, 10:15, 4] = mask[3:9, 10:12, 5] = True
    (target,), _ = _targets(scan, Prompt("a", mask=mask))
    assert {index: cue.box for index, cue in target.cues.items()} == {4: (3, 10, 5, 14), 5: (3, 10, 8, 11)}
    assert target.cues[4].mask is not None
    assert np.array_equal(target.cues[4].mask, mask[:, :, 4].T)


@pytest.mark.parametrize(
    "box",
    [
        Box((5, 5, 1), (25, 9, 6)),
        Box((5, 5, 1), (9, 9, 16)),
        Box((-8, 5, 1), (9, 9, 6)),
        Box((40, 5, 1), (45, 9, 6)),
    ],
)
def test_a_box_outside_the_image_is_refused_with_the_images_size(scan: Volume, box: Box) -> None:
    with pytest.raises(PromptError, match=r"'left kidney'.* outside the image of \(20, 30, 10\) voxels"):
        _targets(replace(scan, source=Path("scans/case_7.nii.gz")), Prompt("left kidney", box))
    with pytest.raises(PromptError, match=r"case_7\.nii\.gz"):
        _targets(replace(scan, source=Path("scans/case_7.nii.gz")), Prompt("left kidney", box))


def test_a_box_given_to_the_edge_instead_of_the_last_voxel_is_cut_with_a_warning(scan: Volume) -> None:
    (target,), warnings = _targets(scan, Prompt("a", Box((0, 0, 0), (20, 30, 10))))
    assert target.sweep == ((0, 0, 19, 29), 0, 9)
    assert len(warnings) == 1


def test_a_point_outside_the_image_is_refused(scan: Volume) -> None:
    with pytest.raises(PromptError, match="point"):
        _targets(scan, Prompt("a", points=(Point((4, 30.6, 2)),)))


def test_row_11_a_flat_box_for_a_volume_is_refused(scan: Volume) -> None:
    with pytest.raises(PromptError, match=r"10 slices and the prompt no z"):
        _targets(scan, Prompt("a", Box((2, 3), (9, 8))))


def test_row_11_a_solid_box_for_a_picture_is_refused(photo: Volume) -> None:
    with pytest.raises(PromptError, match=r"has a z, and the image is a 2-D picture"):
        _targets(photo, Prompt("a", Box((2, 3, 1), (9, 8, 4))))


def test_a_picture_takes_flat_prompts(photo: Volume) -> None:
    (target,), _ = _targets(photo, Prompt("a", Box((2, 3), (9, 8)), (Point((4, 5)),)))
    assert target.cues[0].box == (2, 3, 9, 8)
    assert target.cues[0].points.tolist() == [[4, 5]]


def test_a_box_in_one_slice_of_another_axis_is_refused(volume: Make) -> None:
    sagittal = volume(np.random.default_rng(0).random((20, 30, 10))).reoriented("PIR")
    with pytest.raises(PromptError, match="superior axis"):
        _targets(sagittal, Prompt("a", Box((2, 3, 4), (9, 8, 4))))


def test_a_point_outside_the_slices_of_its_box_is_refused(scan: Volume) -> None:
    with pytest.raises(PromptError, match="outside its box"):
        _targets(scan, Prompt("a", Box((2, 3, 1), (9, 8, 6)), (Point((4, 5, 8)),)))


@pytest.mark.parametrize("mask", [np.zeros((20, 30, 10)), np.ones((20, 30, 9))])
def test_empty_and_misplaced_masks_are_refused(scan: Volume, mask: np.ndarray) -> None:
    with pytest.raises(PromptError, match="mask"):
        _targets(scan, Prompt("a", mask=mask))


def test_no_prompt_at_all_is_refused(scan: Volume) -> None:
    with pytest.raises(PromptError, match="no prompt"):
        _targets(scan)
