"""Random pictures: the contract with the training that eats them, and their variety."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.datasets.phantoms import anatomy, random_picture, scenes
from medmargin.errors import ConfigError


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.sampled_from([32, 64, 97, 128]))
def test_a_picture_holds_contiguous_labels_and_finite_values(seed: int, size: int) -> None:
    picture, labels = random_picture(np.random.default_rng(seed), size=size)
    assert picture.shape == labels.shape == (size, size)
    assert (picture.dtype, labels.dtype) == (np.float32, np.uint8)
    assert np.isfinite(picture).all()
    assert picture.max() > picture.min()
    values = np.unique(labels)
    assert values.max() >= 1
    np.testing.assert_array_equal(values[values > 0], np.arange(1, values.max() + 1))


def test_the_same_state_gives_the_same_picture_and_another_state_another() -> None:
    def digest(seed: int) -> str:
        picture, labels = random_picture(np.random.default_rng(seed))
        return hashlib.sha256(picture.tobytes() + labels.tobytes()).hexdigest()

    assert [digest(seed) for seed in range(20)] == [digest(seed) for seed in range(20)]
    assert len({digest(seed) for seed in range(20)}) == 20


@pytest.fixture(scope="module")
def objects() -> list[tuple[np.ndarray, np.ndarray]]:
    """(picture, mask) of every object of 250 pictures."""
    found = []
    for seed in range(250):
        picture, labels = random_picture(np.random.default_rng([5, seed]))
        found += [(picture, labels == value) for value in range(1, labels.max() + 1)]
    return found


def test_objects_are_tiny_and_large(objects: list[tuple[np.ndarray, np.ndarray]]) -> None:
    areas = np.array([mask.mean() for _, mask in objects])
    assert np.quantile(areas, 0.1) < 0.006
    assert np.quantile(areas, 0.9) > 0.12


def test_a_box_or_an_ellipse_does_not_solve_the_objects(objects: list[tuple[np.ndarray, np.ndarray]]) -> None:
    filled = []
    for _, mask in objects:
        rows, columns = np.nonzero(mask)
        filled.append(len(rows) / (np.ptp(rows) + 1) / (np.ptp(columns) + 1))
    # An ellipse fills pi / 4 = 0.79 of its box: some objects come near it, many stay far below.
    assert np.quantile(filled, 0.25) < 0.5
    assert np.quantile(filled, 0.95) > 0.77


def test_contrast_has_either_sign_and_every_strength(objects: list[tuple[np.ndarray, np.ndarray]]) -> None:
    steps = np.array([picture[mask].mean() - picture[~mask].mean() for picture, mask in objects])
    assert 0.25 < (steps > 0).mean() < 0.75
    assert np.quantile(np.abs(steps), 0.1) < 0.05
    assert np.quantile(np.abs(steps), 0.9) > 0.4


def test_some_objects_are_cut_by_the_border(objects: list[tuple[np.ndarray, np.ndarray]]) -> None:
    cut = [mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any() for _, mask in objects]
    assert 0.05 < np.mean(cut) < 0.6


def test_a_heart_has_a_wall_around_its_left_chamber() -> None:
    canvas = anatomy.heart(np.random.default_rng(3), 128)
    chamber, wall = canvas.labels == canvas.objects, canvas.labels == canvas.objects - 1
    rows, columns = np.nonzero(chamber)
    assert wall[int(rows.mean()), : int(columns.mean())].any()
    assert wall[int(rows.mean()), int(columns.mean()) :].any()
    assert not wall[int(rows.mean()), int(columns.mean())]


def test_parts_of_a_body_touch() -> None:
    touching = []
    for seed in range(60):
        labels = np.pad(scenes.touching_parts(np.random.default_rng(seed), 96).labels, 1)
        if (labels == 1).any() and (labels == 2).any():
            beside = [np.roll(labels == 1, shift, axis) & (labels == 2) for axis in (0, 1) for shift in (-1, 1)]
            touching.append(np.any(beside))
    assert len(touching) > 30
    assert np.mean(touching) > 0.9


def test_a_picture_too_small_for_a_scene_is_refused() -> None:
    with pytest.raises(ConfigError, match="31 pixels; expected at least 32"):
        random_picture(np.random.default_rng(0), size=31)
