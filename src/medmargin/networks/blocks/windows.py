"""Cutting a token grid into square windows and putting it together again."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def to_windows(grid: Tensor, window: int) -> Tensor:
    """Cut a grid into windows; it is padded with zeros at the bottom and right to a multiple of `window`.

    Args:
        grid: [B, H, W, C].
        window: side of a window in cells.

    Returns:
        [B * number of windows, window, window, C], rows of windows first.
    """
    height, width = grid.shape[1:3]
    grid = F.pad(grid, (0, 0, 0, -width % window, 0, -height % window))
    grid = grid.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # [B, rows, window, columns, window, C]
    return grid.transpose(2, 3).flatten(0, 2)


def from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Undo `to_windows` and cut the padding off.

    Args:
        windows: [B * number of windows, window, window, C].
        height, width: of the grid before it was padded, in cells.

    Returns:
        [B, height, width, C].
    """
    window = windows.shape[1]
    rows, columns = -(-height // window), -(-width // window)
    grid = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)  # [B, rows, window, columns, window, C]
    return grid.flatten(3, 4).flatten(1, 2)[:, :height, :width]
