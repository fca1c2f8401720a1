"""An image on its network's grid, and back on its own."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmargin.datasets.dataset import open_dataset
from medmargin.datasets.loading import load_case
from medmargin.datasets.planning import Configuration, Normalisation, Plan, Resampling
from medmargin.errors import ConfigError, DataError, GeometryError
from medmargin.imaging import Volume, from_array
from medmargin.transforms import Preparation
from medmargin.transforms.preparation import normalise_channel
from medmargin.transforms.regridding import resampled, to_slices

AXIS_CODES = ["".join(code) for axes in permutations(("LR", "AP", "SI")) for code in product(*axes)]
RAW = Normalisation("MRI", "none")
RNG = np.random.default_rng(0)


def plan_of(
    *spacing: float, schemes: tuple[Normalisation, ...] = (RAW,), crop: bool = False, order=(2, 1, 0), unit="mm"
) -> Plan:
    """Plan one configuration, 3-D or 2-D by the number of spacings."""
    ones = (1,) * len(spacing)
    configuration = Configuration(
        name=f"{len(spacing)}d", spacing=spacing, median_shape=ones, patch=ones, batch_size=1, strides=(ones,),
        kernels=(ones,), features=(8,), channels=len(schemes), classes=2,
    )  # fmt: skip
    return Plan(
        "Toy", 1, "laptop", 1, "float32", unit, order, 1, crop, schemes, Resampling(), (configuration,),
        configuration.name,
    )  # fmt: skip


def prepared(volume: Volume, plan: Plan) -> Preparation:
    return Preparation(volume, plan, plan.configuration())


def volume_of(shape=(5, 6, 7), spacing=(1.0, 1.0, 1.0), channels: int = 1) -> Volume:
    return from_array(RNG.normal(100, 20, (channels, *shape)).astype(np.float32), spacing=spacing, dims=3)


@pytest.mark.parametrize("codes", AXIS_CODES)
def test_every_axis_code_gives_the_same_network_input(codes):
    original = volume_of(spacing=(1.0, 1.5, 3.0))
    found = prepared(original.reoriented(codes), plan_of(2.0, 1.0, 1.0))
    assert np.array_equal(found.voxels, prepared(original, plan_of(2.0, 1.0, 1.0)).voxels)
    assert (found.shape, found.spacing) == ((7, 6, 5), (3.0, 1.5, 1.0))
    assert found.voxels.shape == (1, 10, 9, 5)  # 7 x 3 / 2 = 10.5 is rounded to even


@given(
    st.sampled_from(AXIS_CODES),
    st.permutations(range(3)),
    st.tuples(*[st.floats(0.3, 6)] * 3),
    st.booleans(),
    st.integers(0, 1000),
)
def test_labels_and_maps_come_back_on_the_exact_grid(codes, order, spacing, crop, seed):
    rng = np.random.default_rng(seed)
    voxels = np.pad(rng.integers(1, 100, (3, 4, 5)), 1).astype(np.int16)
    volume = from_array(voxels, spacing=spacing).reoriented(codes)
    found = prepared(volume, plan_of(1.0, 1.0, 1.0, crop=crop, order=tuple(order)))
    assert found.full_shape == tuple((5, 6, 7)[axis] for axis in order)
    assert found.shape == tuple((3, 4, 5)[axis] + 2 * (not crop) for axis in order)
    labels = found.working_map(volume.voxels[0])
    assert np.array_equal(found.restore_labels(labels), volume.voxels[0])
    assert np.array_equal(found.restore_map(labels.astype(np.float32)), volume.voxels[0])
    inside = np.zeros(found.full_shape, np.int16)
    inside[found.box] = labels[found.box]
    assert np.array_equal(found.restore_labels(inside), volume.voxels[0])


def test_the_way_back_and_masks_are_views():
    volume = volume_of().reoriented("PIL")
    found = prepared(volume, plan_of(1.0, 1.0, 1.0))
    labels, values = np.zeros((7, 6, 5), np.uint8), np.zeros((7, 6, 5), np.float32)
    assert np.shares_memory(found.restore_labels(labels), labels)
    assert np.shares_memory(found.restore_map(values), values)
    mask = np.zeros(volume.grid.shape, np.uint8)
    assert np.shares_memory(found.working_map(mask), mask)


def test_the_image_as_read_is_neither_kept_nor_changed():
    volume = volume_of()
    before = volume.voxels.copy()
    scheme = Normalisation("MRI", "zscore")
    found = prepared(volume, plan_of(1.0, 1.0, 1.0, schemes=(scheme,), crop=True))
    assert np.array_equal(volume.voxels, before)
    assert not np.shares_memory(found._working.volume.voxels, volume.voxels)


def test_the_box_holds_the_non_zero_voxels_of_any_channel():
    voxels = np.zeros((2, 8, 9, 10), np.int16)
    voxels[0, 2:5, 3:6, 4:6] = 7
    voxels[1, 3:7, 4:5, 1:5] = -3
    schemes = (RAW, replace(RAW, channel="b"))
    found = prepared(from_array(voxels, dims=3, spacing=(1, 1, 1)), plan_of(1, 1, 1, schemes=schemes, crop=True))
    assert found.box == (slice(1, 6), slice(3, 6), slice(2, 7))
    assert found.shape == (5, 3, 5)
    assert np.array_equal(found.voxels, voxels[:, 2:7, 3:6, 1:6].transpose(0, 3, 2, 1))


def test_only_the_plane_is_resampled_for_a_2d_configuration():
    found = prepared(volume_of(shape=(6, 8, 4), spacing=(1.0, 1.0, 5.0)), plan_of(0.5, 2.0))
    assert found.voxels.shape == (1, 4, 16, 3)


def test_a_picture_stays_as_it_is_seen():
    pixels = RNG.integers(0, 255, (6, 9, 3)).astype(np.uint8)
    schemes = tuple(replace(RAW, channel=name) for name in "RGB")
    plan = plan_of(1.0, 1.0, schemes=schemes, unit="px")
    found = prepared(from_array(pixels, dims=2, spacing=(0.4, 0.4)), plan)
    assert np.array_equal(found.voxels[:, 0], pixels.transpose(2, 0, 1))
    assert found.spacing == (1.0, 1.0, 1.0)  # in a plan without millimetres, whatever the file claims
    labels = (pixels[None, ..., 0] > 99).astype(np.uint8)
    assert np.array_equal(found.restore_labels(labels)[..., 0], labels[0].T)


def test_a_single_slice_keeps_its_axis():
    found = prepared(volume_of(shape=(1, 6, 7)), plan_of(1.0, 1.0, 2.0))
    assert found.voxels.shape == (1, 7, 6, 1)


def test_anisotropic_images_keep_their_slices():
    volume = volume_of(shape=(8, 8, 4), spacing=(1.0, 1.0, 4.0))
    found = prepared(volume, plan_of(2.0, 1.0, 1.0))
    assert found.through == "nearest"
    assert np.array_equal(found.voxels[0], np.repeat(volume.voxels[0].T, 2, axis=0))
    assert prepared(volume_of(spacing=(1.0, 1.0, 2.0)), plan_of(1.0, 1.0, 1.0)).through == "linear"
    sagittal = prepared(volume_of(spacing=(5.0, 1.0, 1.0)), plan_of(1.0, 1.0, 1.0))
    assert sagittal.through == "linear"  # the coarse axis lies in the plane of this plan's slices


def test_row_4_a_sheared_grid_is_made_orthogonal_and_answered_on_its_own():
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[1, 2] = 0.3
    voxels = np.zeros((12, 20, 8), np.int16)
    voxels[3:9, 6:14, 2:6] = 100
    sheared = from_array(voxels, affine=affine)
    found = prepared(sheared, plan_of(1.0, 1.0, 1.0))
    assert any("sheared" in warning for warning in found.warnings)
    label = found.label(sheared.with_voxels((voxels > 0).astype(np.uint8)))
    assert label.shape == found.voxels.shape[1:]
    assert ((found.voxels[0] > 50) == (label > 0)).mean() > 0.98
    restored = found.restore_labels(label)
    assert restored.shape == voxels.shape
    assert 2 * (restored * (voxels > 0)).sum() / (restored.sum() + (voxels > 0).sum()) > 0.9
    assert found.restore_map(np.ones(found.full_shape, np.float32)).max() == 1
    assert found.working_map(voxels > 0).dtype == bool


def test_oblique_grids_are_turned_to_the_closest_axes():
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    volume = from_array(RNG.normal(size=(4, 5, 6)).astype(np.float32), affine=affine)
    found = prepared(volume, plan_of(1.0, 1.0, 1.0))
    assert found.warnings == ()
    assert np.array_equal(found.voxels[0], volume.voxels[0, ::-1].T)


def test_ct_values_are_clipped_and_scaled_by_the_data_sets_figures():
    scheme = Normalisation("CT", "ct", low=-100, high=200, mean=50, standard_deviation=25)
    values = np.array([-1000, -100, 50, 100, 3000], np.float32)
    normalise_channel(values, scheme)
    assert values.tolist() == [-6, -6, 0, 2, 6]


def test_z_scores_are_of_the_whole_image_or_of_its_mask():
    voxels = np.zeros((5, 5, 5), np.float32)
    voxels[1:4, 1:4, 1:4] = 10
    voxels[2, 2, 1] = 37
    voxels[2, 2, 2] = 0  # a hole inside counts
    volume = from_array(voxels, spacing=(1, 1, 1))
    inside = voxels[1:4, 1:4, 1:4]
    mean, deviation = inside.mean(), inside.std()
    masked = prepared(volume, plan_of(1, 1, 1, schemes=(Normalisation("MRI", "zscore", within_mask=True),)))
    expected = np.zeros_like(voxels)
    expected[1:4, 1:4, 1:4] = (inside - mean) / deviation
    np.testing.assert_allclose(masked.voxels[0].T, expected, rtol=1e-5, atol=1e-6)
    whole = prepared(volume, plan_of(1, 1, 1, schemes=(Normalisation("MRI", "zscore"),)))
    np.testing.assert_allclose(whole.voxels[0].T, (voxels - voxels.mean()) / voxels.std(), rtol=1e-5)


def test_z_scores_are_exact_far_from_zero():
    values = (RNG.normal(30000, 2, (40, 250, 250))).astype(np.float32)
    expected = (values.astype(np.float64) - values.mean(dtype=np.float64)) / values.std(dtype=np.float64)
    normalise_channel(values, Normalisation("MRI", "zscore"))
    assert np.abs(values - expected).max() < 1e-3


@pytest.mark.parametrize(
    "scheme", [Normalisation("CT", "ct"), Normalisation("MRI", "minmax"), Normalisation("MRI", "zscore", True)]
)
def test_a_scheme_that_cannot_be_followed_is_refused(scheme):
    with pytest.raises(ConfigError, match=f"normalisation of '{scheme.channel}'"):
        normalise_channel(np.zeros((2, 2, 2), np.float32), scheme)


def test_normalisation_comes_before_resampling():
    voxels = np.zeros((8, 8, 8), np.float32)
    voxels[2:6, 2:6, 2:6] = RNG.normal(100, 20, (4, 4, 4))
    scheme = Normalisation("MRI", "zscore", within_mask=True)
    found = prepared(from_array(voxels, spacing=(1, 1, 1)), plan_of(0.5, 0.5, 0.5, schemes=(scheme,), crop=True))
    inside = voxels[2:6, 2:6, 2:6]
    scored = (inside - inside.mean()) / inside.std()
    assert found.voxels.shape == (1, 8, 8, 8)
    np.testing.assert_allclose(found.voxels[0], resampled(scored.T, (8, 8, 8), order=3), atol=1e-5)


def test_an_unknown_voxel_size_counts_as_one_with_a_warning():
    volume = from_array(RNG.normal(size=(4, 5, 6)).astype(np.float32))
    found = prepared(volume, plan_of(2.0, 1.0, 1.0))
    assert found.voxels.shape == (1, 3, 5, 4)
    assert any("voxel size is unknown" in warning for warning in found.warnings)


def test_labels_keep_every_value_and_follow_the_image():
    voxels = np.pad(RNG.integers(1, 9, (6, 6, 6)), 2).astype(np.int16)
    volume = from_array(voxels, spacing=(1, 1, 2)).reoriented("LPI")
    label = np.zeros_like(voxels)
    label[2:5, 2:5, 2:5], label[5:8, 2:8, 2:8] = 3, 255
    label[0, 0, 0] = 1  # outside the crop
    found = prepared(volume, plan_of(1.0, 1.0, 1.0, crop=True))
    given = from_array(label.astype(np.uint8), spacing=(1, 1, 2)).reoriented("LPI")
    labels = found.label(given)
    assert (labels.dtype, labels.shape) == (np.int16, (12, 6, 6))
    assert np.unique(labels).tolist() == [0, 3, 255]
    assert np.array_equal(labels[1:-1:2, :, 3:], np.full((5, 6, 3), 255))


def test_labels_elsewhere_or_beyond_16_bits_are_refused():
    volume = volume_of()
    found = prepared(volume, plan_of(1.0, 1.0, 1.0))
    with pytest.raises(GeometryError, match="spacing"):
        found.label(from_array(np.zeros((5, 6, 7), np.uint8), spacing=(1, 1, 2)))
    with pytest.raises(DataError, match="65535"):
        found.label(volume.with_voxels(np.full((5, 6, 7), 65535, np.uint16)))
    with pytest.raises(GeometryError, match="working image"):
        found.restore_labels(np.zeros((5, 6, 7), np.uint8))


def test_other_channels_than_planned_are_refused_by_name():
    plan = plan_of(1, 1, 1, schemes=(replace(RAW, channel="T1"), replace(RAW, channel="FLAIR")))
    with pytest.raises(DataError, match=r"3 channels, but 'Toy' is planned for 2 \(T1, FLAIR\)"):
        prepared(volume_of(channels=3), plan)


def test_row_11_a_picture_is_refused_by_a_3d_network():
    with pytest.raises(DataError, match="a picture"):
        prepared(from_array(np.eye(4, dtype=np.uint8)), plan_of(1.0, 1.0, 1.0))


def test_rows_1_and_2_images_without_numbers_or_signal_are_refused():
    voxels = RNG.normal(size=(4, 4, 4))
    voxels[:2] = np.nan
    for faulty, message in ((voxels, "NaN"), (np.full((4, 4, 4), 7.0), "no signal")):
        with pytest.raises(DataError, match=message):
            prepared(from_array(faulty, spacing=(1, 1, 1)), plan_of(1.0, 1.0, 1.0))


def test_hippocampus_labels_survive_another_spacing(data_root):
    dataset = open_dataset(data_root / "Dataset004_Hippocampus")
    scores = []
    for case in dataset.cases[:5]:
        image, label = load_case(case, dataset.task)
        found = prepared(image, plan_of(0.8, 0.7, 0.9, schemes=(Normalisation("MRI", "zscore"),), crop=True))
        labels = found.label(label)
        assert labels.shape == found.voxels.shape[1:]
        shares = np.stack([labels == value for value in range(3)]).astype(np.float32)  # a network's perfect answer
        answer = np.zeros(found.full_shape, np.uint8)
        stream = ((z, shares[:, z]) for z in range(len(labels)))
        for z, one in to_slices(stream, labels.shape, found.shape, through=found.through):
            answer[found.box][z] = one.argmax(axis=0)
        restored = found.restore_labels(answer)
        assert restored.shape == label.grid.shape
        for value in (1, 2):
            a, b = restored == value, label.voxels[0] == value
            scores.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert min(scores) > 0.97
