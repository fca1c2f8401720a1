"""Plans as a whole: normalisation, memory, the user's choices, storing and reading back."""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmargin.datasets.planning import LAPTOP, PAPER, Plan, make_plan, read_overrides, scale_named
from medmargin.errors import BudgetError, ConfigError

_CT = {"shape": (512, 512, 252), "spacing": (0.785, 0.785, 1.245), "channels": ["CT"], "cases": 63, "modality": "CT"}


def _planned(fingerprint, *, scale=PAPER, dims=None, **choices):
    return make_plan(fingerprint, scale=scale, dims=dims, overrides=read_overrides(choices))


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 700), min_size=3, max_size=3),
    spacing=st.lists(st.floats(0.2, 20), min_size=3, max_size=3),
    scale=st.sampled_from([PAPER, LAPTOP]),
)
def test_every_plan_fits_its_memory_and_its_own_rules(fingerprint, shape, spacing, scale):
    plan = make_plan(fingerprint(shape, spacing, cases=20), scale=scale)
    for one in plan.configurations:
        assert one.training_bytes(plan.precision) <= scale.memory
        assert one.batch_size >= 2
        assert len(one.strides) == len(one.kernels) == len(one.features)
        assert all(side % prod(column) == 0 for side, column in zip(one.patch, zip(*one.strides), strict=True))  # noqa: B905
        assert set(one.reasons) >= {"patch", "batch_size", "strides", "kernels", "features"}
    assert Plan.from_json(plan.to_json()) == plan
    assert set(plan.reasons) >= {"axis_order", "spacing", "configuration", "crop", "resampling"}


def test_ct_is_clipped_and_scored_with_the_data_sets_statistics(fingerprint):
    (channel,) = make_plan(fingerprint(**_CT)).normalisation
    assert (channel.scheme, channel.low, channel.high) == ("ct", -20.0, 200.0)
    assert (channel.mean, channel.standard_deviation) == (50.0, 30.0)


def test_only_the_ct_channel_of_pet_ct_is_hounsfield(fingerprint):
    plan = make_plan(fingerprint(channels=["CT", "PET"], modality="CT"))
    assert [channel.scheme for channel in plan.normalisation] == ["ct", "zscore"]


@pytest.mark.parametrize(("kept", "masked"), [(0.74, True), (0.75, False), (1.0, False)])
def test_other_images_are_scored_within_their_mask_where_cropping_removes_a_quarter(fingerprint, kept, masked):
    (channel,) = make_plan(fingerprint(kept=kept)).normalisation
    assert (channel.scheme, channel.within_mask, channel.mean) == ("zscore", masked, None)


def test_the_laptop_prefers_the_whole_image_to_full_resolution(fingerprint):
    plan = make_plan(fingerprint(**_CT), scale=LAPTOP)
    chosen = plan.configuration()
    assert chosen.name == "3d_lowres"
    assert max(chosen.features) == 128
    assert len(chosen.features) == 4


def test_a_huge_anisotropy_is_planned_flat(fingerprint):
    chosen = make_plan(fingerprint((512, 512, 12), (0.3, 0.3, 15.0))).configuration()
    assert chosen.turns_in_plane_only
    assert all(kernel[0] == 1 for kernel in chosen.kernels[:4])
    assert chosen.patch[0] <= 12


def test_less_memory_gives_a_smaller_plan(fingerprint):
    small, large = (
        make_plan(fingerprint(**_CT), scale=scale_named("paper", memory=memory)).configuration("3d_fullres")
        for memory in (4 * 2**30, 16 * 2**30)
    )
    assert prod(small.patch) < 2 * 2**20 < prod(large.patch)


def test_too_little_memory_is_refused_with_the_estimate(fingerprint):
    with pytest.raises(BudgetError, match=r"smallest patch.*needs about \d.*--memory"):
        make_plan(fingerprint(), scale=scale_named("laptop", memory=2**20))


def test_choices_are_taken_and_called_so(fingerprint):
    plan = _planned(
        fingerprint(**_CT), configuration="3d_fullres", spacing="2.5,1.5,1.5", normalisation="zscore", crop="false",
        resampling="whole", base_features="16", batch_size="3", patch="64,128,128",
    )  # fmt: skip
    chosen = plan.configuration()
    assert (chosen.spacing, chosen.patch, chosen.batch_size) == ((2.5, 1.5, 1.5), (64, 128, 128), 3)
    assert chosen.features[0] == 16
    assert chosen.median_shape == (125, 268, 268)
    assert (plan.crop, plan.resampling.slicewise_beyond, plan.normalisation[0].scheme) == (False, None, "zscore")
    assert {plan.reasons["spacing"], plan.reasons["crop"], chosen.reasons["patch"]} == {"asked for"}
    assert chosen.reasons["kernels"] != "asked for"


def test_a_network_of_ones_own_is_taken(fingerprint):
    plan = _planned(
        fingerprint(), strides="1,1,1/2,2,2/1,2,2", kernels="3,3,3/3,3,3/1,3,3", features="8,16,24", patch="40,56,40"
    )
    chosen = plan.configuration()
    assert chosen.strides == ((1, 1, 1), (2, 2, 2), (1, 2, 2))
    assert chosen.features == (8, 16, 24)
    assert chosen.kernels[-1] == (1, 3, 3)


def test_a_patch_the_poolings_do_not_divide_is_answered_with_the_nearest(fingerprint):
    with pytest.raises(ConfigError, match=r"patch 41 x 56 x 40.*divisible by 8 x 8 x 8.*patch=40,56,40"):
        _planned(fingerprint(), patch="41,56,40")
    assert _planned(fingerprint(), patch="40,56,40").configuration().patch == (40, 56, 40)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(4, 80), min_size=3, max_size=3))
def test_the_nearest_patch_is_always_accepted(fingerprint, patch):
    try:
        _planned(fingerprint(), patch=patch, batch_size=1)
    except ConfigError as error:
        nearest = str(error).rpartition("patch=")[2]
        assert _planned(fingerprint(), patch=nearest, batch_size=1).configuration().patch == tuple(
            map(int, nearest.split(","))
        )


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"pach": "1,1,1"}, "no choice 'pach'; nearest: patch"),
        ({"patch": "64,64"}, "2 numbers for a 3-D network"),
        ({"patch": "a,b,c"}, "patch=a,b,c: expected whole numbers"),
        ({"patch": "-8,8,8"}, "expected whole numbers above 0"),
        ({"batch_size": "0"}, "batch_size=0"),
        ({"batch_size": "2.5"}, "batch_size=2.5"),
        ({"crop": "perhaps"}, "expected true or false"),
        ({"axis_order": "2,1,1"}, "axis_order=2,1,1"),
        ({"normalisation": "ct,ct"}, "2 schemes for 1 channels"),
        ({"normalisation": "windowed"}, "ct, zscore, none"),
        ({"features": "8,16"}, "2 numbers for 4 stages"),
        ({"strides": "2,2,2/2,2,2"}, "first stage keeps the resolution"),
        ({"strides": "1,1/2,2"}, "expected 3 numbers in each stage"),
        ({"kernels": "2,2,2/3,3,3/3,3,3/3,3,3"}, "even ones"),
        ({"kernels": "3,3,3"}, "kernels: 1 stages, but the strides have 4"),
        ({"spacing": "1"}, "1 numbers; expected 3"),
        ({"configuration": "3d_lowres"}, "not planned for these images.*covers 100%"),
        ({"patch": "1,1,1"}, "a single voxel"),
    ],
)
def test_choices_that_make_no_sense_are_named(fingerprint, choices, message):
    with pytest.raises(ConfigError, match=message):
        _planned(fingerprint(), **choices)


def test_choices_beyond_the_memory_are_refused_with_the_estimate(fingerprint):
    with pytest.raises(BudgetError, match=r"patches of 256 x 256 x 256 with 4 samples needs about \d+\.\d+ GB"):
        _planned(fingerprint(), patch="256,256,256", batch_size="4")


def test_an_unknown_voxel_size_is_told(fingerprint):
    found = fingerprint()
    unknown = replace(found, task=replace(found.task, unit="px"))
    assert "voxel size is unknown" in make_plan(unknown).reasons["spacing"]
    assert "unknown" not in make_plan(found).reasons["spacing"]


def test_one_slice_has_no_volumes_to_plan(fingerprint):
    pictures = fingerprint((64, 64, 1))
    with pytest.raises(ConfigError, match="one slice"):
        _planned(pictures, dims=3)
    with pytest.raises(ConfigError, match="one slice"):
        _planned(pictures, configuration="3d_fullres")


def test_dimensions_narrow_the_plan(fingerprint):
    assert [one.name for one in _planned(fingerprint(), dims=2).configurations] == ["2d"]
    assert [one.name for one in _planned(fingerprint(), dims=3).configurations] == ["3d_fullres"]
    with pytest.raises(ConfigError, match="is 3-D, but 2 dimensions"):
        _planned(fingerprint(), dims=2, configuration="3d_fullres")
    with pytest.raises(ConfigError, match="dims 4"):
        _planned(fingerprint(), dims=4)


def test_a_stored_plan_is_read_strictly(fingerprint):
    stored = json.loads(make_plan(fingerprint()).to_json())
    for wrong, message in (
        ({"axis_order": [2, 1]}, "axis_order"),
        ({"surprise": 1}, "surprise"),
        ({"chosen": "4d"}, "configuration '4d'"),
    ):
        with pytest.raises(ConfigError, match=message):
            Plan.from_json(json.dumps(stored | wrong))
    with pytest.raises(ConfigError, match="file"):
        Plan.from_json("not JSON")


def test_the_scale_is_looked_up_by_name():
    assert scale_named("laptop") is LAPTOP
    assert scale_named("paper", memory=5) == replace(PAPER, memory=5)
    with pytest.raises(ConfigError, match="paper or laptop"):
        scale_named("cluster")
