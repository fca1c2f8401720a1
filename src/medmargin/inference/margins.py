"""Where every structure surely is and is not, by the thresholds that calibration has guaranteed.

Kept while slices are drawn as two bits per structure and voxel: whether its probability reaches the outer and the inner
threshold. So 20 structures take 6 bytes a voxel, and no probability map is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.uncertainty.calibration import Calibration, ThresholdMargins

_PER_BYTE = 8


class Reached:
    """Bits [B, slices, height, width] of the thresholds that structures reach.

    Args:
        shape: (slices, height, width). thresholds: of each structure, None without a guarantee.
    """

    def __init__(self, shape: tuple[int, int, int], thresholds: Sequence[ThresholdMargins | None]) -> None:
        self.thresholds = tuple(thresholds)
        size = (-(-len(self.thresholds) // _PER_BYTE), *shape)
        self.outer, self.inner = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        for structure in range(len(self.thresholds)):
            self.draw(structure, np.s_[:, :, :], np.zeros((), np.float32))  # where nothing is drawn, p is 0

    def draw(self, structure: int, place: Any, probabilities: NDArray[np.floating]) -> None:
        """Mark a structure's rescaled probabilities; drawn twice, the larger one counts.

        Args:
            place: index of [slices, height, width] that fits the shape of `probabilities`.
        """
        margins = self.thresholds[structure]
        if margins is None:
            return
        byte, bit = structure // _PER_BYTE, np.uint8(1 << structure % _PER_BYTE)
        for planes, threshold in ((self.outer, margins.outer), (self.inner, margins.inner)):
            planes[byte][place] |= bit * (probabilities >= threshold)

    def restored(self, restore: Callable[[NDArray[np.uint8]], NDArray[Any]]) -> Margins:
        """Bring the bits to the image's own grid, as labels are brought there."""
        outer, inner = (np.stack([restore(plane) for plane in planes]) for planes in (self.outer, self.inner))
        return Margins(outer, inner, tuple(margins is not None for margins in self.thresholds))


@dataclass(frozen=True, eq=False)
class Margins:
    """Inner and outer regions of an answer.

    Attributes:
        outer, inner: [B, I, J, K] bits of the thresholds reached.
        known: whether each structure, in the order of the answer, has a guarantee.
    """

    outer: NDArray[np.uint8]
    inner: NDArray[np.uint8]
    known: tuple[bool, ...]

    def regions(self, structure: int, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Mark [I, J, K] 0 surely outside, 1 undecided, 2 surely inside; as `ThresholdMargins.regions`.

        Args:
            structure: its place in the answer. mask: [I, J, K] of it as it is shown.
        """
        byte, bit = structure // _PER_BYTE, np.uint8(1 << structure % _PER_BYTE)
        found = ((self.outer[byte] & bit) > 0) | mask
        return found.astype(np.uint8) + (((self.inner[byte] & bit) > 0) & mask)


def thresholds_reached(
    calibration: Calibration | None, structures: Sequence[str], shape: tuple[int, int, int]
) -> Reached | None:
    """Prepare the bits of an image [slices, height, width]; None where no structure has guaranteed thresholds."""
    if calibration is None:
        return None
    found = (calibration.guarantees.get(name) for name in structures)
    thresholds = [None if guarantees is None else guarantees.thresholds for guarantees in found]
    return Reached(shape, thresholds) if any(thresholds) else None
