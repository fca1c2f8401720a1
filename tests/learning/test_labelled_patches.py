"""Training items of patch networks: pure functions of their key, foreground where it is due, whole after resuming."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from medmargin.errors import ConfigError, DataError
from medmargin.learning import LabelledPatches, PatchBatch
from medmargin.learning.batches import FixedItems, StepBatches, training_loader, validation_loader
from medmargin.transforms import LIGHT, NNUNET, VolumeAugmentation


@dataclass
class Noise:
    """A source whose label tells whether foreground was asked for, and that counts what it is asked."""

    absent: tuple[str, ...] = ()
    asked: list = field(default_factory=list)

    def draw_patch(self, rng, *, patch, foreground, enlarged=None):
        self.asked.append((patch, foreground, enlarged))
        shape = patch if enlarged is None else enlarged
        image = rng.standard_normal((2, *shape), dtype=np.float32)
        return image, np.full(shape, 1 if foreground else 0, np.int16)


def stream(patch=(6, 8, 8), **options):
    return LabelledPatches(Noise(), patch, options.pop("seed", 3), **options)


@pytest.mark.parametrize("patch", [(6, 8, 8), (8, 10)])
@pytest.mark.parametrize("preset", [NNUNET, LIGHT])
def test_an_item_is_a_pure_function_of_its_key(patch, preset):
    def items(order):
        made = stream(patch, augmentation=preset.for_patch(patch), batch_size=4)
        return {key: made[key] for key in order}

    keys = [(step, position) for step in range(4) for position in range(4)]
    forwards, backwards = items(keys), items(keys[::-1])
    for key in keys:
        image, label = forwards[key]
        assert image.shape == (2, *patch)
        assert label.shape == patch
        assert all(np.array_equal(*pair) for pair in zip(forwards[key], backwards[key], strict=True))
    images = [forwards[key][0].tobytes() for key in keys]
    assert len(set(images)) == len(images)


def test_another_seed_gives_other_items():
    assert not np.array_equal(stream(seed=1)[0, 0][0], stream(seed=2)[0, 0][0])


@pytest.mark.parametrize(
    ("batch_size", "share", "forced"),
    [(1, 0.33, {0}), (2, 0.33, {1}), (3, 0.33, {2}), (5, 0.33, {3, 4}), (12, 0.33, {8, 9, 10, 11}),
     (4, 0.0, set()), (4, 1.0, {0, 1, 2, 3}), (4, 0.01, {3})],
)  # fmt: skip
def test_the_last_positions_of_a_batch_show_a_structure(batch_size, share, forced):
    made = stream(batch_size=batch_size, foreground_share=share)
    assert {p for p in range(batch_size) if made[0, p][1].any()} == forced


def test_batches_hold_tensors_and_keep_what_does_not_count():
    made = stream(augmentation=NNUNET)
    batch = made.collate([made[0, 0], made[0, 1]])
    assert isinstance(batch, PatchBatch)
    assert batch.image.shape == (2, 2, 6, 8, 8)
    assert batch.image.dtype == torch.float32
    assert batch.labels.shape == (2, 6, 8, 8)
    assert batch.labels.dtype == torch.int64
    image, label = np.zeros((1, 4, 4), np.float32), np.full((4, 4), -1, np.int16)
    assert made.collate([(image, label)]).labels.min() == -1


def test_what_augmentation_turns_is_drawn_larger_and_everything_else_is_not():
    for augmentation in (VolumeAugmentation(), NNUNET):
        made = stream(augmentation=augmentation)
        made[0, 0]
        assert made.source.asked == [((6, 8, 8), False, augmentation.enlarged((6, 8, 8)))]
    flat = stream((8, 10), augmentation=NNUNET.for_patch((8, 10)))
    flat[0, 0]
    assert flat.source.asked == [((1, 8, 10), False, (1, *flat.augmentation.enlarged((8, 10))))]


def test_validation_is_fixed_undisturbed_and_every_other_item_shows_a_structure():
    made = stream(augmentation=NNUNET, batch_size=2)
    checking = made.undisturbed(Noise())
    assert [bool(checking[0, index][1].any()) for index in range(6)] == [True, False] * 3
    assert checking.source.asked[0][2] == (6, 8, 8)  # nothing about the patch is needed
    raw, _ = Noise().draw_patch(np.random.default_rng([3, 0, 1]), patch=(6, 8, 8), foreground=False)
    assert np.array_equal(checking[0, 1][0], raw)
    batches = list(validation_loader(FixedItems(checking, 5), batch_size=2))
    assert [len(batch.image) for batch in batches] == [2, 2, 1]


def test_a_resumed_loader_gives_the_batches_of_an_uninterrupted_one():
    def batches(start):
        made = stream(augmentation=NNUNET, batch_size=2)
        return list(training_loader(made, StepBatches(batch_size=2, start=start, total=6)))

    whole, rest = batches(0), batches(4)
    for one, other in zip(whole[4:], rest, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.labels, other.labels)


def test_an_epoch_has_the_steps_that_are_asked_for():
    assert stream(batch_size=3, steps_per_epoch=7).objects == 21


def test_row_26_a_structure_in_no_training_case_is_named_but_validation_may_lack_it():
    lacking = Noise(absent=("tumour",))
    with pytest.raises(DataError, match="no training case holds tumour"):
        LabelledPatches(lacking, (6, 8, 8), 0)
    assert stream().undisturbed(lacking).is_alternating


@pytest.mark.parametrize("wrong", [{"patch": (4,)}, {"patch": (4, 0, 4)}, {"batch_size": 0}, {"foreground_share": 1.1}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        stream(**wrong)
