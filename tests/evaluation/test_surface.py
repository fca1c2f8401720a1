from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medmargin.evaluation.surface import (
    SurfaceDistances,
    average_symmetric_distance,
    boundary_iou,
    directed_averages,
    element_surface,
    hausdorff,
    surface_dice,
    voxel_surface,
    weighted_hausdorff,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # inside MONAI
SURFACES = [voxel_surface, element_surface]
SPACING = (1.0, 0.5, 2.0)
MASKS = arrays(bool, (4, 5, 4), fill=st.just(False)).filter(lambda mask: mask.any())


def summary(distances: SurfaceDistances) -> np.ndarray:
    """HD95 (both), ASSD, both directed averages."""
    averages = directed_averages(distances)
    assert averages is not None
    return np.array(
        [hausdorff(distances), weighted_hausdorff(distances), average_symmetric_distance(distances), *averages]
    )


def random_masks(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=(2, *shape)), (0, *[1.5] * len(shape)))
    return noise[0] > 0.02, noise[1] + 0.5 * noise[0] > 0.03


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("shape", "spacing"), [((24, 20), (1.0, 1.0)), ((24, 20), (2.0, 0.7)), ((12, 10, 9), SPACING)])
def test_equals_monai_on_random_masks(seed: int, shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    truth, mask = random_masks(seed, shape)
    y, y_pred = (torch.from_numpy(array[None, None].astype(np.float32)) for array in (truth, mask))
    options = {"include_background": True, "spacing": spacing}
    voxels, elements = voxel_surface(truth, mask, spacing), element_surface(truth, mask, spacing)
    expected = [
        metrics.compute_hausdorff_distance(y_pred, y, percentile=95, **options),
        metrics.compute_average_surface_distance(y_pred, y, symmetric=True, **options),
        metrics.compute_surface_dice(y_pred, y, [1.0], **options),
        metrics.compute_surface_dice(y_pred, y, [1.0], use_subvoxels=True, **options),
    ]
    found = [
        hausdorff(voxels),
        average_symmetric_distance(voxels),
        surface_dice(voxels, 1.0),
        surface_dice(elements, 1.0),
    ]
    np.testing.assert_allclose(found, [float(value) for value in expected], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(MASKS, MASKS, st.sampled_from(SURFACES))
def test_exchanging_truth_and_mask_changes_only_the_direction(truth: np.ndarray, mask: np.ndarray, surface) -> None:  # type: ignore[no-untyped-def]
    forward, backward = summary(surface(truth, mask, SPACING)), summary(surface(mask, truth, SPACING))
    np.testing.assert_allclose(forward, backward[[0, 1, 2, 4, 3]])
    for tolerance in (0.0, 1.0):
        forward_dice = surface_dice(surface(truth, mask, SPACING), tolerance)
        assert forward_dice == pytest.approx(surface_dice(surface(mask, truth, SPACING), tolerance))


# Powers of two, because a percentile without interpolation jumps where rounding moves a share across 95 %.
@settings(max_examples=40, deadline=None)
@given(MASKS, MASKS, st.sampled_from(SURFACES), st.sampled_from([0.5, 2.0, 4.0]))
def test_distances_scale_with_the_spacing(truth: np.ndarray, mask: np.ndarray, surface, scale: float) -> None:  # type: ignore[no-untyped-def]
    plain = surface(truth, mask, SPACING)
    scaled = surface(truth, mask, [scale * size for size in SPACING])
    np.testing.assert_allclose(summary(scaled), scale * summary(plain))
    assert surface_dice(scaled, scale * 1.25) == pytest.approx(surface_dice(plain, 1.25))


@settings(max_examples=40, deadline=None)
@given(MASKS, MASKS, st.sampled_from(SURFACES), st.tuples(*[st.integers(0, 3)] * 3))
def test_moving_both_masks_changes_nothing(truth: np.ndarray, mask: np.ndarray, surface, shift) -> None:  # type: ignore[no-untyped-def]
    padding = [(before, 3 - before) for before in shift]
    moved = surface(np.pad(truth, padding), np.pad(mask, padding), SPACING)
    np.testing.assert_allclose(summary(moved), summary(surface(truth, mask, SPACING)))


@settings(max_examples=25, deadline=None)
@given(MASKS, st.sampled_from(SURFACES))
def test_perfect_mask_has_no_distance(truth: np.ndarray, surface) -> None:  # type: ignore[no-untyped-def]
    distances = surface(truth, truth, SPACING)
    assert not summary(distances).any()
    assert surface_dice(distances, 0.0) == 1.0
    assert boundary_iou(truth, truth, 2) == 1.0


def test_known_distance_between_two_flat_plates() -> None:
    truth, mask = np.zeros((12, 8, 8), bool), np.zeros((12, 8, 8), bool)
    truth[3], mask[6] = True, True
    distances = voxel_surface(truth, mask, (1.5, 1.0, 1.0))
    assert hausdorff(distances) == average_symmetric_distance(distances) == 4.5
    assert surface_dice(distances, 4.5) == 1.0
    assert surface_dice(distances, 4.4) == 0.0


def test_tolerance_equal_to_a_distance_of_thirds_counts_as_near() -> None:
    truth, mask = np.zeros((30, 4), bool), np.zeros((30, 4), bool)
    truth[20], mask[23] = True, True
    assert surface_dice(voxel_surface(truth, mask, (1 / 3, 1.0)), 1.0) == 1.0


def test_conventions_differ_on_the_same_masks() -> None:
    truth, mask = random_masks(0, (24, 20))
    voxels, elements = voxel_surface(truth, mask, (1, 1)), element_surface(truth, mask, (1, 1))
    assert surface_dice(voxels, 1.0) != surface_dice(elements, 1.0)
    assert average_symmetric_distance(voxels) != sum(directed_averages(voxels) or ()) / 2


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(("has_truth", "has_mask"), [(True, True), (False, False), (True, False), (False, True)])
def test_empty_mask_matrix(surface, has_truth: bool, has_mask: bool) -> None:  # type: ignore[no-untyped-def]
    full, empty = np.ones((3, 4, 3), bool), np.zeros((3, 4, 3), bool)
    distances = surface(full if has_truth else empty, full if has_mask else empty, SPACING)
    measured = [hausdorff(distances), weighted_hausdorff(distances), average_symmetric_distance(distances)]
    if has_truth and has_mask:
        assert measured == [0.0, 0.0, 0.0]
        assert surface_dice(distances, 1.0) == 1.0
    else:
        assert measured == [None, None, None]
        assert directed_averages(distances) is None
        assert surface_dice(distances, 1.0) == (0.0 if has_truth or has_mask else None)


def test_boundary_iou_of_two_empty_masks_does_not_exist() -> None:
    empty = np.zeros((4, 4), bool)
    assert boundary_iou(empty, empty, 2) is None
    assert boundary_iou(empty, ~empty, 2) == 0.0
