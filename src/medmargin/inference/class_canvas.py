"""`ClassCanvas`: slices with all their classes, one map each for labels and uncertainty; and the mean of three cuts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.inference.canvas import SliceMaps
from medmargin.inference.class_maps import ClassMaps
from medmargin.inference.stack import SliceStack
from medmargin.uncertainty.decomposition import class_entropy
from medmargin.uncertainty.volumes import THRESHOLDS


class ClassCanvas(SliceMaps):
    """Maps [slices, height, width] that slices, or parts of them, are drawn on, each voxel once.

    Args:
        shape: (slices, height, width).
        is_split: whether the uncertainty has parts; without, no memory is spent on the aleatoric one.
        keeps_chosen: whether to keep the probability of what has each voxel, for rules that change the labels later.
        options: as in `SliceMaps`.

    Attributes:
        further: name -> map [slices, height, width] of what else the slices hold.
        chosen: [slices, height, width] probability of what has the voxel, or None.
    """

    def __init__(
        self, shape: tuple[int, int, int], *, is_split: bool = True, keeps_chosen: bool = False, **options: Any
    ) -> None:
        super().__init__(shape, **options)
        self.further: dict[str, NDArray[np.float32]] = {}
        self.chosen = np.zeros(shape, np.float16) if keeps_chosen else None
        self._is_split = is_split
        structures = options["structures"]
        self._voxels, self._inside = np.zeros(structures, np.int64), np.zeros(structures)

    def sample(self, member: int, probabilities: NDArray[np.float32]) -> None:
        """Count the volumes that one answer [K, H, W] gives the structures in one slice."""
        for structure, values in enumerate(probabilities[1:]):
            # The lowest threshold is 0.5 / THRESHOLDS: most voxels of most structures do not reach it.
            self.samples.add(structure, member, values[values * THRESHOLDS > 0.5])

    def draw(self, place: Any, maps: ClassMaps) -> None:
        """Draw a slice or a part of one.

        Args:
            place: index of [slices, height, width] that fits the maps.
        """
        labels, chosen = self._taken(maps.probabilities)
        self.labels[place] = labels
        if self.chosen is not None:
            self.chosen[place] = chosen
        self._count(labels, chosen, maps.probabilities[1:])
        self.total[place] = maps.total
        if self._is_split:
            self.aleatoric[place] = maps.aleatoric
        for name, values in maps.further.items():
            if name not in self.further:
                self.further[name] = np.zeros(self.total.shape, np.float32)
            self.further[name][place] = values
        for structure, values in enumerate(maps.probabilities[1:]):
            if self.probabilities is not None:
                self.probabilities[structure][place] = values
            if self.reached is not None:
                self.reached.draw(structure, place, values)

    def probability_inside(self, structure: int) -> tuple[int, float]:
        """Count the voxels a structure has, and sum its probability over them."""
        return int(self._voxels[structure]), float(self._inside[structure])

    def recount(self) -> None:
        """Count again after `labels` and `chosen` have been changed."""
        if self.chosen is None:
            raise ValueError("the canvas keeps no probabilities to count again")
        self._voxels[:], self._inside[:] = 0, 0
        for labels, chosen in zip(self.labels, self.chosen, strict=True):
            self._count(labels, chosen, None)

    def _taken(self, probabilities: NDArray[np.float32]) -> tuple[NDArray[np.signedinteger], NDArray[np.float32]]:
        """Give every voxel of [K, H, W] to its most probable class: its index, -1 background, and its probability."""
        labels, chosen = np.full(probabilities.shape[1:], -1, self.labels.dtype), probabilities[0].copy()
        for structure, values in enumerate(probabilities[1:]):
            np.copyto(labels, structure, where=values > chosen)
            np.maximum(chosen, values, out=chosen)
        return labels, chosen

    def _count(
        self,
        labels: NDArray[np.signedinteger],
        chosen: NDArray[np.floating],
        probabilities: NDArray[np.float32] | None,
    ) -> None:
        """Add voxels [H, W] to what `probability_inside` tells."""
        numbers, size = labels.ravel().astype(np.int64) + 1, len(self._voxels) + 1
        self._voxels += np.bincount(numbers, minlength=size)[1:]
        self._inside += np.bincount(numbers, chosen.ravel(), minlength=size)[1:]


class RegionCanvas(ClassCanvas):
    """A canvas of structures that may lie in each other; where several reach 0.5, the last one gets the voxel.

    Args:
        contained: index of each structure -> indices of the structures that lie in it, itself included; their voxels
            are its own.
        options: as in `ClassCanvas`.
    """

    def __init__(self, shape: tuple[int, int, int], *, contained: Sequence[Sequence[int]], **options: Any) -> None:
        super().__init__(shape, **options)
        self.contained = tuple(tuple(inner) for inner in contained)

    def _taken(self, probabilities: NDArray[np.float32]) -> tuple[NDArray[np.signedinteger], NDArray[np.float32]]:
        labels, chosen = np.full(probabilities.shape[1:], -1, self.labels.dtype), probabilities[0].copy()
        for structure, values in enumerate(probabilities[1:]):
            claimed = values > 0.5
            labels[claimed], chosen[claimed] = structure, values[claimed]
        return labels, chosen

    def _count(
        self,
        labels: NDArray[np.signedinteger],
        chosen: NDArray[np.floating],
        probabilities: NDArray[np.float32] | None,
    ) -> None:
        """Add voxels; after a recount an outer structure counts with the probability of the inner one."""
        for structure, inner in enumerate(self.contained):
            mask = np.isin(labels, inner)
            values = chosen if probabilities is None else probabilities[structure]
            self._voxels[structure] += int(mask.sum())
            self._inside[structure] += float(values[mask].sum(dtype=np.float64))


class PlaneMean:
    """Mean of what the cuts of one volume say about each voxel, added up slice by slice.

    The total uncertainty is the entropy of the mean probabilities; the aleatoric part is the mean of the cuts' parts,
    at most the total, so that cuts that contradict each other show as epistemic.

    Args:
        stacks: the cuts.
        classes: number of classes with the background.
    """

    def __init__(self, stacks: tuple[SliceStack, ...], classes: int) -> None:
        self._shape, self._cuts = stacks[0].working_shape, len(stacks)
        self._probabilities = np.zeros((classes, *self._shape), np.float32)
        self._aleatoric = np.zeros(self._shape, np.float32)
        self._further: dict[str, NDArray[np.float32]] = {}

    def add(self, stack: SliceStack, index: int, maps: ClassMaps) -> None:
        """Take in slice `index` of a cut."""
        for mean, values in zip(self._probabilities, maps.probabilities, strict=True):
            stack.view(mean)[index] += values / self._cuts
        stack.view(self._aleatoric)[index] += maps.aleatoric / self._cuts
        for name, values in maps.further.items():
            mean = self._further.setdefault(name, np.zeros(self._shape, np.float32))
            stack.view(mean)[index] += values / self._cuts

    def maps(self, stack: SliceStack, index: int) -> ClassMaps:
        """Return the mean in slice `index` of a cut, after all slices of all cuts were added."""
        probabilities = np.stack([stack.view(mean)[index] for mean in self._probabilities])
        total = class_entropy(probabilities)
        aleatoric = np.minimum(stack.view(self._aleatoric)[index], total)
        further = {name: stack.view(mean)[index] for name, mean in self._further.items()}
        return ClassMaps(probabilities, total, aleatoric, further)
