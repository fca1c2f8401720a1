"""Running moments over the members of an answer, so that their full maps are never held together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medmargin.uncertainty.decomposition import Decomposition, binary_entropy, split

Entropy = Callable[[NDArray[np.floating]], NDArray[np.floating]]


class RunningMoments:
    """Mean probability and mean entropy of members that arrive one by one.

    The means are updated as m <- m + (x - m) / n, which leaves them exactly unchanged by equal members: a deterministic
    model has an epistemic part of exactly 0.

    Args:
        entropy: `binary_entropy` for foreground probabilities [*spatial], `class_entropy` for [K, *spatial].
    """

    def __init__(self, entropy: Entropy = binary_entropy) -> None:
        self.members = 0
        self._entropy = entropy
        self._means: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None  # probability, entropy

    def add(self, probabilities: NDArray[np.floating]) -> None:
        """Take in one member's probabilities, the same shape each time; the array is not kept."""
        self.members += 1
        entropy = self._entropy(probabilities)
        if self._means is None:
            self._means = probabilities.copy(), entropy
            return
        for mean, value in zip(self._means, (probabilities, entropy), strict=True):
            mean += (value - mean) / self.members

    @property
    def probabilities(self) -> NDArray[np.floating]:
        """Mean probability over the members so far.

        Raises:
            ValueError: no member was added.
        """
        return self._require_members()[0]

    def decomposition(self) -> Decomposition:
        """Split the uncertainty of the members so far; see `decomposition`.

        Raises:
            ValueError: no member was added.
        """
        probabilities, expected = self._require_members()
        return split(self._entropy(probabilities), expected)

    def _require_members(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        if self._means is None:
            raise ValueError("no member was added, so there are no moments")
        return self._means
