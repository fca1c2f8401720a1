"""SharpMin: every rule of sharpness-aware minimisation, against formulas written out here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.errors import ConfigError
from medmargin.networks.blocks.checkpointing import recomputed
from medmargin.optim.sharp_min import SharpMin

OPTIMISERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=5e-3, weight_decay=0.01),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
}
Batches = list[tuple[Tensor, Tensor]]
MakeNetwork = Callable[[], nn.Module]


def _closure(network: nn.Module, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        loss = F.binary_cross_entropy_with_logits(network(x), y)
        loss.backward()
        return loss.detach()

    return closure


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert all(torch.equal(a[name], b[name]) for name in a | b)


def _train(network: nn.Module, sharp: SharpMin, batches: Batches, **options) -> nn.Module:
    for x, y in batches:
        sharp.step(_closure(network, x, y), **options)
    return network


def _reference_step(network: nn.Module, optimiser, x: Tensor, y: Tensor, *, rho: float, adaptive: bool) -> None:
    """Algorithm 1 of Foret et al. on one flat vector; the second pass runs on copies of weights and statistics."""
    names, weights = zip(*network.named_parameters(), strict=True)
    loss = F.binary_cross_entropy_with_logits(network(x), y)
    g = torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)])
    w = torch.cat([part.detach().flatten() for part in weights])
    size = w.abs() if adaptive else torch.ones_like(w)
    elsewhere = w + rho * size**2 * g / ((size * g).norm() + 1e-12)
    pieces = elsewhere.split([weight.numel() for weight in weights])
    moved = [piece.reshape(weight.shape).requires_grad_() for piece, weight in zip(pieces, weights, strict=True)]
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    output = torch.func.functional_call(network, {**dict(zip(names, moved, strict=True)), **statistics}, (x,))
    at_perturbed = torch.autograd.grad(F.binary_cross_entropy_with_logits(output, y), moved)
    for weight, gradient in zip(weights, at_perturbed, strict=True):
        weight.grad = gradient
    optimiser.step()


@pytest.mark.parametrize("optimiser", sorted(OPTIMISERS))
@pytest.mark.parametrize(("rho", "adaptive"), [(0.05, False), (0.5, False), (0.5, True)])
def test_it_follows_the_published_algorithm(
    make_network: MakeNetwork, batches: Batches, optimiser: str, rho: float, adaptive: bool
) -> None:
    network, reference = make_network().double(), make_network().double()
    double = [(x.double(), y.double()) for x, y in batches]
    base = OPTIMISERS[optimiser](network.parameters())
    _train(network, SharpMin(base, rho=rho, adaptive=adaptive, network=network), double)
    reference_base = OPTIMISERS[optimiser](reference.parameters())
    for x, y in double:
        _reference_step(reference, reference_base, x, y, rho=rho, adaptive=adaptive)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("optimiser", sorted(OPTIMISERS))
def test_rho_zero_is_the_base_optimiser_bit_for_bit(
    make_network: MakeNetwork, batches: Batches, optimiser: str
) -> None:
    with_dropout = [nn.Sequential(make_network(), nn.Dropout(0.3)).train() for _ in range(2)]
    sharp = SharpMin(OPTIMISERS[optimiser](with_dropout[0].parameters()), rho=0.0, network=with_dropout[0])
    torch.manual_seed(5)
    _train(with_dropout[0], sharp, batches)
    base = OPTIMISERS[optimiser](with_dropout[1].parameters())
    torch.manual_seed(5)
    for x, y in batches:
        base.zero_grad()
        _closure(with_dropout[1], x, y)()
        base.step()
    _assert_same(_state(with_dropout[0]), _state(with_dropout[1]))


def test_weights_are_restored_exactly_and_there_are_exactly_two_passes(
    make_network: MakeNetwork, batches: Batches
) -> None:
    network = make_network()
    sharp = SharpMin(torch.optim.SGD(network.parameters(), lr=0.1), rho=10.0, network=network)
    seen: list[Tensor] = []

    def closure() -> Tensor:
        seen.append(nn.utils.parameters_to_vector(network.parameters()).detach().clone())
        return _closure(network, *batches[0])()

    before = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    sharp.gradients(closure)
    after = nn.utils.parameters_to_vector(network.parameters()).detach()
    assert (after - before).abs().max() == 0
    assert len(seen) == 2
    assert torch.equal(seen[0], before)
    assert (seen[1] - before).norm().item() == pytest.approx(10, rel=1e-5)


def test_it_returns_the_loss_at_the_true_weights(make_network: MakeNetwork, batches: Batches) -> None:
    network = make_network()
    sharp = SharpMin(torch.optim.SGD(network.parameters(), lr=0.1), rho=1.0)
    assert sharp.step(_closure(network, *batches[0])) == _closure(make_network(), *batches[0])()


def test_batch_norm_sees_each_batch_once(make_network: MakeNetwork, batches: Batches) -> None:
    network, plain = make_network(), make_network()
    sharp = SharpMin(torch.optim.SGD(network.parameters(), lr=0.1), network=network)
    sharp.gradients(_closure(network, *batches[0]))
    _closure(plain, *batches[0])()
    _assert_same(dict(network.named_buffers()), dict(plain.named_buffers()))
    assert network[1].num_batches_tracked == 1
    assert network[1].track_running_stats


def test_gradient_checkpointing_changes_nothing(make_network: MakeNetwork, batches: Batches) -> None:
    class Recomputed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make_network()

        def forward(self, x: Tensor) -> Tensor:
            return recomputed(self.inner, x)

    network, plain = Recomputed(), make_network()
    for either in (network, plain):
        _train(either, SharpMin(torch.optim.SGD(either.parameters(), lr=0.1), rho=0.5, network=either), batches)
    _assert_same(_state(network.inner), _state(plain))


def test_without_a_network_batch_norm_sees_both_passes(make_network: MakeNetwork, batches: Batches) -> None:
    network = make_network()
    SharpMin(torch.optim.SGD(network.parameters(), lr=0.1)).gradients(_closure(network, *batches[0]))
    assert network[1].num_batches_tracked == 2


def test_clipping_touches_only_the_second_gradient(make_network: MakeNetwork, batches: Batches) -> None:
    limit, lr = 1e-3, 0.1
    network, unclipped = make_network(), make_network()
    before = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    sharp = SharpMin(torch.optim.SGD(network.parameters(), lr=lr), rho=0.5, network=network)
    sharp.step(_closure(network, *batches[0]), clip_norm=limit)
    SharpMin(torch.optim.SGD(unclipped.parameters(), lr=lr), rho=0.5, network=unclipped).step(
        _closure(unclipped, *batches[0])
    )
    moved = nn.utils.parameters_to_vector(network.parameters()).detach() - before
    direction = nn.utils.parameters_to_vector(unclipped.parameters()).detach() - before
    assert moved.norm().item() == pytest.approx(lr * limit, rel=1e-2)
    assert F.cosine_similarity(moved, direction, dim=0).item() == pytest.approx(1, abs=1e-4)


def test_accumulated_micro_batches_equal_the_whole_batch(batches: Batches) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 64), nn.Unflatten(1, (1, 8, 8)))

    whole, parts = network(), network()
    x, y = batches[0]
    SharpMin(torch.optim.SGD(whole.parameters(), lr=0.5), rho=0.5).step(_closure(whole, x, y))

    def accumulate() -> None:
        for part_x, part_y in zip(x.split(1), y.split(1), strict=True):
            (F.binary_cross_entropy_with_logits(parts(part_x), part_y) / len(x)).backward()

    SharpMin(torch.optim.SGD(parts.parameters(), lr=0.5), rho=0.5).step(accumulate)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=0, atol=1e-6)


def test_excluded_parameters_are_neither_moved_nor_counted_but_still_learn(
    make_network: MakeNetwork, batches: Batches
) -> None:
    network, weight = make_network(), nn.Parameter(torch.tensor(100.0))
    base = torch.optim.SGD([*network.parameters(), weight], lr=0.1)
    sharp = SharpMin(base, rho=0.5, network=network, exclude=[weight])
    places: list[tuple[Tensor, Tensor]] = []

    def closure() -> None:
        places.append((nn.utils.parameters_to_vector(network.parameters()).detach().clone(), weight.detach().clone()))
        x, y = batches[0]
        (F.binary_cross_entropy_with_logits(network(x), y) * weight).backward()

    sharp.step(closure)
    assert torch.equal(places[0][1], places[1][1])
    assert (places[1][0] - places[0][0]).norm().item() == pytest.approx(0.5, rel=1e-4)
    assert weight != 100


def test_a_gradient_scaler_changes_nothing_and_unscales_once(make_network: MakeNetwork, batches: Batches) -> None:
    scaled, plain = make_network(), make_network()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)  # a power of two: exact

    def closure() -> None:
        x, y = batches[0]
        scaler.scale(F.binary_cross_entropy_with_logits(scaled(x), y)).backward()

    def sharp(network: nn.Module) -> SharpMin:
        return SharpMin(torch.optim.SGD(network.parameters(), lr=0.1), rho=0.5, network=network)

    sharp(scaled).step(closure, scaler=scaler, clip_norm=0.5)
    sharp(plain).step(_closure(plain, *batches[0]), clip_norm=0.5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(scaled.state_dict()[name], value, rtol=0, atol=1e-7)


def test_an_overflow_skips_the_step_and_lowers_the_scale(make_network: MakeNetwork, batches: Batches) -> None:
    network = make_network()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}

    def closure() -> None:
        scaler.scale(network(batches[0][0]).sum() * float("inf")).backward()

    SharpMin(torch.optim.SGD(network.parameters(), lr=0.1), network=network).step(closure, scaler=scaler)
    _assert_same(dict(network.named_parameters()), before)
    assert scaler.get_scale() == 2.0**9


def test_a_scheduler_drives_the_base_optimiser(make_network: MakeNetwork, batches: Batches) -> None:
    network = make_network()
    base = torch.optim.SGD(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(base, step_size=1, gamma=0.0)
    sharp = SharpMin(base, network=network)
    sharp.step(_closure(network, *batches[0]))
    schedule.step()
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    sharp.step(_closure(network, *batches[1]))
    _assert_same(dict(network.named_parameters()), before)


@pytest.mark.parametrize("optimiser", sorted(OPTIMISERS))
def test_a_resumed_run_equals_an_uninterrupted_one(make_network: MakeNetwork, batches: Batches, optimiser: str) -> None:
    whole = make_network()
    _train(whole, SharpMin(OPTIMISERS[optimiser](whole.parameters()), network=whole), batches)
    first, second = make_network(), make_network()
    sharp = SharpMin(OPTIMISERS[optimiser](first.parameters()), network=first)
    _train(first, sharp, batches[:2])
    resumed = SharpMin(OPTIMISERS[optimiser](second.parameters()), network=second)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(sharp.state_dict())
    _train(second, resumed, batches[2:])
    _assert_same(_state(second), _state(whole))


def test_parameters_without_a_gradient_stay(make_network: MakeNetwork, batches: Batches) -> None:
    network, unused = make_network(), nn.Parameter(torch.ones(3))
    sharp = SharpMin(torch.optim.AdamW([*network.parameters(), unused], lr=0.1), network=network)
    sharp.step(_closure(network, *batches[0]))
    assert torch.equal(unused, torch.ones(3))


def test_along_a_valley_of_equal_minima_it_walks_to_the_flattest() -> None:
    def descend(rho: float) -> Tensor:
        """Minimise (w1 w2 - 1)^2 / 2: 0 wherever w1 w2 = 1, where its curvature is w1^2 + w2^2, least at (1, 1)."""
        weight = nn.Parameter(torch.tensor([2.5, 0.5]))
        sharp = SharpMin(torch.optim.SGD([weight], lr=0.02), rho=rho)
        for _ in range(1500):
            sharp.step(lambda: (0.5 * (weight.prod() - 1) ** 2).backward())
        return weight.detach()

    plain, sharp = descend(0.0), descend(0.2)
    assert plain.prod().item() == pytest.approx(1, abs=1e-3)
    assert sharp.prod().item() == pytest.approx(1, abs=1e-2)
    assert plain.square().sum() > 6
    assert sharp.square().sum() < 2.2


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf")])
def test_an_impossible_radius_is_refused(rho: float) -> None:
    with pytest.raises(ConfigError, match="rho"):
        SharpMin(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), rho=rho)
