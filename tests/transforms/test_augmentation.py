"""Augmentation: pictures and labels move together, grey levels stay in range, switches are off at 0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.errors import ConfigError
from medmargin.transforms import Augmentation

OFF = Augmentation(flips=False)
SEEDS = st.integers(0, 2**32 - 1)


def pair(height: int = 21, width: int = 31) -> tuple[np.ndarray, np.ndarray]:
    """A disc and its label; the picture is the label, so both must move alike."""
    y, x = np.mgrid[:height, :width]
    labels = ((y - 8) ** 2 + (x - 14) ** 2 < 36).astype(np.uint8) + ((y > 14) & (x > 22))
    return labels.astype(np.float32) * 100, labels


@settings(deadline=None)
@given(seed=SEEDS, colour=st.booleans())
def test_picture_and_labels_move_alike(seed, colour):
    augmentation = Augmentation(turns=True, rotation=30, zoom=0.3)
    picture, labels = pair()
    moved, moved_labels = augmentation.moved(
        np.stack([picture] * 3, axis=-1) if colour else picture, labels, np.random.default_rng(seed)
    )
    grey = moved[..., 0] if colour else moved
    assert grey.shape == moved_labels.shape
    assert moved_labels.dtype == labels.dtype
    assert set(np.unique(moved_labels)) <= {0, 1, 2}
    inside = [np.abs(grey - 100.0 * value) < 1 for value in range(3)]
    clear = np.any(inside, axis=0)  # away from interpolated edges
    disagree = clear & (np.abs(grey - 100.0 * moved_labels) > 1)
    assert disagree.mean() < 0.02
    assert clear.mean() > 0.6


@given(seed=SEEDS, turns=st.booleans())
def test_flips_and_turns_lose_nothing(seed, turns):
    picture, labels = pair()
    moved, moved_labels = Augmentation(turns=turns).moved(picture, labels, np.random.default_rng(seed))
    assert np.array_equal(np.sort(moved, axis=None), np.sort(picture, axis=None))
    assert np.array_equal(moved, moved_labels * 100.0)
    assert turns or moved.shape == picture.shape


def test_all_eight_positions_occur():
    picture, labels = pair()
    augmentation = Augmentation(turns=True)
    found = {augmentation.moved(picture, labels, np.random.default_rng(seed))[0].tobytes() for seed in range(100)}
    assert len(found) == 8


@given(seed=SEEDS)
def test_nothing_happens_where_everything_is_off(seed):
    picture, labels = pair()
    moved, moved_labels = OFF.moved(picture, labels, np.random.default_rng(seed))
    assert np.array_equal(moved, picture)
    assert np.array_equal(moved_labels, labels)
    image = np.random.default_rng(seed).random((9, 7), dtype=np.float32)
    assert np.array_equal(OFF.shaded(image, np.random.default_rng(seed)), image)


@settings(deadline=None)
@given(seed=SEEDS, channels=st.sampled_from([(), (1,), (3,)]))
def test_grey_levels_stay_in_range_and_depend_on_the_generator_alone(seed, channels):
    augmentation = Augmentation(gamma=1, contrast=0.5, brightness=0.5, noise=0.5, blur=2)
    image = np.random.default_rng(1).random((16, 12, *channels), dtype=np.float32)
    found = augmentation.shaded(image, np.random.default_rng(seed))
    again = augmentation.shaded(image, np.random.default_rng(seed))
    assert np.array_equal(found, again)
    assert found.size == image.size
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1
    assert not np.array_equal(found.reshape(image.shape), image)


@pytest.mark.parametrize("name", ["gamma", "contrast", "brightness", "noise", "blur"])
def test_each_switch_works_by_itself(name):
    image = np.random.default_rng(1).random((16, 12), dtype=np.float32)
    changed = Augmentation(**{name: 0.5}).shaded(image, np.random.default_rng(4))
    assert not np.array_equal(changed, image)
    order = np.argsort(image.ravel())
    is_monotonic = bool((np.diff(changed.ravel()[order]) >= 0).all())
    assert is_monotonic == (name in ("gamma", "contrast", "brightness"))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int16])
def test_labels_of_every_kind_can_be_turned(dtype):
    picture, labels = pair()
    _, moved = Augmentation(rotation=20).moved(picture, labels.astype(dtype), np.random.default_rng(0))
    assert moved.dtype == dtype
    assert moved.any()


@pytest.mark.parametrize("wrong", [{"rotation": -1}, {"noise": -0.1}, {"contrast": 1.0}])
def test_amplitudes_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        Augmentation(**wrong)
