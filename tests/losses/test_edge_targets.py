"""Edge targets against morphology and distance transforms made elsewhere, and on masks that usually break."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, generate_binary_structure, maximum_filter, minimum_filter
from torch import Tensor

from medmargin.errors import ConfigError
from medmargin.losses.edge_targets import (
    EDGE_KINDS,
    EdgeTargets,
    edge_balance,
    edge_distance,
    edge_proximity,
    label_edges,
    pooled,
)

_LABEL_MAPS = arrays(np.int64, st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))


def _disc(side: int = 64, radius: float = 20.0) -> Tensor:
    row, column = np.indices((side, side)) - side / 2
    return torch.from_numpy(np.hypot(row, column) <= radius).long()[None]


@given(_LABEL_MAPS)
@settings(max_examples=100, deadline=None)
def test_label_edges_are_where_neighbourhood_maximum_and_minimum_differ(labels: NDArray[np.int64]) -> None:
    star = generate_binary_structure(2, 1)
    highest, lowest = (f(labels[0], footprint=star, mode="nearest") for f in (maximum_filter, minimum_filter))
    np.testing.assert_array_equal(label_edges(torch.from_numpy(labels))[0].numpy(), highest != lowest)


@given(_LABEL_MAPS, st.sampled_from(EDGE_KINDS))
@settings(max_examples=100, deadline=None)
def test_every_kind_is_finite_and_names_of_classes_do_not_matter(labels: NDArray[np.int64], kind: str) -> None:
    found = EdgeTargets(kind)(torch.from_numpy(labels))
    for values in (found.target, found.proximity):
        assert values.shape == labels.shape
        assert values.dtype == torch.float32
        assert ((values >= 0) & (values <= 1)).all()
    renamed = EdgeTargets(kind)(torch.from_numpy(3 * labels + 5))
    assert torch.equal(renamed.target, found.target)
    assert torch.isfinite(edge_balance(found.target)).all()


@pytest.mark.parametrize("kind", EDGE_KINDS)
@pytest.mark.parametrize("label", [0, 2])
def test_an_image_of_one_class_has_no_edge(kind: str, label: int) -> None:
    found = EdgeTargets(kind)(torch.full((2, 12, 12), label))
    assert not found.target.any()
    assert not found.proximity.any()
    assert (edge_balance(found.target) == 0.5).all()


@pytest.mark.parametrize("kind", EDGE_KINDS)
def test_every_kind_lies_along_the_border(kind: str) -> None:
    labels = _disc()
    target = EdgeTargets(kind, radius=8)(labels).target[0].numpy()
    inside = labels[0].numpy() > 0
    to_border = distance_transform_edt(inside) + distance_transform_edt(~inside)
    assert target[to_border > 8].max() < 0.1
    near = to_border <= 1
    assert (target[near] > 0.3).mean() == {"canny": pytest.approx(0.5, abs=0.15)}.get(kind, 1.0)


def test_kinds_differ_in_width_as_documented() -> None:
    labels = _disc(256, 80)
    area = {kind: EdgeTargets(kind, radius=2)(labels).target.sum().item() for kind in EDGE_KINDS}
    assert area["canny"] < area["labels"] < area["sobel"] < area["band"]


def test_every_kind_finds_objects_of_one_pixel_and_at_the_border(edge_mask: NDArray[np.bool_]) -> None:
    labels = torch.from_numpy(edge_mask).long()[None]
    is_one_class = edge_mask.all() or not edge_mask.any()
    for kind in EDGE_KINDS:
        assert EdgeTargets(kind, radius=30)(labels).target.any() != is_one_class, kind


def test_distance_and_proximity_match_another_transform() -> None:
    edges = label_edges(_disc())
    expected = distance_transform_edt(~edges[0].numpy())
    np.testing.assert_allclose(edge_distance(edges)[0].numpy(), expected, rtol=1e-6)
    proximity = edge_proximity(edge_distance(edges), 5.0)[0].numpy()
    np.testing.assert_allclose(proximity, np.exp(-(expected**2) / 50), rtol=1e-4)
    assert (edge_distance(torch.zeros(1, 3, 3, dtype=torch.bool)) == math.inf).all()


def test_lengths_grow_with_the_image() -> None:
    for side in (64, 256, 512):
        labels = torch.zeros(1, side, side, dtype=torch.int64)
        labels[:, :, side // 2 :] = 1
        found = EdgeTargets("band", radius=8, sigma=16)(labels)
        row = found.proximity[0, 0]
        at = side // 2 + side // 16  # 16 px of 256 beyond the first edge pixel of the right half
        assert row[at].item() == pytest.approx(math.exp(-0.5), rel=1e-5)
        assert found.target[0, 0].sum().item() == 2 + 2 * (8 * side // 256)


@given(_LABEL_MAPS)
@settings(max_examples=60, deadline=None)
def test_balance_gives_both_sides_the_same_weight_within_its_limit(labels: NDArray[np.int64]) -> None:
    target = label_edges(torch.from_numpy(labels)).float()
    balance = edge_balance(target, largest=1e6)
    on, off = (balance * target).sum().item(), (balance * (1 - target)).sum().item()
    if 0 < target.mean() < 1:
        assert on == pytest.approx(off, rel=1e-4)
        assert on + off == pytest.approx(target.numel(), rel=1e-4)


def test_balance_is_limited_and_belongs_to_the_image() -> None:
    target = torch.zeros(2, 100, 100)
    target[0, 0, 0] = 1
    target[1, :50] = 1
    balance = edge_balance(target)
    assert balance[0, 0, 0] == 20
    assert balance[0, 1, 1].item() == pytest.approx(10_000 / (2 * 9_999))
    assert (balance[1] == 1).all()


def test_coarse_edges_keep_every_thin_line() -> None:
    target = torch.zeros(1, 64, 64)
    target[0, 17] = 1
    coarse = pooled(target, (16, 16))
    assert coarse.sum() == 16
    assert (coarse[0, 4] == 1).all()


@pytest.mark.parametrize("arguments", [{"kind": "laplace"}, {"radius": 0}, {"sigma": -1}, {"sigma": math.nan}])
def test_impossible_settings_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"edge target is|radius|sigma"):
        EdgeTargets(**arguments)
