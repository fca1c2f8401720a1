"""`ClassCanvas`: slices with all their classes, one map each for labels and uncertainty; and the mean of three cuts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.inference.canvas import SliceMaps
from medmargin.inference.class_maps import ClassMaps
from medmargin.inference.stack import SliceStack
from medmargin.uncertainty.decomposition import class_entropy


class ClassCanvas(SliceMaps):
    """Maps [slices, height, width] that slices are drawn on, each once; arguments as in `SliceMaps`.

    Attributes:
        further: name -> map [slices, height, width] of what else the slices hold.
    """

    def __init__(self, shape: tuple[int, int, int], **options: Any) -> None:
        super().__init__(shape, **options)
        self.further: dict[str, NDArray[np.float32]] = {}

    def sample(self, member: int, probabilities: NDArray[np.float32]) -> None:
        """Count the volumes that one answer [K, H, W] gives the structures in one slice."""
        for structure, values in enumerate(probabilities[1:]):
            self.samples.add(structure, member, values)

    def draw(self, index: int, maps: ClassMaps) -> None:
        """Draw slice `index`; the most probable class gets the voxel."""
        self.labels[index] = maps.probabilities.argmax(axis=0) - 1
        self._chosen[index] = maps.probabilities.max(axis=0)
        self.total[index], self.aleatoric[index] = maps.total, maps.aleatoric
        for name, values in maps.further.items():
            self.further.setdefault(name, np.zeros_like(self.total))[index] = values
        if self.probabilities is not None:
            self.probabilities[:, index] = maps.probabilities[1:]
        if self.reached is not None:
            for structure, values in enumerate(maps.probabilities[1:]):
                self.reached.draw(structure, np.s_[index], values)


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
