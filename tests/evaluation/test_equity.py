from __future__ import annotations

import pytest

from medmargin.evaluation.equity import equity


def test_equal_groups_keep_the_score() -> None:
    found = equity({"F": [0.8, 0.9], "M": [0.9, 0.8]})
    assert found.scaled == found.overall == pytest.approx(0.85)
    assert found.gap == pytest.approx(0)


def test_differences_between_groups_lower_the_score() -> None:
    found = equity({"F": [0.9, 0.9], "M": [0.7, 0.7]}, alpha=2.0)
    assert found.overall == pytest.approx(0.8)
    assert found.scaled == pytest.approx(0.8 / (1 + 2 * 0.2))
    assert found.worst == "M"
    assert found.gap == pytest.approx(0.2)


def test_overall_is_the_mean_of_all_items_not_of_the_groups() -> None:
    assert equity({"large": [1.0, 1.0, 1.0], "small": [0.0]}).overall == 0.75
