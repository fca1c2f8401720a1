"""Class probabilities as calibration takes them: K exclusive classes, background first, sums of 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-12  # probabilities below count as this much, so that every logarithm is finite
_SLAB_BYTES = 32 << 20


def with_background(structures: NDArray[Any]) -> NDArray[np.float32]:
    """Put the background in front of structure probabilities [S, *spatial]: a new [S + 1, *spatial], sums of 1."""
    classes = np.empty((len(structures) + 1, *structures.shape[1:]), np.float32)
    classes[1:] = structures
    fill_background(classes)
    return classes


def fill_background(classes: NDArray[np.float32]) -> None:
    """Set class 0 of [S + 1, *spatial] to max(0, 1 - sum of the structures) in place, then divide all by the sum."""
    total = classes[1:].sum(axis=0)
    classes[0] = np.maximum(0.0, 1.0 - total)
    classes /= np.maximum(total, 1.0)


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Cut the first spatial axis of [K, *spatial] into pieces of about 32 MB of float32, one index at the least."""
    each = 4 * int(np.prod(shape)) // max(shape[1], 1)
    step = max(1, _SLAB_BYTES // max(each, 1))
    for start in range(0, shape[1], step):
        yield slice(start, start + step)
