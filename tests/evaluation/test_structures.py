from __future__ import annotations

import numpy as np
import pytest

from medmargin.evaluation.structures import STRUCTURE_METRICS, measure_structure
from medmargin.evaluation.surface import (
    average_symmetric_distance,
    element_surface,
    hausdorff,
    surface_dice,
    voxel_surface,
)
from medmargin.imaging.volume import Grid

SPACING = np.diag([1.0, 2.0, 3.0, 1.0])


@pytest.mark.parametrize("unit", ["mm", "px"])
@pytest.mark.parametrize(
    ("truth", "mask", "state", "overlap", "distance"),
    [
        (1, 1, "found", 1.0, 0.0),
        (0, 0, "absent", 1.0, None),
        (1, 0, "missed", 0.0, np.sqrt(4**2 + 10**2 + 18**2)),
        (0, 1, "false", 0.0, np.sqrt(4**2 + 10**2 + 18**2)),
    ],
)
def test_empty_mask_matrix(
    unit: str, truth: int, mask: int, state: str, overlap: float, distance: float | None
) -> None:
    shape = (4, 5, 6)
    found = measure_structure(np.full(shape, bool(truth)), np.full(shape, bool(mask)), Grid(shape, SPACING, unit), 1.0)
    assert found["state"] == state
    assert found["dice"] == found["iou"] == found["nsd"] == overlap
    for name in ("hd95", "assd"):
        assert found[f"{name}_{unit}"] == (distance if distance is None else pytest.approx(distance))
    assert found["relative_volume_error"] == {"found": 0.0, "missed": -1.0}.get(state)


def test_every_missing_number_has_a_reason() -> None:
    shape = (4, 5, 6)
    empty = np.zeros(shape, bool)
    for unit in ("mm", "px"):
        found = measure_structure(empty, empty, Grid(shape, SPACING, unit), 1.0)
        missing = [name for name in STRUCTURE_METRICS if name in found and found[name] is None]
        assert missing
        assert all(found[f"{name}_reason"] for name in missing)


def test_unknown_spacing_gives_pixels_and_refuses_millimetres() -> None:
    truth, mask = np.zeros((9, 9, 1), bool), np.zeros((9, 9, 1), bool)
    truth[2:6, 2:6], mask[2:6, 3:7] = True, True
    found = measure_structure(truth, mask, Grid((9, 9, 1), np.eye(4), "px"), 2.0)
    assert found["hd95_mm"] is None
    assert found["hd95_mm_reason"].startswith("spacing unknown")
    assert found["hd95_px"] == 1.0


@pytest.mark.parametrize("thin", [0, 1, 2])
def test_single_slice_is_measured_as_a_picture(thin: int) -> None:
    rng = np.random.default_rng(0)
    truth, mask = rng.random((2, 8, 9)) < 0.5
    spacing = np.insert([1.5, 0.5], thin, 7.0)
    grid = Grid(tuple(np.insert(truth.shape, thin, 1)), np.diag([*spacing, 1.0]))  # type: ignore[arg-type]
    found = measure_structure(np.expand_dims(truth, thin), np.expand_dims(mask, thin), grid, 1.0)
    voxels = voxel_surface(truth, mask, (1.5, 0.5))
    assert found["hd95_mm"] == hausdorff(voxels)
    assert found["assd_mm"] == average_symmetric_distance(voxels)
    assert found["nsd"] == surface_dice(element_surface(truth, mask, (1.5, 0.5)), 1.0)
