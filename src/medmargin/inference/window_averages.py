"""The mean of all windows at every voxel, slice after slice, as soon as no later window covers it.

Only the slices that some window still has to add to are held, never the volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medmargin.inference.windows import WindowAxis

Answer = Callable[[NDArray[np.float32]], Iterable[Tensor]]
Axes = tuple[WindowAxis, WindowAxis, WindowAxis]


def averages(
    voxels: NDArray[np.float32],
    answer: Answer,
    axes: Axes,
    *,
    batch: int,
    rows: slice,
    done: Callable[[int], None] = lambda windows: None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Average windows over a strip of the image.

    Args:
        voxels: [C, D, H, W]; beside the image the windows see 0.
        answer: windows [n, C, d, h, w] -> [A, d, h, w] of each, one by one.
        axes: where the windows stand. batch: windows to ask about at a time.
        rows: of the image that are wanted; windows that do not touch them are left out.
        done: told the number of windows of every batch.

    Yields:
        every slice in order, with its means [A, rows, W].
    """
    depth, height, width = axes
    across = list(product(height.touching(rows.start, rows.stop), range(len(width.starts))))
    layers_together = layers_at_once(batch, len(across))
    held: dict[int, NDArray[np.float32]] = {}
    finished = 0
    for first in range(0, len(depth.starts), layers_together):
        layers = range(first, min(first + layers_together, len(depth.starts)))
        places = [(z, y, x) for z in layers for y, x in across]
        for start in range(0, len(places), batch):
            asked = places[start : start + batch]
            corners = [tuple(axis.starts[at] for axis, at in zip(axes, place, strict=True)) for place in asked]
            windows = np.stack([cut_window(voxels, corner, [axis.window for axis in axes]) for corner in corners])
            for place, found in zip(asked, answer(windows), strict=True):
                _add(held, found, axes, place, rows)
            done(len(asked))
        is_last = layers.stop == len(depth.starts)
        frontier = depth.size if is_last else depth.starts[layers.stop]
        for index in range(finished, frontier):
            yield index, held.pop(index)
        finished = frontier


def layers_at_once(batch: int, windows: int) -> int:
    """Count the layers of windows that share batches: 1, unless a layer has too few `windows` to fill one."""
    return max(1, batch // windows)


def cut_window(voxels: NDArray[np.float32], corner: Sequence[int], window: Sequence[int]) -> NDArray[np.float32]:
    """Cut a window [C, d, h, w] out of an image [C, D, H, W]; 0 where it reaches beyond."""
    sides = list(zip(corner, window, voxels.shape[1:], strict=True))
    inside = tuple(slice(max(start, 0), min(start + side, size)) for start, side, size in sides)
    found = voxels[:, *inside]
    missing = [(max(-start, 0), max(start + side - size, 0)) for start, side, size in sides]
    return np.pad(found, [(0, 0), *missing]) if any(map(any, missing)) else found


def _add(
    held: dict[int, NDArray[np.float32]], found: Tensor, axes: Axes, place: tuple[int, int, int], rows: slice
) -> None:
    """Add a window's share [A, d, h, w] to the slices held."""
    depth, height, width = axes
    z, y, x = (axis.starts[at] for axis, at in zip(axes, place, strict=True))
    deep, high, wide = (axis.shares[at] for axis, at in zip(axes, place, strict=True))
    top, bottom = max(y, rows.start), min(y + height.window, rows.stop)
    left, right = max(x, 0), min(x + width.window, width.size)
    seen = found[:, :, top - y : bottom - y, left - x : right - x].cpu().numpy()
    shares = high[top - y : bottom - y, None] * wide[left - x : right - x]
    for index in range(max(z, 0), min(z + depth.window, depth.size)):
        if index not in held:
            held[index] = np.zeros((len(seen), rows.stop - rows.start, width.size), np.float32)
        held[index][:, top - rows.start : bottom - rows.start, left:right] += seen[:, index - z] * (
            shares * deep[index - z]
        )
