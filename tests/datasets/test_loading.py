"""Images and labels of a case: channels in order, labels contiguous and on the image's grid."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nibabel import orientations

from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.loading import load_case, load_image, load_label, mapped, on_grid_of, unknown_values
from medmargin.datasets.task import Task
from medmargin.errors import DataError, GeometryError
from medmargin.imaging.volume import Grid, Volume

TASK = Task("toy", ("MRI",), {"organ": 1, "tumour": 2}, original_values={"organ": 4, "tumour": 255})


def _volume(voxels, affine=None):
    return Volume(voxels[None], Grid(voxels.shape, np.eye(4) if affine is None else affine))


def test_image_and_label_of_a_case_share_a_grid(volumes):
    dataset = open_dataset(volumes())
    image, label = load_case(dataset.cases[0], dataset.task)
    assert image.spacing == (1.0, 1.0, 2.5)
    assert label is not None
    assert label.grid.matches(image.grid)
    assert label.voxels.dtype == np.uint8
    assert np.unique(label.voxels).tolist() == [0, 1, 2]


def test_channels_are_stacked_in_the_order_of_the_task(volumes, sound_image):
    folder = volumes(1, channel_names={"1": "T2", "0": "T1"})
    second = sound_image(5)
    nibabel.save(
        nibabel.Nifti1Image(second, np.diag([1.0, 1.0, 2.5, 1.0])), folder / "imagesTr" / "case_0_0001.nii.gz"
    )
    dataset = open_dataset(folder)
    assert dataset.task.channels == ("T1", "T2")
    np.testing.assert_array_equal(load_image(dataset.cases[0], dataset.task).voxels, [sound_image(0), second])


def test_rgb_pictures_are_one_file_of_three_channels(pictures):
    dataset = open_dataset(pictures(rgb=True))
    image, label = load_case(dataset.cases[0], dataset.task)
    assert image.voxels.shape == (3, 16, 12, 1)
    assert label is not None
    assert label.voxels[0, 4:12, 3:7, 0].all()


def test_spacing_is_disowned_where_the_data_set_does_not_know_it(volumes):
    dataset = open_dataset(volumes(1, spacing_known=False))
    image, label = load_case(dataset.cases[0], dataset.task)
    assert label is not None
    assert (image.grid.unit, label.grid.unit, image.grid.voxel_volume_ml) == ("px", "px", None)


def test_a_case_without_label_has_none(volumes):
    dataset = open_dataset(volumes(1))
    case = replace(dataset.cases[0], label=None)
    assert load_case(case, dataset.task)[1] is None
    with pytest.raises(DataError, match="'case_0' has no label"):
        load_label(case, dataset.task)


@given(hnp.arrays(np.int32, (3, 4, 2), elements=st.sampled_from([0, 4, 255])))
def test_file_values_become_contiguous(voxels):
    label = mapped(_volume(voxels), TASK).voxels[0]
    assert label.dtype == np.uint8
    for file_value, value in ((0, 0), (4, 1), (255, 2)):
        np.testing.assert_array_equal(label == value, voxels == file_value)


@given(hnp.arrays(np.int32, (3, 4, 2), elements=st.integers(-3, 6)))
def test_unknown_values_are_counted_and_refused(voxels):
    found = set(np.unique(voxels).tolist()) - {0, 4}
    counts = {value: int((voxels == value).sum()) for value in sorted(found)}
    assert unknown_values(voxels, TASK) == counts
    if counts:
        value, count = next(iter(counts.items()))
        with pytest.raises(DataError, match=rf"{value} \({count} voxels\).*expected 0 \(background\), 4 \(organ\)"):
            mapped(_volume(voxels), TASK)


@given(st.permutations(["LR", "AP", "SI"]), st.tuples(*[st.integers(0, 1)] * 3))
def test_a_label_in_any_axis_order_is_turned_to_its_image(pairs, ends):
    codes = "".join(pair[end] for pair, end in zip(pairs, ends, strict=True))
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = (-5, 7, 11)
    voxels = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    image = _volume(voxels, affine)
    turned = image.reoriented(codes)
    back = on_grid_of(image, turned)
    np.testing.assert_array_equal(back.voxels, image.voxels)
    assert back.grid.matches(image.grid)
    assert bool(back.warnings) == (codes != "RAS")
    assert "".join(orientations.aff2axcodes(back.affine)) == "RAS"


def test_a_real_label_stored_with_a_flipped_axis_fits_its_image(data_root):
    folder = data_root / "broken/derived/flipped_axis_same_world"
    image = nibabel.load(folder / "flipped_axis_same_world_0000.nii.gz")
    label = nibabel.load(folder / "flipped_axis_same_world.nii.gz")
    volumes = [
        Volume(np.asarray(file.dataobj)[None], Grid(file.shape, file.affine), source=folder) for file in (image, label)
    ]
    turned = on_grid_of(*volumes)
    assert turned.grid.matches(volumes[0].grid)
    expected = nibabel.as_closest_canonical(label).get_fdata()[::-1]
    np.testing.assert_array_equal(turned.voxels[0], expected)


def test_another_place_in_space_is_refused():
    shifted = np.eye(4)
    shifted[1, 3] = 12.0
    voxels = np.zeros((2, 3, 4), np.uint8)
    with pytest.raises(GeometryError, match=r"origin .* vs .* mm\. Resample it with 'medmargin data fix"):
        on_grid_of(_volume(voxels), _volume(voxels, shifted))
