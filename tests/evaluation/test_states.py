from __future__ import annotations

import numpy as np
import pytest

from medmargin.evaluation.states import State, state_of


@pytest.mark.parametrize(
    ("truth", "mask", "state"),
    [(1, 1, State.FOUND), (0, 0, State.ABSENT), (1, 0, State.MISSED), (0, 1, State.FALSE)],
)
def test_empty_mask_matrix(truth: int, mask: int, state: State) -> None:
    assert state_of(np.full((2, 3), truth), np.full((2, 3), mask)) is state


def test_masks_that_do_not_touch_are_found() -> None:
    assert state_of(np.array([1, 0]), np.array([0, 1])) == "found"
