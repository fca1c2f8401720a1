"""The distillation term."""

from __future__ import annotations

import pytest
import torch

from medmargin.losses.distillation import embedding_mse


def test_it_is_the_mean_squared_difference_and_only_the_student_learns() -> None:
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    teacher = torch.full((2, 3, 4, 4), 2.0, requires_grad=True)
    loss = embedding_mse(student, teacher)
    loss.backward()
    assert loss.item() == 4
    assert (student.grad < 0).all()
    assert teacher.grad is None


def test_embeddings_of_two_grids_are_refused_instead_of_broadcast() -> None:
    with pytest.raises(ValueError, match=r"student \(1, 3, 4, 4\), teacher \(1, 3, 1, 1\)"):
        embedding_mse(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 1, 1))
