"""Windows, their shares, and the streamed means of what they answer."""

from __future__ import annotations

import tracemalloc
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from medmargin.errors import CheckpointError, ConfigError
from medmargin.inference.strips import cut_strips
from medmargin.inference.window_averages import averages, cut_window, layers_at_once
from medmargin.inference.window_network import Answers, VolumeNetwork, WindowNetwork, require_fit
from medmargin.inference.windows import gaussian_weights, window_axes, window_axis, window_starts
from medmargin.networks.prediction import Prediction
from medmargin.uncertainty.decomposition import class_entropy
from medmargin.uncertainty.dirichlet import decompose_dirichlet, vacuity
from medmargin.uncertainty.estimators import (
    Ensemble,
    Estimator,
    Evidential,
    MonteCarloDropout,
    Softmax,
    TestTimeAugmentation,
    VolumeMirrors,
)


class Small(nn.Module):
    """Two convolutions with random weights."""

    def __init__(
        self, *, dims: int = 3, channels: int = 1, classes: int = 3, evidence: str | None = None, regions: bool = False,
        dropout: float = 0.0, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        torch.manual_seed(seed)
        self.dims, self.channels, self.classes, self.evidence, self.regions = dims, channels, classes, evidence, regions
        convolution = nn.Conv3d if dims == 3 else nn.Conv2d
        self.layers = nn.Sequential(
            convolution(channels, 6, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(dropout),
            convolution(6, classes, 3, padding=1),
        )
        self.batches: list[int] = []

    def forward(self, image: Tensor) -> Prediction:
        self.batches.append(len(image))
        return Prediction(self.layers(image) * 5)


def _network(networks: VolumeNetwork | list, estimator: Estimator, batch: int = 4, **more) -> WindowNetwork:
    members = networks if isinstance(networks, list) else [networks]
    for member in members:
        member.eval()
    return WindowNetwork(members, estimator.plan(), batch=batch, **more)


@torch.inference_mode()
def _answered(network: WindowNetwork, windows: np.ndarray) -> Tensor:
    return torch.stack(list(network(windows)))


@torch.inference_mode()
def _whole(voxels, network, patch, *, step=0.5, batch=4, rows=None, done=lambda windows: None) -> np.ndarray:
    axes = window_axes(voxels.shape[1:], patch, step)
    rows = rows or slice(0, voxels.shape[2])
    found = list(averages(voxels, network, axes, batch=batch, rows=rows, done=done))
    assert [index for index, _ in found] == list(range(voxels.shape[1]))
    return np.stack([values for _, values in found], axis=1)


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Positions and weights


@pytest.mark.parametrize(
    ("size", "window", "step", "starts"),
    [
        (110, 64, 0.5, (0, 23, 46)),  # published: as many as needed, evenly spread
        (128, 64, 0.5, (0, 32, 64)),
        (64, 64, 0.5, (0,)),
        (30, 64, 0.5, (-17,)),
        (33, 64, 0.5, (-15,)),
        (9, 4, 1.0, (0, 2, 5)),
        (5, 1, 0.5, (0, 1, 2, 3, 4)),
    ],
)
def test_windows_are_spread_evenly(size: int, window: int, step: float, starts: tuple[int, ...]) -> None:
    assert window_starts(size, window, step) == starts


@given(st.integers(1, 60), st.integers(1, 40), st.sampled_from([0.25, 0.5, 0.7, 1.0]))
def test_every_voxel_is_shared_out_completely(size: int, window: int, step: float) -> None:
    axis = window_axis(size, window, step)
    total = np.zeros(size + 2 * window)
    for start, share in zip(axis.starts, axis.shares, strict=True):
        total[start + window : start + 2 * window] += share
    assert total[window : window + size] == pytest.approx(1, abs=1e-6)
    assert not total[:window].any()
    assert not total[window + size :].any()
    assert max(np.diff(axis.starts), default=0) <= max(np.ceil(window * step), 1)  # rounded to voxels
    for first, end in [(0, size), (size // 2, size // 2 + 1)]:
        wanted = set(range(first, end))
        covering = {at for at, start in enumerate(axis.starts) if wanted & set(range(start, start + window))}
        assert set(axis.touching(first, end)) == covering


def test_weights_are_gaussian_and_symmetric() -> None:
    weights = gaussian_weights(16)
    assert np.array_equal(weights, weights[::-1])
    assert weights[7] / weights[5] == pytest.approx(np.exp((2.5**2 - 0.5**2) / (2 * 2.0**2)))


@pytest.mark.parametrize(
    ("corner", "window"), [((-2, 0, 3), (4, 5, 3)), ((1, 1, 1), (2, 2, 2)), ((-1, -1, -1), (9, 9, 9))]
)
def test_windows_are_cut_with_zeros_beyond(corner, window) -> None:
    voxels = _noise(2, 5, 5, 6)
    padded = np.pad(voxels, [(0, 0), (9, 9), (9, 9), (9, 9)])
    at = tuple(slice(9 + start, 9 + start + side) for start, side in zip(corner, window, strict=True))
    assert np.array_equal(cut_window(voxels, corner, window), padded[:, *at])


# Means


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_means_equal_monai(batch: int) -> None:
    voxels, patch, network = _noise(1, 20, 24, 16), (8, 8, 8), Small()
    found = _whole(voxels, _network(network, Softmax()), patch, batch=batch)
    weights = np.einsum("i,j,k->ijk", *(gaussian_weights(side) for side in patch)).astype(np.float32)
    with torch.inference_mode():
        expected = sliding_window_inference(
            torch.from_numpy(voxels)[None], patch, 2, lambda image: network(image).logits.softmax(1), overlap=0.5,
            mode="gaussian", roi_weight_map=torch.from_numpy(weights),
        )[0].numpy()  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.sum(axis=0) == pytest.approx(1, abs=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(*[st.integers(1, 14)] * 3), st.tuples(*[st.integers(1, 9)] * 3), st.integers(1, 5), st.integers(0, 13),
    st.integers(1, 14),
)  # fmt: skip
def test_strips_hold_what_the_whole_holds(shape, patch, batch, first, rows) -> None:
    voxels, network = _noise(1, *shape), _network(Small(), VolumeMirrors((0, 2)), batch)
    whole = _whole(voxels, network, patch, batch=batch)
    strip = slice(min(first, shape[1] - 1), min(min(first, shape[1] - 1) + rows, shape[1]))
    np.testing.assert_allclose(_whole(voxels, network, patch, batch=batch, rows=strip), whole[:, :, strip], atol=1e-5)


def test_all_windows_are_counted() -> None:
    counted: list[int] = []
    _whole(_noise(1, 20, 9, 8), _network(Small(), Softmax()), (8, 8, 8), batch=3, done=counted.append)
    assert sum(counted) == 4 * 2 * 1
    assert set(counted) == {2}  # a layer is not split up, and two would not fit into a batch


def test_layers_share_batches_only_where_one_is_too_small() -> None:
    assert [layers_at_once(4, windows) for windows in (1, 2, 3, 4, 9)] == [4, 2, 1, 1, 1]


def test_memory_does_not_grow_with_the_depth() -> None:
    def answer(windows: np.ndarray) -> Tensor:
        return torch.ones(1).expand(len(windows), 10, *windows.shape[2:])

    def peak(depth: int) -> int:
        voxels = np.zeros((1, depth, 64, 64), np.float32)
        axes = window_axes(voxels.shape[1:], (16, 32, 32), 0.5)
        tracemalloc.start()
        for _, values in averages(voxels, answer, axes, batch=2, rows=slice(0, 64)):
            assert np.allclose(values, 1, atol=1e-5)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(128) < 1.1 * peak(48) < 1.3 * 10 * 16 * 64 * 64 * 4 + 2 * 2 * 16 * 32 * 32 * 4


# Passes


def test_one_pass_with_evidence_is_split_by_its_dirichlet() -> None:
    windows, network = _noise(2, 1, 6, 6, 6), Small(evidence="softplus")
    with torch.inference_mode():
        found = _answered(_network(network, Evidential()), windows).numpy()
        alpha = nn.functional.softplus(network(torch.from_numpy(windows)).logits).numpy() + 1
    for each, parameters in zip(found, alpha, strict=True):
        np.testing.assert_allclose(each[:3], parameters / parameters.sum(axis=0), atol=1e-6)
        np.testing.assert_allclose(each[3], decompose_dirichlet(parameters).aleatoric, atol=1e-5)
        np.testing.assert_allclose(each[4], vacuity(parameters), atol=1e-6)


@pytest.mark.parametrize("evidence", [None, "softplus"])
def test_several_passes_are_means_of_each(evidence: str | None) -> None:
    windows = _noise(3, 1, 6, 5, 4)
    members = [Small(evidence=evidence, seed=seed) for seed in range(3)]
    with torch.inference_mode():
        found = _answered(_network(members, Ensemble(3), batch=2), windows).numpy()
        single = [
            _answered(_network(member, Evidential() if evidence else Softmax()), windows).numpy() for member in members
        ]
    np.testing.assert_allclose(found[:, :3], np.mean([one[:, :3] for one in single], axis=0), atol=1e-6)
    entropies = [np.stack([class_entropy(each[:3]) for each in one]) for one in single]
    np.testing.assert_allclose(found[:, 3], np.mean(entropies, axis=0), atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_mirrors_are_turned_back(dims: int) -> None:
    depth = 4 if dims == 3 else 1
    windows, network = _noise(2, 1, depth, 6, 5), Small(dims=dims)
    axes = tuple(range(dims))
    with torch.inference_mode():
        found = _answered(_network(network, VolumeMirrors(axes), batch=3), windows).numpy()
        expected = []
        for chosen in product((False, True), repeat=dims):
            flipped = [axis - dims for axis, is_flipped in enumerate(chosen) if is_flipped]
            seen = torch.from_numpy(windows).flip(flipped)
            logits = network(seen if dims == 3 else seen[:, :, 0]).logits
            expected.append((logits if dims == 3 else logits[:, :, None]).softmax(1).flip(flipped).numpy())
    np.testing.assert_allclose(found[:, :3], np.mean(expected, axis=0), atol=1e-5)
    assert max(network.batches) == 3 if dims == 3 else True


def test_mirrors_take_every_combination_of_axes_once() -> None:
    assert [how.axes for how in VolumeMirrors((0, 2)).plan()] == [(), (0,), (2,), (0, 2)]
    assert len(set(VolumeMirrors().plan())) == VolumeMirrors().members == 8
    for axes in ((), (1, 1), (3,)):
        with pytest.raises(ConfigError, match="axes"):
            VolumeMirrors(axes)


def test_regions_have_an_entropy_each() -> None:
    windows, network = _noise(2, 1, 4, 4, 4), Small(classes=2, regions=True)
    assert Answers(2, True, None, 1).channels == 2
    with torch.inference_mode():
        found = _answered(_network(network, VolumeMirrors((0,))), windows)
        single = _answered(_network(network, Softmax()), windows)
    assert found.shape == (2, 4, 4, 4, 4)
    np.testing.assert_allclose(single, network(torch.from_numpy(windows)).logits.sigmoid().detach(), atol=1e-6)


def test_dropout_thins_every_window_alike() -> None:
    windows = np.repeat(_noise(1, 1, 4, 4, 4), 3, axis=0)
    network = Small(dropout=0.5)
    with torch.inference_mode():
        found = _answered(_network(network, MonteCarloDropout(3)), windows).numpy()
        again = _answered(_network(network, MonteCarloDropout(3)), windows[:1]).numpy()
        other = _answered(_network(network, MonteCarloDropout(3, seed=1)), windows[:1]).numpy()
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[:1], again)
    assert not np.array_equal(other, again)


def test_bfloat16_is_close_and_only_used_when_asked_for() -> None:
    windows, network = _noise(1, 1, 8, 8, 8), Small()
    with torch.inference_mode():
        exact = _answered(_network(network, Softmax()), windows)
        coarse = _answered(_network(network, Softmax(), precision="bf16"), windows)
    assert coarse.dtype == torch.float32
    assert 0 < (exact - coarse).abs().max() < 0.1


def test_answers_that_are_not_finite_are_refused() -> None:
    network = Small()
    network.layers[0].bias.data.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="not finite"), torch.inference_mode():
        _answered(_network(network, Softmax()), _noise(1, 1, 4, 4, 4))


@pytest.mark.parametrize(
    ("networks", "estimator", "message"),
    [
        ([Small()], Ensemble(2), "expected 2 networks, found 1"),
        ([Small(), Small(classes=4)], Ensemble(2), "alike"),
        ([Small(dims=2)], Softmax(), "2-D network"),
        ([Small(channels=2)], Softmax(), "2 channels"),
        ([Small()], Evidential(), "no evidence"),
        ([Small(evidence="relu")], Softmax(), "gives evidence"),
        ([Small()], MonteCarloDropout(), "no dropout"),
        ([Small()], TestTimeAugmentation(), r"VolumeMirrors\(0, 1, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(networks, estimator: Estimator, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_fit(estimator, networks, dims=3, channels=1)


# Strips


@given(st.integers(1, 30), st.integers(1, 50), st.integers(1, 60))
def test_strips_interpolate_as_the_whole_does(source: int, target: int, count: int) -> None:
    values = _noise(2, source, 3)
    positions = ((np.arange(target) + 0.5) * source / target - 0.5).clip(0, source - 1)
    expected = np.stack([[np.interp(positions, np.arange(source), line) for line in each.T] for each in values])
    strips = cut_strips(source, target, count)
    assert len(strips) == min(count, target)
    found = np.concatenate([strip.interpolated(values[:, strip.source]) for strip in strips], axis=1)
    np.testing.assert_allclose(found, expected.transpose(0, 2, 1), atol=1e-5)
