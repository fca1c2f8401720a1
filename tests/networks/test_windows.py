"""Windows are cut and put together without loss."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from medmargin.networks.blocks.windows import from_windows, to_windows

SIDES = st.integers(1, 12)


@given(batch=st.integers(1, 3), height=SIDES, width=SIDES, window=st.integers(1, 7))
def test_from_windows_undoes_to_windows(batch: int, height: int, width: int, window: int) -> None:
    grid = torch.randn(batch, height, width, 2)
    windows = to_windows(grid, window)
    assert windows.shape[1:] == (window, window, 2)
    assert torch.equal(from_windows(windows, height, width), grid)


def test_windows_run_along_rows_and_padding_is_zero_at_the_bottom_and_right() -> None:
    grid = torch.arange(1.0, 13.0).reshape(1, 3, 4, 1)  # rows 1..4, 5..8, 9..12
    windows = to_windows(grid, 2)[..., 0]
    assert windows[0].tolist() == [[1, 2], [5, 6]]
    assert windows[1].tolist() == [[3, 4], [7, 8]]
    assert windows[3].tolist() == [[11, 12], [0, 0]]


def test_a_cell_stays_in_its_image() -> None:
    grid = torch.zeros(2, 5, 5, 1)
    grid[1] = 1
    windows = to_windows(grid, 3)
    assert windows[: len(windows) // 2].sum() == 0
    assert windows[len(windows) // 2 :].sum() == 25
