"""Patches of volumes: image and label move together, presets do what they say as often, values stay finite."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medmargin.errors import ConfigError
from medmargin.transforms import LIGHT, NNUNET, VolumeAugmentation
from medmargin.transforms.patch_resampling import upsampled, warped
from medmargin.transforms.volume_augmentation import OFF, Chance

PATCH = (12, 20, 16)
ALWAYS = {"rotation": Chance(1, -30, 30), "scaling": Chance(1, 0.7, 1.4), "bending": Chance(1, 0, 0.05)}
presets = pytest.mark.parametrize("preset", [NNUNET, LIGHT], ids=["nnunet", "light"])


def drawn(shape=PATCH, *, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((channels, *shape), dtype=np.float32), rng.integers(0, 4, shape).astype(np.int16)


def augmented(augmentation, patch, rng, *, channels=2):
    image, label = drawn(augmentation.enlarged(patch), channels=channels)
    image, label = augmentation.moved(image, label, patch, rng)
    return augmentation.shaded(image, rng), label


@presets
@pytest.mark.parametrize("patch", [PATCH, (1, 24, 20), (4, 40, 40)])
def test_an_item_is_a_pure_function_of_the_generator(preset, patch):
    fitted = preset.for_patch(patch, in_plane_only=patch[0] < 5)
    for seed in range(8):
        one, other = (augmented(fitted, patch, np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])


@given(
    patch=st.tuples(st.integers(1, 9), st.integers(1, 14), st.integers(1, 14)),
    channels=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    flat=st.booleans(),
    level=st.sampled_from([0.0, 1e-6, 1.0, 1e3]),
)
@settings(max_examples=60, deadline=None)
def test_values_stay_finite_and_labels_stay_labels_for_any_patch(patch, channels, seed, flat, level):
    everything = replace(
        NNUNET, **ALWAYS, **{name: Chance(1, *getattr(NNUNET, name)[1:]) for name in (
            "noise", "blur", "brightness", "contrast", "coarseness", "inverted_gamma", "gamma")},
    ).for_patch(patch, in_plane_only=flat)  # fmt: skip
    image, label = drawn(everything.enlarged(patch), channels=channels, seed=seed)
    rng = np.random.default_rng(seed)
    image, label = everything.moved(image * np.float32(level), label, patch, rng)
    image = everything.shaded(image, rng)
    assert image.shape == (channels, *patch)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert label.shape == patch
    assert label.dtype == np.int16
    assert set(np.unique(label)) <= {-1, 0, 1, 2, 3}


@pytest.mark.parametrize("parts", [("rotation",), ("scaling",), ("bending",), tuple(ALWAYS)])
@pytest.mark.parametrize("flat", [False, True])
def test_image_and_label_move_together(parts, flat):
    """A ball that is bright where it is labelled still is, wherever it goes."""
    patch = (24, 32, 28)
    augmentation = VolumeAugmentation(**{part: ALWAYS[part] for part in parts}, mirrors=True)
    augmentation = augmentation.for_patch(patch, in_plane_only=flat)
    grid = np.indices(augmentation.enlarged(patch))
    centre = np.array(grid.shape[1:]) / 2 + (2, -3, 4)
    ball = ((grid - centre[:, None, None, None]) ** 2).sum(axis=0) < 7**2
    places = set()
    for seed in range(12):
        image, label = augmentation.moved(
            ball[None].astype(np.float32), ball.astype(np.int16), patch, np.random.default_rng(seed)
        )
        inside = label >= 0
        disagreeing = ((image[0] > 0.5) != (label == 1))[inside]
        assert disagreeing.sum() < 0.15 * (label == 1).sum()  # nearest and linear differ at the edge only
        centres = [np.array(ndimage.center_of_mass(mask)) for mask in (inside & (image[0] > 0.5), label == 1)]
        assert np.abs(centres[0] - centres[1]).max() < 0.3
        if "scaling" not in parts:  # turns keep sizes, and small bends nearly
            assert (label == 1).sum() == pytest.approx(ball.sum(), rel=0.05 if parts == ("rotation",) else 0.2)
        places.add(tuple(np.round(ndimage.center_of_mass(label == 1)).astype(int)))
    assert len(places) > 3


def test_a_marked_voxel_is_mirrored_with_its_label():
    image, label = np.zeros((2, *PATCH), np.float32), np.zeros(PATCH, np.int16)
    image[:, 1, 2, 3], label[1, 2, 3] = 5, 7
    found = Counter()
    for seed in range(400):
        moved, labels = VolumeAugmentation(mirrors=True).moved(image, label, PATCH, np.random.default_rng(seed))
        assert np.array_equal(moved[1] == 5, labels == 7)
        found[tuple(np.argwhere(labels == 7)[0])] += 1
    assert set(found) == {(z, y, x) for z in (1, 10) for y in (2, 17) for x in (3, 12)}
    assert min(found.values()) > 25  # each of the eight about 50 times


def test_nothing_happens_unless_it_is_asked_for():
    image, label = drawn((14, 23, 16))
    off, rng = VolumeAugmentation(), np.random.default_rng(0)
    assert off.enlarged(PATCH) == PATCH
    moved, labels = off.moved(image, label, PATCH, rng)
    assert np.array_equal(moved, image[:, 1:13, 1:21])  # the middle
    assert np.array_equal(labels, label[1:13, 1:21])
    assert np.array_equal(off.shaded(moved, rng), moved)
    assert rng.random() == np.random.default_rng(0).random()  # no random number was spent


def test_shading_leaves_what_it_was_given():
    image, _ = drawn()
    before = image.copy()
    for seed in range(10):
        NNUNET.shaded(image, np.random.default_rng(seed))
    assert np.array_equal(image, before)


def test_what_enters_from_outside_is_0_and_does_not_count():
    image, label = np.ones((1, *PATCH), np.float32), np.ones(PATCH, np.int16)
    moved, labels = VolumeAugmentation(scaling=Chance(1, 2, 2)).moved(image, label, PATCH, np.random.default_rng(0))
    assert labels[0, 0, 0] == -1
    assert moved[0, 0, 0, 0] == 0
    assert np.array_equal(labels >= 0, labels == 1)
    assert (labels == 1).sum() == pytest.approx(label.size / 8, rel=0.2)


@pytest.mark.parametrize("shape", [(9, 14, 11), (1, 14, 11), (5, 12_000, 3)])
def test_warping_agrees_with_an_independent_resampling(shape):
    """The last shape does not fit one column of OpenCV's picture."""
    rng = np.random.default_rng(1)
    image, label = drawn(shape)
    matrix = Rotation.from_euler("xyz", [9, -14, 20], degrees=True).as_matrix() * 1.15
    if shape[0] == 1:
        matrix[0], matrix[:, 0] = (1, 0, 0), (1, 0, 0)
    offset = (np.array(shape) - 1) / 2 - matrix @ ((np.array(shape) - 1) / 2) + rng.uniform(-0.4, 0.4, 3)
    offset[0] = 0 if shape[0] == 1 else offset[0]
    ways = {"mode": "grid-constant", "prefilter": False}
    expected = ndimage.affine_transform(image[0].astype(float), matrix, offset, shape, order=1, **ways)
    nearest = ndimage.affine_transform(label, matrix, offset, shape, order=0, cval=-1, mode="grid-constant")
    warped_image, warped_label = warped(image, label, shape, matrix, offset, outside=-1)
    error = np.abs(warped_image[0] - expected)
    assert error.mean() < 0.02  # positions are rounded to 1/32 voxel
    assert error.max() < 0.25
    assert (warped_label != nearest).mean() < 0.005
    assert warped_label.dtype == np.int16


def test_upsampling_continues_edges_and_keeps_ramps():
    ramp = np.arange(8, dtype=np.float32)[:, None, None] + np.zeros((8, 4, 2), np.float32)
    fine = upsampled(ramp, (16, 4, 6))
    expected = ndimage.zoom(ramp, (2, 1, 3), order=1, grid_mode=True, mode="nearest")
    assert fine.shape == (16, 4, 6)
    assert np.allclose(fine, expected, atol=1e-5)


@presets
def test_parts_happen_as_often_as_the_preset_says(preset):
    image, _ = drawn((3, 6, 6), channels=1)
    count = 3000
    # The channels' own draw halves what is seen of two parts: one channel here.
    halved = {"blur", "coarseness"}
    for part in ("noise", "blur", "brightness", "contrast", "coarseness", "inverted_gamma", "gamma"):
        chance = getattr(preset, part)
        alone = VolumeAugmentation(**{part: chance})
        changed = sum(not np.array_equal(alone.shaded(image, np.random.default_rng(k)), image) for k in range(count))
        expected = chance.probability * (0.5 if part in halved else 1)
        assert changed / count == pytest.approx(expected, abs=0.035), part


@presets
def test_turning_and_scaling_happen_as_often_as_the_preset_says(preset):
    image, label = drawn((5, 8, 8))
    for parts in (("rotation",), ("scaling",), ("rotation", "scaling")):
        alone = VolumeAugmentation(**{part: getattr(preset, part) for part in parts})
        moved = [alone.moved(image, label, (3, 6, 6), np.random.default_rng(k))[0] for k in range(1500)]
        changed = np.mean([not np.array_equal(one, moved[0]) for one in moved])
        still = np.mean([np.array_equal(one, image[:, 1:4, 1:7, 1:7]) for one in moved])
        expected = np.prod([1 - getattr(preset, part).probability for part in parts])
        assert max(still, 1 - changed) == pytest.approx(expected, abs=0.045)


def test_the_published_values_of_nnunet():
    published = {
        "rotation": (0.2, -30, 30), "scaling": (0.2, 0.7, 1.4), "bending": OFF, "noise": (0.1, 0, 0.1),
        "blur": (0.2, 0.5, 1), "brightness": (0.15, 0.75, 1.25), "contrast": (0.15, 0.75, 1.25),
        "coarseness": (0.25, 0.5, 1), "inverted_gamma": (0.1, 0.7, 1.5), "gamma": (0.3, 0.7, 1.5),
    }  # fmt: skip
    assert {part: tuple(getattr(NNUNET, part)) for part in published} == {k: tuple(v) for k, v in published.items()}
    assert {one.name for one in fields(NNUNET) if isinstance(getattr(NNUNET, one.name), Chance)} == set(published)
    assert NNUNET.mirrors
    assert not LIGHT.mirrors


def test_factors_are_below_1_as_often_as_above():
    chance = Chance(1, 0.7, 1.5)
    rng = np.random.default_rng(0)
    factors = np.array([chance.factor(rng) for _ in range(4000)])
    assert factors.min() >= np.float32(0.7)
    assert factors.max() <= 1.5
    assert np.mean(factors < 1) == pytest.approx(0.5, abs=0.03)


def test_gamma_keeps_mean_and_deviation_and_the_order_of_values():
    image, _ = drawn()
    for part in ("gamma", "inverted_gamma"):
        shaded = VolumeAugmentation(**{part: Chance(1, 1.4, 1.5)}).shaded(image, np.random.default_rng(0))
        assert shaded.mean() == pytest.approx(image.mean(), abs=1e-4)
        assert shaded.std() == pytest.approx(image.std(), rel=1e-4)
        order = np.argsort(image.ravel())
        assert (np.diff(shaded.ravel()[order]) >= -1e-5).all()
        skew = ndimage.mean((shaded - shaded.mean()) ** 3) - ndimage.mean((image - image.mean()) ** 3)
        assert (skew > 0) == (part == "gamma")  # a power above 1 stretches the end it is measured to


def test_contrast_keeps_mean_and_range_and_brightness_is_a_factor():
    image, _ = drawn(channels=2)
    stretched = VolumeAugmentation(contrast=Chance(1, 1.2, 1.25)).shaded(image, np.random.default_rng(0))
    assert np.allclose(stretched.max(axis=(1, 2, 3)), image.max(axis=(1, 2, 3)))
    assert (stretched.std(axis=(1, 2, 3)) > 1.1 * image.std(axis=(1, 2, 3))).all()
    brighter = VolumeAugmentation(brightness=Chance(1, 0.75, 1.25)).shaded(image, np.random.default_rng(0))
    ratios = brighter / image
    assert np.allclose(ratios, ratios[:, :1, :1, :1], rtol=1e-4)
    assert ratios[0, 0, 0, 0] != ratios[1, 0, 0, 0]  # each channel has its own


def test_patches_are_turned_as_their_shape_allows():
    assert NNUNET.for_patch((64, 64, 64)) is NNUNET
    flat = NNUNET.for_patch((8, 64, 64), in_plane_only=True)
    assert (flat.rotation, flat.in_plane_only) == (Chance(0.2, -180, 180), True)
    assert NNUNET.for_patch((64, 60)).rotation == Chance(0.2, -180, 180)
    assert NNUNET.for_patch((64, 128)).rotation == Chance(0.2, -15, 15)
    assert LIGHT.for_patch((64, 60)).rotation == Chance(0.4, -20, 20)


def test_flat_patches_stay_within_their_slices():
    patch = (4, 24, 24)
    everything = VolumeAugmentation(**ALWAYS, coarseness=Chance(1, 0.5, 0.6)).for_patch(patch, in_plane_only=True)
    image, label = np.zeros((1, 4, 40, 40), np.float32), np.zeros((4, 40, 40), np.int16)
    image[:, 2], label[2] = 3, 2
    rng = np.random.default_rng(0)
    moved, labels = everything.moved(image, label, patch, rng)
    shaded = everything.shaded(moved, rng)
    for z in range(4):
        assert set(np.unique(labels[z])) <= ({-1, 2} if z == 2 else {-1, 0})
        assert shaded[0, z].any() == (z == 2)


def test_the_patch_to_draw_is_that_of_nnunet():
    """128 cubed: a turn by 30 degrees, and a scaling of 0.85, as its function of the initial patch size gives."""
    assert NNUNET.enlarged((128, 128, 128)) == (205, 205, 205)
    assert NNUNET.for_patch((8, 64, 64), in_plane_only=True).enlarged((8, 64, 64)) == (8, 75, 75)
    assert NNUNET.for_patch((64, 64)).enlarged((64, 64)) == (75, 75)
    assert replace(NNUNET, scaling=OFF, rotation=OFF).enlarged(PATCH) == PATCH


@given(patch=st.tuples(*[st.integers(1, 200)] * 3), flat=st.booleans())
def test_the_patch_to_draw_is_never_smaller(patch, flat):
    for preset in (NNUNET, LIGHT):
        enlarged = preset.for_patch(patch, in_plane_only=flat).enlarged(patch)
        assert all(outer >= inner for outer, inner in zip(enlarged, patch, strict=True))
        assert enlarged[0] == patch[0] or not flat


@pytest.mark.parametrize(
    ("part", "chance"),
    [("gamma", (1.5, 1, 2)), ("gamma", (-0.1, 1, 2)), ("blur", (0.5, 2, 1)), ("noise", (0.5, -1, 1)),
     ("scaling", (0.5, 0, 1))],
)  # fmt: skip
def test_impossible_chances_are_refused(part, chance):
    with pytest.raises(ConfigError, match=part):
        VolumeAugmentation(**{part: Chance(*chance)})
