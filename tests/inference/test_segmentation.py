"""Masks and margins of structures that lie in each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medmargin.imaging import from_array
from medmargin.inference.class_canvas import ClassCanvas, RegionCanvas
from medmargin.inference.class_maps import ClassMaps
from medmargin.inference.margins import Reached
from medmargin.inference.results import segmentation_of
from medmargin.inference.segmentation import Segmentation
from medmargin.uncertainty.calibration import ThresholdMargins

SHAPE = (4, 6, 8)
VALUES = {"whole": 5, "core": 7}


class AsItIs:
    """The canvas's grid is the image's own."""

    def restore_labels(self, labels: NDArray[Any], /) -> NDArray[Any]:
        return labels

    def restore_map(self, values: NDArray[Any], /) -> NDArray[Any]:
        return values


def drawn(contained: list[tuple[int, ...]] | None) -> Segmentation:
    """A whole, surely in its middle, with a core."""
    thresholds = ThresholdMargins(loss="volume", risk=0.1, outer=0.3, inner=0.9, patients=9)
    reached = Reached(SHAPE, (thresholds, thresholds))
    options: dict[str, Any] = {"structures": 2, "members": 1, "reached": reached}
    canvas = ClassCanvas(SHAPE, **options) if contained is None else RegionCanvas(SHAPE, contained=contained, **options)
    whole, core = np.zeros((2, *SHAPE), np.float32)
    whole[:, 1:5, 1:7], whole[:, 0], core[:, 2:4, 3:5] = 0.95, 0.4, 0.95
    for index in range(SHAPE[0]):
        probabilities = np.stack([1 - whole[index], whole[index], core[index]])
        zeros = np.zeros(SHAPE[1:], np.float32)
        canvas.draw(index, ClassMaps(probabilities, zeros, zeros, {}))
    return segmentation_of(
        canvas, stack=AsItIs(), image=from_array(np.zeros(SHAPE, np.float32)), structures=VALUES, level=0.9,
        prompts_source="none", uncertainty_source="", forward_passes=1, warnings=(), reached=reached,
        contained=contained,
    )  # fmt: skip


def test_the_whole_is_shown_where_its_core_is_too() -> None:
    found = drawn([(0, 1), (1,)])
    whole, core = found.structures
    assert dict(found.members) == {"whole": (5, 7), "core": (7,)}
    np.testing.assert_array_equal(found.mask(whole), np.isin(found.labels, (5, 7)))
    np.testing.assert_array_equal(found.mask(core), found.labels == 7)
    assert whole.voxels == np.count_nonzero(found.mask(whole)) == SHAPE[0] * 4 * 6
    margin = found.margin("whole")
    assert (margin[found.mask(whole)] == 2).all()  # in the core too
    assert (margin[:, 0] == 1).all()


def test_classes_that_exclude_each_other_have_only_their_own_value() -> None:
    found = drawn(None)
    assert not found.members
    for structure in found.structures:
        np.testing.assert_array_equal(found.mask(structure), found.labels == structure.label)
    assert (found.margin("whole")[found.labels == VALUES["core"]] == 1).all()  # reaches 0.95 and is shown as core


@pytest.mark.parametrize("name", ["whole", "core"])
def test_inner_regions_lie_in_masks(name: str) -> None:
    found = drawn([(0, 1), (1,)])
    structure = next(each for each in found.structures if each.name == name)
    assert found.mask(structure)[found.margin(name) == 2].all()
    assert (found.margin(name)[found.mask(structure)] >= 1).all()
