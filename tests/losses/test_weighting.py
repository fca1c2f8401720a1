"""Fixed weighting."""

from __future__ import annotations

import pytest
import torch

from medmargin.losses.weighting import FixedWeighted


def test_the_total_is_the_weighted_sum_and_differentiable() -> None:
    a = torch.tensor(2.0, requires_grad=True)
    report = FixedWeighted({"a": 0.5, "b": 3.0})({"a": a, "b": torch.tensor(1.0)})
    report.total.backward()
    assert report.total.item() == pytest.approx(4)
    assert a.grad.item() == pytest.approx(0.5)
    assert {name: value.item() for name, value in report.scalars().items()} == pytest.approx(
        {"loss": 4, "loss/a": 2, "loss/b": 1, "weight/a": 0.5, "weight/b": 3}
    )


def test_it_has_nothing_to_learn() -> None:
    assert not list(FixedWeighted({"a": 1.0}).parameters())
