"""Cases cut into pictures: which objects there are, where they lie, and when the work is done again."""

from __future__ import annotations

import os
import pickle

import nibabel
import numpy as np
import pytest
from PIL import Image

from medmargin.datasets.case import Case
from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.task import Task
from medmargin.errors import DataError
from medmargin.learning import cache_cases

TASK = Task("Toy", ("MRI",), {"big": 1, "small": 2}, dims=3)


def volume_case(folder, name: str, *, codes: str = "RAS", labelled: bool = True) -> Case:
    """Two structures at known places of an RAS volume, stored in another orientation."""
    image = np.zeros((20, 16, 6), np.float32)
    image += np.arange(1, 21)[:, None, None]
    label = np.zeros(image.shape, np.uint8)
    label[2:12, 3:9, 1:4] = 1
    label[14:17, 10:14, 2] = 2
    label[0, 0, 5] = 1  # one pixel: too small
    paths = []
    for kind, voxels in (("image", image), ("label", label)):
        turned = nibabel.Nifti1Image(voxels, np.eye(4)).as_reoriented(
            nibabel.orientations.ornt_transform(
                nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
            )
        )
        paths.append(folder / f"{name}_{kind}.nii.gz")
        turned.to_filename(paths[-1])
    return Case(name, name, (paths[0],), paths[1] if labelled else None)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIR"])
def test_every_slice_with_enough_of_a_structure_is_an_object(tmp_path, codes):
    cached = cache_cases([volume_case(tmp_path, "a", codes=codes)], TASK, tmp_path / "cache", progress=False)
    places = {value: found.tolist() for value, found in cached.entries.items()}
    assert places == {1: [[0, 1], [0, 2], [0, 3]], 2: [[0, 2]]}
    assert cached.objects == 4
    drawn = [cached.draw(np.random.default_rng(seed)) for seed in range(20)]
    masks = {mask.sum(): mask for _, mask in drawn}
    assert masks.keys() == {60, 12}
    assert masks[60].shape == (16, 20)  # [H = j, W = i]
    assert np.array_equal(np.argwhere(masks[12])[[0, -1]], [[10, 14], [13, 16]])
    picture = drawn[0][0]
    assert picture.dtype == np.uint8
    assert (np.diff(picture.astype(int), axis=1) >= 0).all()  # brightness rises along i


def test_rare_structures_are_drawn_as_often_as_frequent_ones(tmp_path):
    cached = cache_cases([volume_case(tmp_path, name) for name in "abc"], TASK, tmp_path / "cache", progress=False)
    rng = np.random.default_rng(0)
    small = np.mean([cached.draw(rng)[1].sum() == 12 for _ in range(400)])
    assert small == pytest.approx(0.5, abs=0.1)


def test_in_pictures_every_component_is_an_object(tmp_path):
    label = np.zeros((30, 40), np.uint8)
    label[2:8, 2:8], label[20:28, 10:30], label[15, 15] = 1, 1, 1
    for name, values in (("image", np.full((30, 40), 7, np.uint8) + label), ("label", label)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    case = Case("p", "p", (tmp_path / "image.png",), tmp_path / "label.png")
    cached = cache_cases([case], Task("Cells", ("grey",), {"cell": 1}, dims=2), tmp_path / "cache", progress=False)
    sizes = {int(cached.draw(np.random.default_rng(seed))[1].sum()) for seed in range(30)}
    assert sizes == {36, 160}
    picture, _ = cached.draw(np.random.default_rng(0))
    assert set(np.unique(picture)) == {7, 8}  # bytes of a picture stay as they are


def test_prepared_cases_are_used_again_until_something_changes(tmp_path):
    case = volume_case(tmp_path, "a")
    cache = tmp_path / "cache"

    def stamp(**options):
        cache_cases([case], TASK, cache, progress=False, **options)
        return (cache / "00000.image.npy").stat().st_mtime_ns

    first = stamp()
    assert stamp() == first
    assert stamp(minimum_pixels=20) > first
    second = stamp()
    os.utime(case.images[0])
    assert stamp() > second
    (cache / "index.json").write_text("{ half an ind")
    assert stamp() > second


def test_a_copy_in_a_loading_process_draws_the_same(tmp_path):
    cached = cache_cases([volume_case(tmp_path, "a")], TASK, tmp_path / "cache", progress=False)
    cached.draw(np.random.default_rng(0))
    copied = pickle.loads(pickle.dumps(cached))
    for one, other in zip(cached.draw(np.random.default_rng(3)), copied.draw(np.random.default_rng(3)), strict=True):
        assert np.array_equal(one, other)


def test_a_case_without_a_label_is_refused(tmp_path):
    with pytest.raises(DataError, match="b: no label"):
        cache_cases([volume_case(tmp_path, "b", labelled=False)], TASK, tmp_path / "cache", progress=False)


def test_row_25_cases_without_any_object_are_refused_together(tmp_path):
    case = volume_case(tmp_path, "a")
    with pytest.raises(DataError, match="none of the 1 training cases holds an object of 1000 pixels"):
        cache_cases([case], TASK, tmp_path / "cache", minimum_pixels=1000, progress=False)


@pytest.mark.parametrize("name", ["Dataset004_Hippocampus", "Dataset901_BUSI"])
def test_real_cases_are_prepared(data_root, tmp_path, name):
    dataset = open_dataset(data_root / name)
    cached = cache_cases(dataset.cases[:3], dataset.task, tmp_path, progress=False)
    picture, mask = cached.draw(np.random.default_rng(0))
    assert picture.shape[:2] == mask.shape
    assert mask.sum() >= 10
    assert picture.max() > 200


def drawn_slices(cached, *, empty_share=0.0, planes="axial", count=200):
    return [
        cached.draw_slice(np.random.default_rng(seed), empty_share=empty_share, planes=planes) for seed in range(count)
    ]


def test_a_drawn_slice_shows_its_structures_and_rare_ones_as_often_as_frequent_ones(tmp_path):
    cached = cache_cases([volume_case(tmp_path, name) for name in "ab"], TASK, tmp_path / "cache", progress=False)
    slices = drawn_slices(cached, count=400)
    assert all(picture.shape == labels.shape == (16, 20) for picture, labels in slices)
    assert all(labels.dtype == np.uint8 and set(np.unique(labels)) <= {0, 1, 2} for _, labels in slices)
    assert all((labels == 1).sum() == 60 for _, labels in slices)  # not the slice with a single pixel
    # the rare one stands in one slice of three with the frequent one: half the draws, and a third of the other half
    small = np.mean([(labels == 2).any() for _, labels in slices])
    assert small == pytest.approx(0.5 + 0.5 / 3, abs=0.08)


def test_the_empty_share_takes_any_slice_of_any_case(tmp_path):
    empty = volume_case(tmp_path, "empty")
    nibabel.Nifti1Image(np.zeros((20, 16, 6), np.uint8), np.eye(4)).to_filename(empty.label)
    cached = cache_cases([volume_case(tmp_path, "a"), empty], TASK, tmp_path / "cache", progress=False)
    assert cached.cases == 2
    shares = {
        share: np.mean([not labels.any() for _, labels in drawn_slices(cached, empty_share=share, count=400)])
        for share in (0.0, 0.5, 1.0)
    }
    assert shares[0.0] == 0
    assert shares[0.5] == pytest.approx(0.5 * 2 / 3, abs=0.08)
    assert shares[1.0] == pytest.approx((1 + 2 / 6) / 2, abs=0.08)  # a whole case, and two slices of six


@pytest.mark.parametrize("empty_share", [0.0, 1.0])
def test_three_planes_come_equally_often_and_are_planes_of_the_volume(tmp_path, empty_share):
    cached = cache_cases([volume_case(tmp_path, "a")], TASK, tmp_path / "cache", progress=False)
    image = np.load(tmp_path / "cache" / "00000.image.npy")  # [K, H, W] = [6, 16, 20]
    truth = np.load(tmp_path / "cache" / "00000.label.npy")
    axes = {(16, 20): 0, (6, 20): 1, (6, 16): 2}
    counts = [0, 0, 0]
    for picture, labels in drawn_slices(cached, empty_share=empty_share, planes="three", count=300):
        axis = axes[labels.shape]
        counts[axis] += 1
        planes = [
            place
            for place in range(truth.shape[axis])
            if np.array_equal(truth.take(place, axis), labels) and np.array_equal(image.take(place, axis), picture)
        ]
        assert planes
        assert empty_share == 1 or labels.any()
    assert min(counts) > 75


def test_across_the_slices_too_the_rare_structure_is_drawn_as_often_as_the_frequent_one(tmp_path):
    """In [K, H, W] the small one fills k 2, h 10..13, w 14..16: no plane h or w shows both."""
    cached = cache_cases([volume_case(tmp_path, "a")], TASK, tmp_path / "cache", progress=False)
    found = [
        (labels == 2).any() for _, labels in drawn_slices(cached, planes="three", count=600) if labels.shape[0] == 6
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.09)


@pytest.mark.parametrize("colour", [False, True])
def test_pictures_have_one_plane(tmp_path, colour):
    label = np.zeros((30, 40), np.uint8)
    label[2:8, 2:8], label[20:28, 10:30], label[15, 15] = 1, 1, 1
    grey = np.full((30, 40), 7, np.uint8) + label
    for name, values in (("image", np.stack([grey] * 3, axis=-1) if colour else grey), ("label", label)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    case = Case("p", "p", (tmp_path / "image.png",), tmp_path / "label.png")
    channels = ("R", "G", "B") if colour else ("grey",)
    cached = cache_cases([case], Task("Cells", channels, {"cell": 1}, dims=2), tmp_path / "cache", progress=False)
    for picture, labels in drawn_slices(cached, empty_share=0.5, planes="three", count=20):
        assert picture.shape == ((30, 40, 3) if colour else (30, 40))
        assert np.array_equal(labels, label)  # the whole label map, not one component


def test_a_drawn_slice_is_a_function_of_the_generator(tmp_path):
    cached = cache_cases([volume_case(tmp_path, "a")], TASK, tmp_path / "cache", progress=False)
    copied = pickle.loads(pickle.dumps(cached))
    for one, other in zip(
        drawn_slices(cached, empty_share=0.3, planes="three"),
        drawn_slices(copied, empty_share=0.3, planes="three"),
        strict=True,
    ):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
