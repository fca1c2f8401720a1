"""What became of a structure in a case, and the rules for empty masks that follow from it.

| truth | mask | state  | Dice, IoU, NSD | HD95, ASSD                     |
|-------|------|--------|----------------|--------------------------------|
| full  | full | found  | measured       | measured                       |
| empty | empty| absent | 1              | do not exist                   |
| full  | empty| missed | 0              | diagonal of the image, flagged |
| empty | full | false  | 0              | diagonal of the image, flagged |

A missed structure therefore never vanishes from a mean distance, and a rightly empty mask is counted, not hidden.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class State(StrEnum):
    """Found, absent (from truth and mask), missed (no mask) or false (no truth)."""

    FOUND = "found"
    ABSENT = "absent"
    MISSED = "missed"
    FALSE = "false"


def state_of(truth: NDArray[Any], mask: NDArray[Any]) -> State:
    """Tell the state of a structure from its two masks (any shape; non-zero is inside)."""
    has_truth, has_mask = bool(np.any(truth)), bool(np.any(mask))
    if has_truth and has_mask:
        return State.FOUND
    if has_truth:
        return State.MISSED
    return State.FALSE if has_mask else State.ABSENT
