"""Rules that correct a finished label map: one connected piece per structure, and no holes in it.

Isensee et al. 2021 (doi:10.1038/s41592-020-01008-z), "postprocessing": a rule is kept for a structure where it helps on
held-out cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

from medmargin.uncertainty.boxes import box_around

BACKGROUND = -1


@dataclass(frozen=True)
class Rule:
    """What to do with one structure, in this order.

    Attributes:
        structure: its name.
        keep_largest: its voxels outside its largest piece (26 neighbours) become background.
        fill_holes: background it encloses on all sides (6 neighbours) becomes its own; other structures stay.
    """

    structure: str
    keep_largest: bool = False
    fill_holes: bool = False


def apply_rules(
    labels: NDArray[np.signedinteger],
    chosen: NDArray[np.floating],
    rules: Sequence[Rule],
    indices: Mapping[str, int],
    contained: Sequence[Sequence[int]],
) -> None:
    """Correct a label map in place, rule after rule.

    Args:
        labels: [D, H, W] index of the structure, -1 background.
        chosen: [D, H, W] probability of what has the voxel; a voxel that changes hands between a structure and the
            background gets what the other one leaves over, 1 - p.
        indices: structure -> its index. contained: index -> indices of the structures that lie in it, itself included.
    """
    for rule in rules:
        index = indices[rule.structure]
        mask = np.isin(labels, contained[index])
        box = box_around(mask)
        if box is None:
            continue
        mask = mask[box]
        if rule.keep_largest:
            kept = cc3d.largest_k(mask, k=1, connectivity=26) > 0
            _move(labels[box], chosen[box], mask & ~kept, BACKGROUND)
            mask = kept
        if rule.fill_holes:
            _move(labels[box], chosen[box], _holes(mask) & (labels[box] == BACKGROUND), index)


def _move(labels: NDArray[np.signedinteger], chosen: NDArray[np.floating], voxels: NDArray[np.bool_], to: int) -> None:
    labels[voxels] = to
    chosen[voxels] = 1 - chosen[voxels]


def _holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find what is not connected to the outside; a single slice has an outside in its plane only."""
    rim = [(1, 1) if side > 1 else (0, 0) for side in mask.shape]
    outside = cc3d.connected_components(~np.pad(mask, rim), connectivity=6)
    corner = outside[tuple(0 for _ in mask.shape)]  # in the rim, or in a single voxel, which has no holes
    holes = (outside != corner) & (outside > 0)
    return holes[tuple(slice(before, holes.shape[axis] - after) for axis, (before, after) in enumerate(rim))]
