"""Prompts a user might have given, drawn from a true mask: for training, and for perturbing a prompt.

Boxes follow the LiteMedSAM sample: the tight box with each side moved outward by an independent uniform whole number
of pixels (up to 5 at 256 px; up to 20 at 1024 px in MedSAM: Ma et al., Nat Commun 15:654, 2024). Clicks are uniform
over the structure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import PromptError

Rectangle = tuple[int, int, int, int]  # (x_min, y_min, x_max, y_max) in pixels, inclusive


def tight_box(mask: NDArray) -> Rectangle | None:
    """Find the smallest box that holds every pixel of a mask.

    Args:
        mask: [H, W]; anything other than 0 is inside.

    Returns:
        (x_min, y_min, x_max, y_max), both ends inside the mask, or None for an empty mask.
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def jittered_box(box: Rectangle, rng: np.random.Generator, *, jitter: int, height: int, width: int) -> Rectangle:
    """Move each side of a box outward by its own draw from U{0, ..., jitter}, then clip the box to the picture.

    Args:
        box: (x_min, y_min, x_max, y_max) in pixels, inclusive.
        jitter: largest step outward in pixels; 0 returns the box as it is.
        height, width: size of the picture; corners are clipped to [0, width - 1] and [0, height - 1].

    Raises:
        PromptError: `jitter` is negative.
    """
    if jitter < 0:
        raise PromptError(f"box jitter is {jitter} px; expected 0 or more, because sides move outward only")
    x_min, y_min, x_max, y_max = box
    left, top, right, bottom = (int(step) for step in rng.integers(0, jitter, size=4, endpoint=True))
    return (
        max(x_min - left, 0),
        max(y_min - top, 0),
        min(x_max + right, width - 1),
        min(y_max + bottom, height - 1),
    )


def sample_points(
    mask: NDArray, rng: np.random.Generator, *, positive: int = 1, negative: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw clicks uniformly: `positive` ones on the mask, then `negative` ones off it.

    A region with fewer pixels than clicks is clicked repeatedly.

    Args:
        mask: [H, W]; anything other than 0 is inside.

    Returns:
        points [P, 2] as (x, y) pixel centres, and labels [P] with 1 for positive and 0 for negative clicks.

    Raises:
        PromptError: clicks are asked for where the mask (or the rest of the picture) has no pixel.
    """
    inside = mask != 0
    drawn = [_draw(inside, rng, positive, "inside"), _draw(~inside, rng, negative, "outside")]
    labels = np.repeat(np.array([1, 0], np.int64), [positive, negative])
    return np.concatenate(drawn), labels


def _draw(region: NDArray[np.bool_], rng: np.random.Generator, count: int, side: str) -> NDArray[np.float32]:
    pixels = np.flatnonzero(region)
    if count and not len(pixels):
        raise PromptError(f"cannot place {count} clicks {side} the mask: none of the {region.size} pixels is {side}")
    chosen = rng.choice(pixels, size=count, replace=count > len(pixels)) if count else pixels[:0]
    rows, columns = np.divmod(chosen, region.shape[1])
    return np.stack([columns, rows], axis=1).astype(np.float32)
