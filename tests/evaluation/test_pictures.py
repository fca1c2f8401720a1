from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from nibabel import orientations

from medmargin.evaluation import CaseResult
from medmargin.evaluation.pictures import Gallery, picture
from medmargin.imaging.volume import Grid, Volume

MakeCase = Callable[..., CaseResult]
ALL_CODES = [
    "".join(letters) for axes in itertools.permutations(("LR", "PA", "IS")) for letters in itertools.product(*axes)
]


def marked_volume(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    """A RAS volume whose voxels brighten towards right (1), front (10) and head (100)."""
    i, j, k = np.indices((5, 6, 7))
    return Volume((i + 10 * j + 100 * k)[None].astype(float), Grid((5, 6, 7), np.diag([*spacing, 1.0])))


@pytest.mark.parametrize("codes", ALL_CODES)
def test_sides_are_right_for_all_48_orientations(make_case: MakeCase, codes: str) -> None:
    volume = marked_volume().reoriented(codes)
    empty = np.zeros(volume.grid.shape, np.uint8)
    shown = picture(make_case(), volume, empty, empty)
    assert orientations.aff2axcodes(volume.affine) == tuple(codes)
    assert shown.sides == ("R", "L", "A", "P")
    assert shown.place.startswith("axial slice ")
    image = shown.image
    assert image.shape == (6, 5)
    assert (np.diff(image, axis=1) < 0).all(), "the patient's right is on the left"
    assert (np.diff(image, axis=0) < 0).all(), "the front is on top"


@pytest.mark.parametrize(
    ("spacing", "plane", "sides", "shape", "pixel"),
    [
        ((4.0, 1.0, 2.0), "sagittal", ("A", "P", "S", "I"), (7, 6), (2.0, 1.0)),
        ((1.0, 4.0, 2.0), "coronal", ("R", "L", "S", "I"), (7, 5), (2.0, 1.0)),
        ((1.0, 1.2, 1.4), "axial", ("R", "L", "A", "P"), (6, 5), (1.2, 1.0)),
    ],
)
def test_slices_are_cut_where_voxels_are_thin(
    make_case: MakeCase,
    spacing: tuple[float, float, float],
    plane: str,
    sides: tuple[str, ...],
    shape: tuple[int, int],
    pixel: tuple[float, float],
) -> None:
    volume = marked_volume(spacing)
    empty = np.zeros(volume.grid.shape, np.uint8)
    shown = picture(make_case(), volume, empty, empty)
    assert shown.place.split()[0] == plane
    assert shown.sides == sides
    assert shown.image.shape == shape
    assert shown.pixel_size == pytest.approx(pixel)
    assert (np.diff(shown.image, axis=0) < 0).all(), "head or front is on top"


def test_slice_with_the_most_errors_is_shown(make_case: MakeCase) -> None:
    volume = marked_volume()
    truth, labels = np.zeros((2, *volume.grid.shape), np.uint8)
    truth[..., 1] = labels[..., 1] = 1
    labels[:2, :2, 4] = 1
    shown = picture(make_case(), volume, truth, labels, np.random.default_rng(0).random(truth.shape))
    assert shown.place == "axial slice 5 of 7"
    assert not shown.truth.any()
    assert shown.labels.sum() == 4
    assert shown.uncertainty is not None
    perfect = picture(make_case(), volume, truth, truth)
    assert perfect.place == "axial slice 2 of 7"


def test_unknown_spacing_is_shown_as_stored_without_letters(make_case: MakeCase) -> None:
    volume = marked_volume()
    volume = Volume(volume.voxels, Grid(volume.grid.shape, volume.affine, "px"))
    empty = np.zeros(volume.grid.shape, np.uint8)
    shown = picture(make_case(), volume, empty, empty)
    assert shown.sides is None
    np.testing.assert_array_equal(np.argsort(shown.image.ravel()), np.argsort(volume.voxels[0, :, :, 3].T.ravel()))


def test_colour_pictures_keep_their_colours(make_case: MakeCase) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 1), dtype=np.uint8)
    volume = Volume(rgb, Grid((8, 6, 1), np.eye(4), "px"), dims=2)
    empty = np.zeros((8, 6, 1), np.uint8)
    shown = picture(make_case(), volume, empty, empty)
    assert shown.window is None
    assert shown.place == ""
    np.testing.assert_allclose(shown.image, np.moveaxis(rgb[..., 0], (0, 1, 2), (2, 1, 0)) / 255)


def test_window_sets_black_and_white(make_case: MakeCase) -> None:
    volume = marked_volume()
    empty = np.zeros(volume.grid.shape, np.uint8)
    shown = picture(make_case(), volume, empty, empty, window=(310.0, 330.0))
    assert shown.window == (310.0, 330.0)
    assert shown.image.min() == 0
    assert shown.image.max() == 1
    constant = Volume(np.ones((1, 4, 4, 4)), Grid((4, 4, 4), np.eye(4)))
    flat = picture(make_case(), constant, np.zeros((4, 4, 4), int), np.zeros((4, 4, 4), int))
    assert np.isfinite(flat.image).all()


def test_gallery_keeps_the_worst_and_the_best(make_case: MakeCase) -> None:
    shape = (12, 14, 10)
    truth = np.zeros(shape, np.uint8)
    truth[2:8, 2:12, 2:8] = 1
    volume = Volume(np.random.default_rng(0).random((1, *shape)), Grid(shape, np.eye(4)))
    gallery = Gallery(worst=2, best=1)
    for shift in (3, 0, 5, 1, 4, 2):
        labels = np.roll(truth, shift, axis=0)
        gallery.offer(make_case(name=f"shift_{shift}", truth=truth, labels=labels), volume, truth, labels)
    assert [shown.case for shown in gallery.pictures] == ["shift_5", "shift_4", "shift_0"]


def test_gallery_with_few_cases_keeps_them_all(make_case: MakeCase) -> None:
    volume = Volume(np.random.default_rng(0).random((1, 12, 14, 10)), Grid((12, 14, 10), np.eye(4)))
    gallery = Gallery()
    empty = np.zeros((12, 14, 10), np.uint8)
    for seed in range(3):
        gallery.offer(make_case(seed, name=f"case_{seed}"), volume, empty, empty)
    assert len(gallery.pictures) == 3


@pytest.fixture
def shifted(make_case: MakeCase) -> Callable[..., Gallery]:
    """Offer cases to a gallery in this order; the larger the shift, the worse the mask."""
    truth = np.zeros((12, 14, 10), np.uint8)
    truth[2:8, 2:12, 2:8] = 1
    volume = Volume(np.random.default_rng(0).random((1, 12, 14, 10)), Grid((12, 14, 10), np.eye(4)))
    masks = [np.roll(truth, shift, axis=0) for shift in range(6)]
    results = [make_case(name=f"shift_{shift}", truth=truth, labels=labels) for shift, labels in enumerate(masks)]

    def offer(*shifts: int, **options: int) -> Gallery:
        gallery = Gallery(**options)
        for shift in shifts:
            gallery.offer(results[shift], volume, truth, masks[shift])
        return gallery

    return offer


def test_contrast_is_worst_median_and_best_whatever_the_order(shifted: Callable[..., Gallery]) -> None:
    for shifts in itertools.permutations(range(5)):
        found = shifted(*shifts, worst=1, best=1, middle=3).contrast
        assert {word: shown.case for word, shown in found.items()} == {
            "worst": "shift_4", "median": "shift_2", "best": "shift_0",
        }  # fmt: skip


def test_median_that_was_dropped_is_not_claimed(shifted: Callable[..., Gallery]) -> None:
    found = shifted(5, 4, 0, 3, 2, 1, worst=1, best=1, middle=1).contrast
    assert found["worst"].case == "shift_5"
    assert found["best"].case == "shift_0"
    assert found.get("median", found["worst"]).case in ("shift_3", "shift_5")
    assert list(shifted(2).contrast) == ["worst"]
    assert list(shifted(2, 0).contrast) == ["worst", "best"]
    assert shifted().contrast == {}


def test_edge_map_is_cut_like_the_image(make_case: MakeCase) -> None:
    volume = marked_volume()
    empty = np.zeros(volume.grid.shape, np.uint8)
    shown = picture(make_case(), volume, empty, empty, edge=volume.voxels[0] / 1000)
    assert shown.edge is not None
    np.testing.assert_array_equal(np.argsort(shown.edge.ravel()), np.argsort(shown.image.ravel()))
