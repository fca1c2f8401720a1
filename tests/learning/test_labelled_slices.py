"""Labelled slices: functions of (seed, step, position) alone, whose boxes fit a structure that is there."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.datasets.dataset import open_dataset
from medmargin.errors import ConfigError, DataError
from medmargin.learning import FixedItems, LabelledSlices, cache_cases
from medmargin.learning.batches import StepBatches, split, training_loader
from medmargin.prompts.simulation import tight_box
from medmargin.transforms import Augmentation

STRONG = Augmentation(turns=True, rotation=20, zoom=0.3, gamma=0.5, contrast=0.2, brightness=0.1, noise=0.1, blur=1)


@dataclass(frozen=True)
class Rectangles:
    """Rectangles of classes 1 and 3 in pictures of any proportions; empty ones as often as asked for."""

    colour: bool = False
    objects: int = 10

    def draw_slice(self, rng, *, empty_share, planes):
        height, width = rng.integers(20, 90, 2)
        labels = np.zeros((height, width), np.uint8)
        if rng.random() >= empty_share:
            labels[2 : rng.integers(6, 10), 3:15] = 1
            labels[12:18, rng.integers(3, 10) : 16] = 3
        picture = (60 * rng.random((height, width)) + 50 * labels).astype(np.uint8)
        return (np.stack([picture, picture // 2, picture], axis=-1) if self.colour else picture), labels


@dataclass(frozen=True)
class Constant:
    """Always the same slice."""

    labels: np.ndarray
    objects: int = 1

    def draw_slice(self, rng, *, empty_share, planes):
        return np.arange(self.labels.size, dtype=np.float32).reshape(self.labels.shape), self.labels


def equal(one, other) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all((a is None and b is None) or np.array_equal(a, b) for a, b in pairs)


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([24, 33]),
    seed=st.integers(0, 2**31),
    step=st.integers(0, 10**6),
    position=st.integers(0, 64),
    colour=st.booleans(),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    jitter=st.integers(0, 6),
)
def test_an_item_is_a_function_of_its_key_and_its_box_fits_a_structure(
    size, seed, step, position, colour, share, jitter
):
    stream = LabelledSlices(Rectangles(colour), size, seed, STRONG, prompted_share=share, box_jitter=jitter)
    item = stream[step, position]
    assert equal(item, pickle.loads(pickle.dumps(stream))[step, position])
    assert item.image.shape == (3, size, size)
    assert item.image.dtype == np.float32
    assert 0 <= item.image.min() <= item.image.max() <= 1
    assert item.labels.shape == (size, size)
    assert item.labels.dtype == np.int64
    assert set(np.unique(item.labels)) <= {0, 1, 3}
    rows, columns = item.sizes
    assert max(rows, columns) == size
    assert not item.image[:, rows:].any()
    assert not item.image[:, :, columns:].any()
    assert share == 0.5 or (item.boxes is not None) == (share == 1)
    if item.boxes is not None:
        x_min, y_min, x_max, y_max = item.boxes
        tight = [tight_box(item.labels == value) for value in np.unique(item.labels) if value > 0]
        assert any(
            max(0, low_x - jitter) <= x_min <= low_x
            and max(0, low_y - jitter) <= y_min <= low_y
            and high_x <= x_max <= min(size - 1, high_x + jitter)
            and high_y <= y_max <= min(size - 1, high_y + jitter)
            for low_x, low_y, high_x, high_y in tight
        )


def test_neighbouring_keys_and_seeds_differ():
    stream = LabelledSlices(Rectangles(), 32, 5)
    items = [stream[0, 0], stream[0, 1], stream[1, 0], replace(stream, seed=6)[0, 0]]
    assert not any(equal(items[i], items[j]) for i in range(4) for j in range(i))


def test_boxes_come_for_a_whole_batch_or_not_at_all_and_then_every_slice_shows_a_structure():
    stream = LabelledSlices(Rectangles(), 32, 1, prompted_share=0.5, empty_share=1.0)
    prompted = 0
    empty = {True: 0, False: 0}
    for step in range(30):
        batch = stream.collate([stream[step, position] for position in range(4)])
        assert batch.boxes is None or batch.boxes.shape == (4, 4)
        prompted += batch.boxes is not None
        empty[batch.boxes is not None] += int((batch.labels == 0).all(dim=(1, 2)).sum())
    assert 5 < prompted < 25
    assert empty[True] == 0
    assert empty[False] == 4 * (30 - prompted)


def test_the_structure_in_the_box_is_any_of_those_present():
    stream = LabelledSlices(Rectangles(), 64, 0, Augmentation(flips=False), prompted_share=1, box_jitter=0)
    boxed = [
        next(value for value in (1, 3) if tight_box(item.labels == value) == tuple(item.boxes.astype(int)))
        for item in (stream[step, 0] for step in range(60))
    ]
    assert 15 < boxed.count(1) < 45


def test_picture_and_labels_stay_together_under_augmentation():
    """The picture is bright where the labels say so, wherever both were moved."""
    labels = np.zeros((40, 60), np.uint8)
    labels[5:20, 10:50] = 2

    @dataclass(frozen=True)
    class Bright:
        objects: int = 1

        def draw_slice(self, rng, *, empty_share, planes):
            return 200 * (labels > 0).astype(np.uint8), labels

    moving = Augmentation(turns=True, rotation=20, zoom=0.2)
    for position in range(8):
        item = LabelledSlices(Bright(), 60, 3, moving)[0, position]
        agrees = (item.image[0] > 0.5) == (item.labels == 2)
        assert agrees.mean() > 0.97
        assert item.labels.any()


def test_grey_levels_change_inside_the_picture_and_never_in_the_padding():
    labels = np.ones((10, 20), np.uint8)
    brighter = Augmentation(flips=False, brightness=0.5, noise=0.3)
    item = LabelledSlices(Constant(labels), 20, 0, brighter)[0, 0]
    plain = LabelledSlices(Constant(labels), 20, 0, Augmentation(flips=False))[0, 0]
    assert (item.image[:, 10:] == 0).all()
    assert not item.labels[10:].any()
    assert np.abs(item.image[:, :10] - plain.image[:, :10]).mean() > 0.01


def test_validation_items_are_undisturbed():
    stream = LabelledSlices(Rectangles(), 32, 3, STRONG, empty_share=1.0, prompted_share=1.0, planes="three")
    checking = FixedItems(stream.undisturbed(Rectangles()), 6)
    assert checking.stream.planes == "three"
    batch = checking.stream.collate([checking[index] for index in range(len(checking))])
    assert batch.boxes is None
    assert (batch.labels > 0).any(dim=(1, 2)).all()
    assert torch.equal(batch.image, checking.stream.collate([checking[index] for index in range(6)]).image)
    assert equal(checking.stream[0, 2], replace(checking.stream, box_jitter=0)[0, 2])


def test_in_a_step_with_boxes_structures_that_vanish_are_an_error_and_without_them_a_slice_like_any_other():
    speck = np.zeros((512, 512), np.uint8)
    speck[1, 1] = 1
    assert not LabelledSlices(Constant(speck), 16, 0)[0, 0].labels.any()
    with pytest.raises(DataError, match="show no structure at 16 x 16"):
        LabelledSlices(Constant(speck), 16, 0, Augmentation(flips=False), prompted_share=1)[0, 0]


def test_a_class_that_does_not_fit_a_byte_is_refused():
    with pytest.raises(DataError, match="class index 300"):
        LabelledSlices(Constant(np.full((8, 8), 300, np.uint16)), 8, 0)[0, 0]
    assert LabelledSlices(Constant(np.full((8, 8), 255, np.uint16)), 8, 0)[0, 0].labels.max() == 255


@pytest.mark.parametrize(
    "wrong",
    [{"size": 0}, {"empty_share": 1.5}, {"prompted_share": -0.1}, {"box_jitter": -1}, {"planes": "coronal"}],
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        LabelledSlices(Rectangles(), **{"size": 32, "seed": 0, **wrong})


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_do_not_depend_on_where_they_are_loaded(workers):
    stream = LabelledSlices(Rectangles(), 24, 2, STRONG, prompted_share=0.5)
    batches = StepBatches(batch_size=3, start=4, total=8)
    for step, batch in zip(range(4, 8), training_loader(stream, batches, workers=workers), strict=True):
        expected = stream.collate([stream[step, position] for position in range(3)])
        for found, wanted in zip(batch, expected, strict=True):
            assert (found is None and wanted is None) or torch.equal(found, wanted)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_parts_of_a_batch_are_the_batch(share):
    stream = LabelledSlices(Rectangles(), 16, 0, prompted_share=share)
    batch = stream.collate([stream[0, position] for position in range(5)])
    pieces = split(batch, 2)
    assert [len(piece[0]) for piece in pieces] == [3, 2]
    assert torch.equal(torch.cat([piece.labels for piece in pieces]), batch.labels)
    assert all((piece.boxes is None) == (share == 0) for piece in pieces)


def test_real_volumes_are_cut_along_three_axes(data_root, tmp_path):
    dataset = open_dataset(data_root / "Dataset004_Hippocampus")
    cached = cache_cases(dataset.cases[:2], dataset.task, tmp_path, progress=False)
    stream = LabelledSlices(cached, 64, 0, STRONG, planes="three", prompted_share=0.3)
    batch = stream.collate([stream[0, position] for position in range(8)])
    assert batch.image.shape == (8, 3, 64, 64)
    assert set(np.unique(batch.labels)) == {0, 1, 2}
    assert stream.objects == cached.objects
