"""Masks on which losses and distance maps usually break."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

SHAPE = (12, 10)


def _mask(*boxes: tuple[slice, slice]) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    for box in boxes:
        mask[box] = True
    return mask


EDGE_MASKS = {
    "empty": _mask(),
    "full": _mask((slice(None), slice(None))),
    "one_pixel": _mask((slice(5, 6), slice(4, 5))),
    "corner_pixel": _mask((slice(0, 1), slice(0, 1))),
    "all_but_one_pixel": ~_mask((slice(5, 6), slice(4, 5))),
    "touches_three_borders": _mask((slice(6, None), slice(None))),
    "one_pixel_line": _mask((slice(None), slice(3, 4))),
    "two_parts": _mask((slice(1, 4), slice(1, 4)), (slice(7, 11), slice(5, 9))),
}


@pytest.fixture(params=sorted(EDGE_MASKS))
def edge_mask(request: pytest.FixtureRequest) -> NDArray[np.bool_]:
    """[12, 10] one mask after the other."""
    return EDGE_MASKS[request.param]


@pytest.fixture
def two_parts() -> NDArray[np.bool_]:
    """[12, 10] a mask with depth on both sides."""
    return EDGE_MASKS["two_parts"]
