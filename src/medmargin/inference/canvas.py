"""`Canvas`: what has been answered so far, merged object by object into one map each for labels and uncertainty.

A label map gives each voxel to one structure, and a report shows one uncertainty map. Where several structures claim a
voxel, one that lies inside the other gets it (a lesion in its organ, a cavity in its wall: whoever boxed it meant it),
else the more probable one; or the later one, the rule of the MedSAM-on-laptop challenge. The most uncertain one speaks
for the voxel's uncertainty. So memory does not grow with the number of structures, unless a probability map of each is
asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmargin.inference.margins import Reached
from medmargin.uncertainty.decomposition import Decomposition
from medmargin.uncertainty.volumes import VolumeSamples

_NESTED = 0.7  # share of a structure's claim inside another's from which it counts as lying in it


class Region(NamedTuple):
    """A rectangle of one slice."""

    layer: int
    rows: slice
    columns: slice


class SliceMaps:
    """The maps [slices, height, width] of an answer while its slices are drawn; subclasses say how.

    Args:
        shape: (slices, height, width).
        structures: number of structures, without the background.
        members: answers per voxel whose volumes are sampled.
        keep_probabilities: whether to keep a map per structure.
        reached: takes the thresholds that structures reach, or None.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        structures: int,
        members: int,
        keep_probabilities: bool = True,
        reached: Reached | None = None,
    ) -> None:
        # Index of the structure, -1 background; one byte a voxel where that is enough.
        self.labels: NDArray[np.signedinteger] = np.full(shape, -1, np.min_scalar_type(-structures - 1))
        self.total = np.zeros(shape, np.float32)
        self.aleatoric = np.zeros(shape, np.float32)
        self.probabilities = np.zeros((structures, *shape), np.float32) if keep_probabilities else None
        self.samples = VolumeSamples(structures, members)
        self.reached = reached


class Canvas(SliceMaps):
    """Maps [slices, height, width] that objects are drawn on.

    Args:
        shape: (slices, height, width).
        structures: number of structures.
        members: answers averaged per object.
        later_overwrites: who gets a voxel that several structures claim.
        keep_probabilities: whether to keep a map per structure.
        reached: takes the thresholds that structures reach, or None.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        structures: int,
        members: int,
        later_overwrites: bool = False,
        keep_probabilities: bool = True,
        reached: Reached | None = None,
    ) -> None:
        super().__init__(
            shape, structures=structures, members=members, keep_probabilities=keep_probabilities, reached=reached
        )
        self._later_overwrites = later_overwrites
        self._chosen = np.zeros(shape, np.float32)  # probability of what has the voxel

    def probability_inside(self, structure: int) -> tuple[int, float]:
        """Count the voxels a structure has, and sum its probability over them."""
        mask = self.labels == structure
        return int(mask.sum()), float(self._chosen[mask].sum(dtype=np.float64))

    def draw(
        self, structure: int, region: Region, probabilities: NDArray[np.floating], uncertainty: Decomposition
    ) -> None:
        """Merge one object's mean probability and uncertainty maps [rows, columns] into a region."""
        labels, chosen = self.labels[region], self._chosen[region]
        if self._later_overwrites:
            taken = (probabilities > 0.5) & (structure >= labels)
        else:
            taken = _won(probabilities, structure, labels, chosen)
        labels[taken] = structure
        chosen[taken] = probabilities[taken]
        total, aleatoric = self.total[region], self.aleatoric[region]
        speaks = uncertainty.total > total
        total[speaks] = uncertainty.total[speaks]
        aleatoric[speaks] = uncertainty.aleatoric[speaks]
        if self.probabilities is not None:
            drawn = self.probabilities[structure][region]
            np.maximum(drawn, probabilities, out=drawn)
        if self.reached is not None:
            self.reached.draw(structure, region, probabilities)


def _won(
    probabilities: NDArray[np.floating], structure: int, labels: NDArray[np.signedinteger], chosen: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Decide which voxels [rows, columns] a structure gets in a slice where others were drawn before."""
    claimed = probabilities > 0.5
    taken = claimed & (probabilities > chosen)
    for other in np.unique(labels[claimed]):
        if other in (-1, structure):
            continue
        theirs = labels == other
        shared = claimed & theirs
        overlap = np.count_nonzero(shared)
        if overlap >= _NESTED * np.count_nonzero(claimed):
            taken |= shared
        elif overlap >= _NESTED * np.count_nonzero(theirs):
            taken &= ~shared
    return taken
