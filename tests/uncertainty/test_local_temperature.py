from __future__ import annotations

import pytest
import torch

from medmargin.uncertainty.local_temperature import LocalTemperature


def random_network(*, classes: int = 3, dims: int = 2, **options: bool) -> LocalTemperature:
    torch.manual_seed(0)
    network = LocalTemperature(classes, 1, dims=dims, **options)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network


@pytest.mark.parametrize("dims", [2, 3])
def test_starts_at_temperature_two(dims: int) -> None:
    spatial = (9, 10, 8)[:dims]
    logits, image = torch.randn(2, 3, *spatial), torch.randn(2, 1, *spatial)
    network = LocalTemperature(3, 1, dims=dims)
    torch.testing.assert_close(network.temperature(logits, image), torch.full((2, 1, *spatial), 2.0))
    torch.testing.assert_close(network(logits, image), logits / 2)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_temperature_is_positive_and_keeps_the_class(dims: int, per_image: bool) -> None:
    spatial = (9, 10, 8)[:dims]
    logits, image = 5 * torch.randn(2, 3, *spatial), torch.randn(2, 1, *spatial)
    network = random_network(dims=dims, per_image=per_image)
    assert (network.temperature(logits, image) > 0).all()
    scaled = network(logits, image)
    assert torch.equal(scaled.argmax(1), logits.argmax(1))


def test_temperature_of_an_image_does_not_depend_on_its_neighbours() -> None:
    logits, image = torch.randn(2, 3, 9, 9), torch.randn(2, 1, 9, 9)
    network = random_network(per_image=True)
    alone = network.temperature(logits[:1], image[:1])
    torch.testing.assert_close(network.temperature(logits, image)[:1], alone)
    released = random_network(per_image=True, released=True)
    pooled = released.temperature(logits, image)
    torch.testing.assert_close(pooled[0], pooled[1])
    assert not torch.allclose(pooled[:1], alone)


def test_fitting_lowers_the_loss_of_overconfident_logits() -> None:
    torch.manual_seed(1)
    image = torch.randn(1, 1, 12, 12)
    logits = 8 * torch.randn(1, 3, 12, 12)
    labels = torch.where(torch.rand(1, 12, 12) < 0.6, logits.argmax(1), torch.randint(0, 3, (1, 12, 12)))
    network = LocalTemperature(3, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    loss = torch.nn.functional.cross_entropy
    before = loss(network(logits, image), labels).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss(network(logits, image), labels).backward()
        optimizer.step()
    assert loss(network(logits, image), labels).item() < before < loss(logits, labels).item()
