"""Prepared volumes: what is drawn from them and how often, when they are made again, and what a kill leaves behind."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import time
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.datasets.case import Case
from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.planning import Configuration, Normalisation, Plan, Resampling
from medmargin.datasets.task import Task
from medmargin.errors import BudgetError, ConfigError, DataError, MissingExtraError
from medmargin.learning import cache_volumes, cached_volumes, volume_cache
from medmargin.learning.cached_volumes import CachedCase, CachedVolumes, _drawn_corner
from medmargin.learning.volume_cache import chunk_shape

SHAPE = (20, 18, 14)  # (R, A, S) = (D, H, W) of the plans here
PATCH = (8, 8, 8)


def plan_of(*, patch=PATCH, spacing=None, scheme="none", channels=("MRI",)) -> Plan:
    sides = len(patch)
    configuration = Configuration(
        name="3d_fullres" if sides == 3 else "2d", spacing=spacing or (1.0,) * sides, median_shape=SHAPE[-sides:],
        patch=patch, batch_size=2, strides=((1,) * sides,), kernels=((3,) * sides,), features=(4,),
        channels=len(channels), classes=3,
    )  # fmt: skip
    return Plan(
        dataset="Toy", cases=1, scale="laptop", memory=2**30, precision="float32", unit="mm", axis_order=(0, 1, 2),
        slices=SHAPE[0], crop=False, normalisation=tuple(Normalisation(name, scheme) for name in channels),
        resampling=Resampling(), configurations=(configuration,), chosen=configuration.name,
    )  # fmt: skip


TASK = Task("Toy", ("MRI",), {"big": 1, "small": 2}, plan=plan_of())


def case_of(folder, name: str, *, label=None, image=None, labelled=True) -> Case:
    """An image whose values tell the place of each voxel, with a large and a small structure."""
    if image is None:
        image = (np.arange(np.prod(SHAPE)) % 2000 + 1).reshape(SHAPE).astype(np.float32)
    if label is None:
        label = np.zeros(image.shape, np.uint8)
        label[2:14, 3:12, 2:9] = 1
        label[17:19, 15, 11:13] = 2
    paths = [folder / f"{name}_{kind}.nii.gz" for kind in ("image", "label")]
    for path, voxels in zip(paths, (image, label), strict=True):
        nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(path)
    return Case(name, name, (paths[0],), paths[1] if labelled else None)


def cached(folder, *cases, task=TASK):
    return cache_volumes(cases, task, folder / "cache", progress=False)


def drawn(source, count=300, *, patch=PATCH, foreground=True, **options):
    return [
        source.draw_patch(np.random.default_rng(seed), patch=patch, foreground=foreground, **options)
        for seed in range(count)
    ]


@pytest.mark.parametrize("held", [True, False])
def test_a_patch_is_what_lies_there(tmp_path, monkeypatch, held):
    if not held:
        monkeypatch.setattr(cached_volumes, "HELD_BYTES", 0)
    case = case_of(tmp_path, "a")
    source = cached(tmp_path, case)
    voxels = np.asanyarray(nibabel.load(case.images[0]).dataobj)
    labels = np.asanyarray(nibabel.load(case.label).dataobj)
    corners = set()
    for image, label in drawn(source, 60, foreground=False):
        assert (image.dtype, label.dtype) == (np.float32, np.int16)
        first = int(np.flatnonzero(voxels.ravel() == image[0, 0, 0, 0])[0])
        candidates = [first, first + 2000, first + 4000]
        places = [np.unravel_index(place, SHAPE) for place in candidates if place < voxels.size]
        boxes = [tuple(slice(low, low + 8) for low in place) for place in places]
        assert any(np.array_equal(voxels[box], image[0]) and np.array_equal(labels[box], label) for box in boxes)
        corners.add(places[0])
    assert len(corners) > 20
    assert bool(source._held) == held


def test_structures_of_a_case_are_equally_often_in_the_middle(tmp_path):
    source = cached(tmp_path, case_of(tmp_path, "a"))
    values = [int(label[4, 4, 4]) for _, label in drawn(source, 400, patch=(8, 8, 8))]
    # The small structure is near the corner: there the patch is kept inside and its centre moves.
    assert np.mean([bool((label == 2).any()) for _, label in drawn(source, 400)]) == pytest.approx(0.5, abs=0.08)
    assert np.mean([value == 1 for value in values]) == pytest.approx(0.5, abs=0.08)
    shares = np.mean([bool((label == 2).any()) for _, label in drawn(source, 400, foreground=False)])
    assert shares < 0.3


def test_what_is_about_a_patch_does_not_move_it(tmp_path):
    source = cached(tmp_path, case_of(tmp_path, "a"))
    for foreground in (True, False):
        small = drawn(source, 20, foreground=foreground)
        large = drawn(source, 20, foreground=foreground, enlarged=(12, 16, 9))
        for (image, label), (more, more_label) in zip(small, large, strict=True):
            assert more.shape == (1, 12, 16, 9)
            assert np.array_equal(more[:, 2:10, 4:12, :8], image)
            assert np.array_equal(more_label[2:10, 4:12, :8], label)
            assert np.array_equal(more_label < 0, more[0] == 0)  # every voxel of the image is above 0


@pytest.mark.parametrize("shape", [(5, 18, 14), (1, 18, 14), (3, 4, 5)])
def test_row_32_images_smaller_than_the_patch_lie_in_its_middle(tmp_path, shape):
    label = np.zeros(shape, np.uint8)
    label[0, 1, 1], label[0, 2, 2] = 1, 2
    source = cached(
        tmp_path,
        case_of(tmp_path, "a", image=np.arange(1, label.size + 1, dtype=np.float32).reshape(shape), label=label),
    )
    for image, labels in drawn(source, 20):
        assert image.shape == (1, *PATCH)
        assert np.array_equal(labels < 0, image[0] == 0)
        for axis in range(3):
            filled = np.flatnonzero((labels >= 0).any(axis=tuple(other for other in range(3) if other != axis)))
            assert len(filled) == min(shape[axis], 8)
            assert abs(filled[0] - (7 - filled[-1])) <= 1


@given(side=st.integers(1, 60), patch=st.integers(1, 60), centre=st.integers(0, 59), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_patches_overhang_small_images_only(side, patch, centre, seed):
    for place in (None, min(centre, side - 1)):
        corner = _drawn_corner(side, patch, place, np.random.default_rng(seed))
        overhang = [max(-corner, 0), max(corner + patch - side, 0)]
        assert sum(overhang) == max(patch - side, 0)
        assert abs(overhang[0] - overhang[1]) <= 1 or side > patch
        if place is not None and side >= patch:
            assert corner <= place < corner + patch


def test_every_position_of_a_random_patch_is_as_likely(tmp_path):
    rng = np.random.default_rng(0)
    counts = np.bincount([_drawn_corner(12, 8, None, rng) for _ in range(5000)])
    assert len(counts) == 5
    assert counts.min() > 900


def test_two_dimensional_patches_are_slices_and_chunks_are_too(tmp_path):
    task = replace(TASK, plan=plan_of(patch=(8, 8)))
    source = cached(tmp_path, case_of(tmp_path, "a"), task=task)
    image, label = drawn(source, 1, patch=(1, 8, 8))[0]
    assert image.shape == (1, 1, 8, 8)
    assert label.any()
    assert chunk_shape((100, 512, 512), (512, 512)) == (1, 362, 362)


@given(shape=st.tuples(*[st.integers(1, 3000)] * 3), patch=st.tuples(*[st.integers(1, 512)] * 3))
def test_chunks_fit_image_and_patch_and_hold_about_as_much(shape, patch):
    chunk = chunk_shape(shape, patch)
    most = [min(pair) for pair in zip(shape, patch, strict=True)]
    assert all(1 <= side <= limit for side, limit in zip(chunk, most, strict=True))
    assert np.prod(chunk) <= 1.1 * 2**17
    assert np.prod(chunk) >= min(np.prod(most, dtype=float), 2**16)


def test_ignored_voxels_do_not_count_and_random_patches_seek_labelled_ones(tmp_path):
    label = np.full(SHAPE, 3, np.uint8)
    label[10:14, 8:12, 5:9] = 0
    label[11, 9, 6], label[12, 10, 7] = 1, 2
    task = replace(TASK, ignore=3)
    source = cached(tmp_path, case_of(tmp_path, "a", label=label), task=task)
    for foreground in (True, False):
        for _, labels in drawn(source, 40, foreground=foreground):
            assert labels.max() <= 2
            assert (labels >= 0).any()
    assert source.entries[0].places[0] == (2, 66)  # after one voxel of each structure


def test_regions_are_drawn_as_such(tmp_path):
    """Value 2 lies in both regions: drawing a region first takes it more often than drawing a value would."""
    label = np.zeros(SHAPE, np.uint8)
    label[5:15, 5:13, 4:10] = 1
    label[9:11, 8:10, 6:8] = 2
    task = Task("Toy", ("MRI",), {"whole": 1, "core": 2}, regions={"whole": (1, 2), "core": (2,)}, plan=plan_of())
    source = cached(tmp_path, case_of(tmp_path, "a", label=label), task=task)
    ends = source.entries[0].places
    assert ends[1] == (0, 480)
    assert ends[2] == (480, 488)
    assert source.absent == ()


def test_many_voxels_of_a_structure_are_sampled_always_alike(tmp_path, monkeypatch):
    monkeypatch.setattr("medmargin.learning.volume_cache.PLACES", 50)
    case = case_of(tmp_path, "a")
    first, second = (cache_volumes([case], TASK, tmp_path / name, progress=False) for name in ("one", "other"))
    assert first.entries == second.entries
    places = [np.load(source.folder / "00000.places.npy") for source in (first, second)]
    assert np.array_equal(*places)
    assert first.entries[0].places == {1: (0, 50), 2: (50, 54)}
    labels = np.asanyarray(nibabel.load(case.label).dataobj)
    assert (labels[tuple(places[0].T)] == [1] * 50 + [2] * 4).all()
    assert len(np.unique(places[0], axis=0)) == 54


def test_cases_are_drawn_equally_often_and_empty_ones_too(tmp_path):
    empty = case_of(tmp_path, "empty", label=np.zeros(SHAPE, np.uint8))
    source = cached(tmp_path, case_of(tmp_path, "a"), empty)
    assert source.objects == source.cases == 2
    shown = np.mean([bool((label > 0).any()) for _, label in drawn(source, 400)])
    assert shown == pytest.approx(0.5, abs=0.08)


def test_row_25_labels_that_are_all_empty_are_refused(tmp_path):
    with pytest.raises(DataError, match="every label of the 2 cases is empty"):
        cached(tmp_path, *(case_of(tmp_path, name, label=np.zeros(SHAPE, np.uint8)) for name in "ab"))


def test_a_structure_that_no_case_holds_is_known(tmp_path):
    label = np.zeros(SHAPE, np.uint8)
    label[3:6, 3:6, 3:6] = 1
    assert cached(tmp_path, case_of(tmp_path, "a", label=label)).absent == ("small",)


def test_what_goes_wrong_names_the_case_and_stops(tmp_path):
    with pytest.raises(DataError, match="case 'b': no label"):
        cached(tmp_path, case_of(tmp_path, "a"), case_of(tmp_path, "b", labelled=False))
    broken = case_of(tmp_path, "broken")
    broken.images[0].write_bytes(broken.images[0].read_bytes()[:200])
    with pytest.raises(DataError, match="broken"):
        cached(tmp_path, case_of(tmp_path, "a"), broken)
    with pytest.raises(DataError, match=r"planned.*\(T1, T2\)") as caught:
        cached(tmp_path, case_of(tmp_path, "few"), task=replace(TASK, plan=plan_of(channels=("T1", "T2"))))
    assert "few" in str(caught.value)


def test_an_unforeseen_error_says_which_case_it_was(tmp_path, monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("medmargin.learning.volume_cache.Preparation", fail)
    with pytest.raises(ZeroDivisionError) as caught:
        cached(tmp_path, case_of(tmp_path, "odd"))
    assert "odd" in caught.value.__notes__[0]


def test_a_task_without_a_plan_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="data plan"):
        cached(tmp_path, case_of(tmp_path, "a"), task=replace(TASK, plan=None))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises((BudgetError, OSError), match="cache"):
        cached(tmp_path, case_of(tmp_path, "a"))


def test_prepared_cases_are_used_again_until_something_changes(tmp_path):
    case, other = case_of(tmp_path, "a"), case_of(tmp_path, "b")
    image = tmp_path / "cache" / "00000.image.b2nd"

    def stamp(task=TASK):
        source = cached(tmp_path, case, other, task=task)
        return image.stat().st_mtime_ns, source

    first, source = stamp()
    again, copy = stamp()
    assert again == first
    assert copy == source
    batch = replace(TASK.plan.configuration(), batch_size=9)
    assert stamp(replace(TASK, plan=replace(TASK.plan, configurations=(batch,))))[0] == first  # changes no voxel
    changed = [
        replace(TASK, plan=plan_of(spacing=(1.0, 1.0, 2.0))),
        replace(TASK, plan=plan_of(scheme="zscore")),
        replace(TASK, plan=replace(TASK.plan, crop=True)),
        replace(TASK, plan=replace(TASK.plan, axis_order=(2, 1, 0))),
        replace(TASK, plan=replace(TASK.plan, resampling=Resampling(image_order=1))),
        replace(TASK, regions={"big": (1, 2)}),
        replace(TASK, ignore=3),
    ]
    last = first
    for task in changed:
        now, _ = stamp(task)
        assert now > last
        last, _ = stamp()
    last, _ = stamp(changed[-1])
    untouched = (tmp_path / "cache" / "00001.image.b2nd").stat().st_mtime_ns
    os.utime(case.images[0])
    assert stamp(changed[-1])[0] > last
    assert (tmp_path / "cache" / "00001.image.b2nd").stat().st_mtime_ns == untouched  # only that case


@pytest.mark.parametrize("name", ["00000.image.b2nd", "00000.label.b2nd", "00000.places.npy", "00000.json"])
def test_a_damaged_or_missing_file_is_made_again(tmp_path, name):
    case = case_of(tmp_path, "a")
    expected = drawn(cached(tmp_path, case), 5)
    path = tmp_path / "cache" / name
    whole = path.read_bytes()
    for damage in (lambda: path.write_bytes(whole[: len(whole) // 2]), path.unlink):
        damage()
        found = drawn(cached(tmp_path, case), 5)
        for one, two in zip(expected, found, strict=True):
            assert all(np.array_equal(*pair) for pair in zip(one, two, strict=True))


def test_a_file_damaged_while_it_is_in_use_is_named(tmp_path):
    source = cached(tmp_path, case_of(tmp_path, "a"))
    path = source.folder / "00000.image.b2nd"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"case 'a'.*damaged"):
        drawn(source, 1)


def test_old_facts_never_describe_new_files(tmp_path, monkeypatch):
    """Killed after the image of another plan was written: going back to the first plan prepares again."""
    case = case_of(tmp_path, "a")
    expected = drawn(cached(tmp_path, case), 3)
    monkeypatch.setattr("medmargin.learning.volume_cache.write_json", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        cached(tmp_path, case, task=replace(TASK, plan=plan_of(scheme="zscore")))
    monkeypatch.undo()
    assert not (tmp_path / "cache" / "00000.json").exists()
    for one, two in zip(expected, drawn(cached(tmp_path, case), 3), strict=True):
        assert np.array_equal(one[0], two[0])


def preparing_slowly(folder, cases) -> int:
    """Prepare cases in a forked process, each array 0.2 s late; return its process number."""
    if process := os.fork():
        return process
    writing = volume_cache._write_chunks

    def slow(*arguments):
        time.sleep(0.2)
        writing(*arguments)

    volume_cache._write_chunks = slow
    try:
        cached(folder, *cases)
    except KeyboardInterrupt:
        os._exit(130)
    finally:
        os._exit(1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_preparation_that_is_killed_or_interrupted_goes_on_where_it_stopped(tmp_path, how):
    cases = [case_of(tmp_path, name) for name in "abcdef"]
    process = preparing_slowly(tmp_path, cases)
    facts, image = (tmp_path / "cache" / f"00001.{kind}" for kind in ("json", "image.b2nd"))
    deadline = time.monotonic() + 20
    while not facts.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process, how)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert not (tmp_path / "cache" / "00005.json").exists()
    before = facts.stat().st_mtime_ns, image.stat().st_mtime_ns
    source = cached(tmp_path, *cases)
    assert (facts.stat().st_mtime_ns, image.stat().st_mtime_ns) == before
    assert source.cases == 6
    assert all(image.any() for image, _ in drawn(source, 30))


def test_a_copy_in_a_loading_process_draws_the_same_and_carries_no_voxels(tmp_path):
    source = cached(tmp_path, case_of(tmp_path, "a"))
    drawn(source, 1)
    packed = pickle.dumps(source)
    assert len(packed) < 2000
    for one, two in zip(drawn(source, 4), drawn(pickle.loads(packed), 4), strict=True):
        assert all(np.array_equal(*pair) for pair in zip(one, two, strict=True))


def test_no_more_is_held_than_allowed_and_numbers_do_not_depend_on_it(tmp_path, monkeypatch):
    cases = [case_of(tmp_path, name) for name in "abc"]
    source = cached(tmp_path, *cases)
    everything = drawn(source, 30)
    assert len(source._held) == 3
    monkeypatch.setattr(cached_volumes, "HELD_BYTES", 2 * source.entries[0].bytes)
    source = cached(tmp_path, *cases)
    for one, two in zip(everything, drawn(source, 30), strict=True):
        assert all(np.array_equal(*pair) for pair in zip(one, two, strict=True))
    assert len(source._held) == 2


def test_values_too_large_for_half_precision_are_kept_whole(tmp_path):
    image = np.linspace(1, 70_000, np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    source = cached(tmp_path, case_of(tmp_path, "a", image=image))
    values = np.concatenate([drawn_image.ravel() for drawn_image, _ in drawn(source, 10)])
    assert np.isin(values, image).all()


def test_warnings_of_a_preparation_are_kept(tmp_path):
    image = np.arange(1, np.prod(SHAPE) + 1, dtype=np.float32).reshape(SHAPE)
    image[0, 0, 0] = np.nan
    case = case_of(tmp_path, "a", image=image)
    for _ in range(2):  # made, then read back
        assert any("case 'a'" in warning for warning in cached(tmp_path, case).warnings)


def test_entries_list_structures_without_the_labelled_voxels():
    entry = CachedCase("a", 0, {1: (0, 3), 0: (3, 9)}, (1, 2, 3), 10)
    assert entry.structures == [1]
    assert CachedVolumes("folder", (entry,)).objects == 1


def test_without_blosc2_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("medmargin.learning")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "blosc2", None)
    with pytest.raises(MissingExtraError, match=r"'blosc2'.*medmargin\[train\]"):
        importlib.import_module("medmargin.learning")


def test_real_volumes_are_prepared(data_root, tmp_path):
    dataset = open_dataset(data_root / "Dataset004_Hippocampus")
    plan = replace(plan_of(patch=(40, 56, 40), scheme="zscore"), dataset="Hippocampus")
    source = cached(tmp_path, *dataset.cases[:3], task=replace(dataset.task, plan=plan))
    assert source.absent == ()
    for image, label in drawn(source, 6, patch=(40, 56, 40)):
        inside = label >= 0
        assert set(np.unique(label)) == {-1, 0, 1, 2}
        assert abs(image[0][inside].mean()) < 0.1
        assert not image[0][~inside].any()
