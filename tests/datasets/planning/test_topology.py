"""Poolings and kernels."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from medmargin.datasets.planning.topology import SMALLEST_EDGE, padded, topology_for
from medmargin.datasets.planning.unet import UNetShape

_sides = st.lists(st.integers(1, 300), min_size=3, max_size=3)
_pitches = st.lists(st.floats(0.3, 30), min_size=3, max_size=3)


@settings(deadline=None)
@given(_sides, _pitches)
def test_a_padded_patch_is_halved_without_a_remainder(sides, pitches):
    topology = topology_for(sides, pitches)
    patch = padded(sides, topology.divisor)
    assert all(
        side <= larger < side + factor for side, larger, factor in zip(sides, patch, topology.divisor, strict=True)
    )
    network = UNetShape(topology.strides, topology.kernels, (1,) * len(topology.strides), 1, 2)
    for axis in range(3):
        if topology.divisor[axis] > 1:
            assert network.maps(patch)[-1][axis] >= SMALLEST_EDGE
            assert network.maps(patch)[-1][axis] * topology.divisor[axis] == patch[axis]


@settings(deadline=None)
@given(_sides, _pitches)
def test_kernels_grow_once_and_end_at_three(sides, pitches):
    kernels = topology_for(sides, pitches).kernels
    for axis in range(3):
        along = [kernel[axis] for kernel in kernels]
        assert along == sorted(along)
        assert along[-1] == 3


@settings(deadline=None)
@given(_sides, _pitches, st.permutations(range(3)))
def test_the_order_of_the_axes_does_not_matter(sides, pitches, order):
    turned = topology_for([sides[axis] for axis in order], [pitches[axis] for axis in order])
    plain = topology_for(sides, pitches)
    assert turned.strides == tuple(tuple(stage[axis] for axis in order) for stage in plain.strides)
    assert turned.kernels == tuple(tuple(stage[axis] for axis in order) for stage in plain.kernels)


def test_thick_slices_are_pooled_and_mixed_later():
    topology = topology_for((20, 320, 256), (3.6, 0.625, 0.625))
    assert topology.strides[:4] == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert topology.kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))


def test_stages_can_be_capped():
    assert len(topology_for((128, 128, 128), (1, 1, 1), most_stages=4).strides) == 4
    assert topology_for((7, 7), (1, 1)).strides == ((1, 1),)
