"""Training items: functions of (seed, step, position) alone, with prompts that fit their objects."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.errors import ConfigError, DataError
from medmargin.learning import Mixture, PromptedSlices, Prompting
from medmargin.learning.batches import FixedItems, StepBatches, split, training_loader
from medmargin.losses.distance_maps import penalty_weights
from medmargin.prompts.simulation import tight_box
from medmargin.transforms import Augmentation

STRONG = Augmentation(turns=True, rotation=20, zoom=0.3, gamma=0.5, contrast=0.2, brightness=0.1, noise=0.1, blur=1)


@dataclass(frozen=True)
class Rectangles:
    """Bright rectangles of any size and place in pictures of any proportions."""

    colour: bool = False
    smallest: int = 1
    objects: int = 10

    def draw(self, rng):
        height, width = rng.integers(self.smallest + 10, 90, 2)
        y, x = rng.integers(0, height - self.smallest), rng.integers(0, width - self.smallest)
        mask = np.zeros((height, width), bool)
        mask[y : y + rng.integers(self.smallest, height), x : x + rng.integers(self.smallest, width)] = True
        picture = (60 * rng.random((height, width)) + 150 * mask).astype(np.uint8)
        return (np.stack([picture, picture // 2, picture], axis=-1) if self.colour else picture), mask


def equal(one, other) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all((a is None and b is None) or np.array_equal(a, b) for a, b in pairs)


prompting = st.builds(
    Prompting,
    size=st.sampled_from([24, 32]),
    frame_margin=st.one_of(st.none(), st.sampled_from([(0.0, 0.0), (0.1, 0.8)])),
    frame_shift=st.sampled_from([0.0, 0.3]),
    box_jitter=st.integers(0, 6),
    click_probability=st.sampled_from([0.0, 0.5, 1.0]),
    negative_clicks=st.integers(0, 2),
    clicks_replace_box=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(
    ways=prompting,
    seed=st.integers(0, 2**31),
    step=st.integers(0, 10**6),
    position=st.integers(0, 64),
    colour=st.booleans(),
)
def test_an_item_is_a_function_of_its_key_and_its_prompts_fit(ways, seed, step, position, colour):
    stream = PromptedSlices(Rectangles(colour), ways, seed, STRONG, distance_map=penalty_weights)
    item = stream[step, position]
    assert equal(item, pickle.loads(pickle.dumps(stream))[step, position])
    assert item.image.shape == (3, ways.size, ways.size)
    assert item.image.dtype == np.float32
    assert 0 <= item.image.min() <= item.image.max() <= 1
    assert item.target.shape == item.maps.shape == (1, ways.size, ways.size)
    assert set(np.unique(item.target)) <= {0, 1}
    assert np.array_equal(item.maps[0], penalty_weights(item.target[0]))
    low_x, low_y, high_x, high_y = tight_box(item.target[0])
    if item.boxes is not None:
        x_min, y_min, x_max, y_max = item.boxes
        assert max(0, low_x - ways.box_jitter) <= x_min <= low_x
        assert max(0, low_y - ways.box_jitter) <= y_min <= low_y
        assert high_x <= x_max <= min(ways.size - 1, high_x + ways.box_jitter)
        assert high_y <= y_max <= min(ways.size - 1, high_y + ways.box_jitter)
    if item.points is not None:
        assert item.points.shape == (1 + ways.negative_clicks, 2)
        for (x, y), label in zip(item.points.astype(int), item.point_labels, strict=True):
            assert label == -1 or item.target[0, y, x] == label
    assert item.boxes is not None or item.points is not None
    assert item.floors is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), margin=st.floats(0, 1), shift=st.floats(0, 0.5))
def test_a_frame_around_an_object_never_cuts_it(seed, margin, shift):
    """The object's share of the window is what the margin says, whatever the shift."""
    ways = Prompting(64, frame_margin=(margin, margin), frame_shift=shift, box_jitter=0)
    item = PromptedSlices(Rectangles(smallest=12), ways, seed, Augmentation(flips=False))[0, 0]
    x_min, y_min, x_max, y_max = item.boxes
    longest = max(x_max - x_min, y_max - y_min) + 1
    expected = 64 / (1 + 2 * margin)
    assert longest == pytest.approx(expected, rel=0.1, abs=2)  # whole pixels


def test_neighbouring_keys_and_seeds_differ():
    stream = PromptedSlices(Rectangles(), Prompting(32), 5)
    items = [stream[0, 0], stream[0, 1], stream[1, 0], replace(stream, seed=6)[0, 0]]
    assert not any(equal(items[i], items[j]) for i in range(4) for j in range(i))


def test_clicks_come_for_a_whole_batch_or_not_at_all():
    stream = PromptedSlices(Rectangles(), Prompting(32, click_probability=0.5), 1)
    kinds = [{stream[step, position].points is None for position in range(4)} for step in range(30)]
    assert all(len(kind) == 1 for kind in kinds)
    assert 5 < sum(True in kind for kind in kinds) < 25


def test_an_object_that_fills_its_frame_has_no_place_for_negative_clicks():
    @dataclass(frozen=True)
    class Full:
        objects: int = 1

        def draw(self, rng):
            return rng.random((20, 20)), np.ones((20, 20), bool)

    item = PromptedSlices(Full(), Prompting(16, click_probability=1, negative_clicks=2), 0)[0, 0]
    assert item.point_labels.tolist() == [1, -1, -1]


def test_validation_items_are_undisturbed_and_carry_their_floors():
    ways = Prompting(32, frame_margin=(0.1, 0.5), frame_shift=0.2, box_jitter=5, click_probability=1.0)
    checking = FixedItems(PromptedSlices(Rectangles(), ways, 3, STRONG).undisturbed(Rectangles()), 4)
    batch = checking.stream.collate([checking[index] for index in range(len(checking))])
    for target, box, floors in zip(batch.target[:, 0], batch.boxes, batch.floors, strict=True):
        assert tuple(box.int().tolist()) == tight_box(target.numpy())
        assert 0.99 <= floors[0] <= 1  # a rectangle is its own box
        assert floors[1] <= floors[0]
    assert batch.points is None
    assert torch.equal(batch.image, checking.stream.collate([checking[index] for index in range(4)]).image)


def test_objects_that_vanish_at_the_networks_resolution_are_an_error():
    @dataclass(frozen=True)
    class Specks:
        objects: int = 1

        def draw(self, rng):
            mask = np.zeros((512, 512), bool)
            mask[1, 1] = True
            return np.zeros((512, 512), np.uint8), mask

    with pytest.raises(DataError, match="no pixel left at 16 x 16"):
        PromptedSlices(Specks(), Prompting(16), 0, Augmentation(flips=False))[0, 0]


@pytest.mark.parametrize(
    "wrong",
    [{"click_probability": 1.5}, {"frame_margin": (0.5, 0.1)}, {"click_probability": 0.5, "positive_clicks": 0}],
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        Prompting(32, **wrong)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_do_not_depend_on_where_they_are_loaded(workers):
    stream = PromptedSlices(Rectangles(), Prompting(24), 2, STRONG, distance_map=penalty_weights)
    batches = StepBatches(batch_size=3, start=4, total=7)
    for step, batch in zip(range(4, 7), training_loader(stream, batches, workers=workers), strict=True):
        expected = stream.collate([stream[step, position] for position in range(3)])
        assert batch.boxes.shape == (3, 4)
        for found, wanted in zip(batch, expected, strict=True):
            assert (found is None and wanted is None) or torch.equal(found, wanted)


@given(size=st.integers(1, 9), parts=st.integers(1, 12))
def test_parts_of_a_batch_are_the_batch(size, parts):
    stream = PromptedSlices(Rectangles(), Prompting(8), 0)
    batch = stream.collate([stream[0, position] for position in range(size)])
    pieces = split(batch, parts)
    assert len(pieces) == min(size, parts)
    assert torch.equal(torch.cat([piece.image for piece in pieces]), batch.image)
    assert all(piece.points is None for piece in pieces)


def test_a_mixture_draws_in_proportion():
    @dataclass(frozen=True)
    class Constant:
        value: int
        objects: int | None = 3

        def draw(self, rng):
            return np.full((4, 4), self.value), np.ones((4, 4), bool)

    mixture = Mixture([Constant(0), Constant(1)], [3, 1])
    rng = np.random.default_rng(0)
    share = np.mean([mixture.draw(rng)[0][0, 0] for _ in range(2000)])
    assert share == pytest.approx(0.25, abs=0.03)
    assert mixture.objects == 6
    assert Mixture([Constant(0), Constant(1, None)], [1, 1]).objects is None
    with pytest.raises(ConfigError, match="one positive weight per source"):
        Mixture([Constant(0)], [1, 2])
