"""What is `residual-unet`'s own; the switches it shares with `plain-unet` are tested beside that one's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medmargin.datasets import Task
from medmargin.errors import ConfigError
from medmargin.networks.blocks.unet_blocks import ResidualBlock
from medmargin.systems.registry import build_system, resolve_arguments
from medmargin.systems.system import System


def built(task: Task, scale: str = "laptop", slug: str = "residual-unet", **settings: object) -> System:
    return build_system(slug, task, resolve_arguments(slug, scale, settings))


def blocks_of(system: System) -> list[int]:
    """Count the residual blocks of each stage."""
    return [sum(isinstance(part, ResidualBlock) for part in one.modules()) for one in system.network.encoder.stages]


@pytest.mark.parametrize(
    ("scale", "settings", "expected"),
    [
        ("paper", {}, [1, 3, 4, 6]),  # as many as the plan has stages
        ("laptop", {}, [1, 2, 2, 2]),
        ("laptop", {"blocks": "(2, 1)"}, [2, 1, 1, 1]),
        ("laptop", {"blocks": "1,3"}, [1, 3, 3, 3]),  # the last number counts for all deeper stages
    ],
)
def test_blocks_of_each_stage(
    scale: str, settings: dict[str, str], expected: list[int], planned_task: Callable[..., Task]
) -> None:
    task = planned_task(sides=(48, 48, 48))
    assert task.plan is not None
    assert len(task.plan.configuration().features) == 4
    assert blocks_of(built(task, scale, **settings)) == expected


@pytest.mark.parametrize("blocks", [(), (1, 0)])
def test_blocks_that_cannot_be(blocks: tuple[int, ...], planned_task: Callable[..., Task]) -> None:
    with pytest.raises(ConfigError, match="blocks are"):
        built(planned_task(), blocks=blocks)


def test_one_convolution_per_stage_on_the_way_up(planned_task: Callable[..., Task]) -> None:
    network = built(planned_task()).network
    assert [len(stage.convs) for stage in network.decoder.stages] == [1] * len(network.decoder.stages)


def test_it_needs_more_memory_for_a_step_than_the_plain_one(planned_task: Callable[..., Task]) -> None:
    task = planned_task(sides=(48, 48, 48))
    residual, plain = (built(task, "paper", slug).stages[0]() for slug in ("residual-unet", "plain-unet"))
    assert residual.step_bytes > plain.step_bytes


@pytest.mark.parametrize("text", ["1,{", "one,two", "1,2.5"])
def test_blocks_that_are_no_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="is not accepted"):
        resolve_arguments("residual-unet", "laptop", {"blocks": text})
