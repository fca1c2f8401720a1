"""Memory is estimated before the work starts and bounds the batches."""

from __future__ import annotations

import numpy as np
import pytest

from medmargin.errors import BudgetError, ConfigError
from medmargin.imaging import Grid, Volume
from medmargin.inference.budget import memory_in_use, parse_memory, peak_memory, plan_batches

GIB = 2**30


def _volume(*shape: int) -> Volume:
    """A volume that claims its size without holding memory."""
    return Volume(np.broadcast_to(np.float32(0), (1, *shape)), Grid(shape, np.eye(4)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"), [("4G", 4 * GIB), ("512M", 2**29), ("1.5GiB", 3 * 2**29), ("2gb", 2 * GIB), ("1000", 1000)]
)
def test_amounts_of_memory_are_read(text: str, expected: int) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "many", "-4G", "0G", "4GG", "4 5G"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 4G"):
        parse_memory(text)


def test_row_33_a_volume_too_large_for_the_memory_is_refused_with_the_estimate() -> None:
    with pytest.raises(BudgetError, match=r"needs about \d+\.\d+ GB .* more than the 1.00 GB allowed") as caught:
        plan_batches(_volume(1024, 1024, 1024), size=64, structures=3, keep_probabilities=True, limit=GIB)
    assert caught.value.exit_code == 5


def test_less_memory_means_smaller_batches_never_more_than_allowed() -> None:
    used = memory_in_use()
    plans = [
        plan_batches(_volume(64, 64, 64), size=256, structures=1, keep_probabilities=False, limit=used + extra)
        for extra in (GIB // 2, GIB, 4 * GIB)
    ]
    assert [plan.images for plan in plans] == sorted(plan.images for plan in plans)
    assert plans[0].images < plans[-1].images
    assert all(plan.estimate <= used + extra for plan, extra in zip(plans, (GIB // 2, GIB, 4 * GIB), strict=True))


def test_probability_maps_are_part_of_the_estimate() -> None:
    with_maps, without = (
        plan_batches(_volume(256, 256, 256), size=64, structures=10, keep_probabilities=keep, limit=None).estimate
        for keep in (True, False)
    )
    assert with_maps - without > 10 * 4 * 256**3


def test_without_a_limit_nothing_is_refused() -> None:
    plan = plan_batches(_volume(1024, 1024, 1024), size=256, structures=50, keep_probabilities=True, limit=None)
    assert plan.images == plan.prompts == plan.embeddings == 1
    assert plan.estimate > 100 * GIB


def test_memory_in_use_grows_with_what_is_held() -> None:
    before = memory_in_use()
    held = np.ones(50 * 2**20, np.uint8)
    assert memory_in_use() - before > 0.9 * held.nbytes
    assert (peak_memory() or 0) >= held.nbytes
