"""From the averages of a slice to what is known of it, rescaled by a run's calibration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medmargin.inference.class_maps import ClassMaps
from medmargin.inference.recalibration import rescaled_maps, same_shares
from medmargin.inference.window_network import Answers
from medmargin.uncertainty.calibration import Calibration
from medmargin.uncertainty.decomposition import binary_entropy, class_entropy

Map = NDArray[np.float32]


def slice_maps(averages: Map, answers: Answers) -> ClassMaps:
    """Read the averages [A, H, W] of a slice.

    The total is the entropy of the mean probabilities, the aleatoric part the mean expected entropy, at most the total:
    windows and passes that contradict each other show as epistemic. Of regions the most uncertain one speaks; their
    "background" is what the most probable one leaves over.
    """
    outputs, entropies = answers.outputs, answers.entropies
    probabilities, expected = averages[:outputs], averages[outputs : outputs + entropies]
    further = {"vacuity": averages[outputs + entropies]} if answers.evidence is not None else {}
    if answers.regions:
        totals = binary_entropy(probabilities)
        speaks = totals.argmax(axis=0)[None]
        total = np.take_along_axis(totals, speaks, axis=0)[0]
        aleatoric = np.take_along_axis(expected, speaks, axis=0)[0] if entropies else total
        probabilities = np.concatenate([1 - probabilities.max(axis=0, keepdims=True), probabilities])
    else:
        total = class_entropy(probabilities)
        aleatoric = expected[0] if entropies else total
    return ClassMaps(probabilities, total, np.minimum(aleatoric, total), further)


class VolumeRescaling:
    """Rescales the slices of a volume.

    Args:
        calibration: of the run. regions: whether structures stand each on their own.
    """

    def __init__(self, calibration: Calibration, *, regions: bool) -> None:
        self._calibration, self._regions = calibration, regions

    def maps(self, maps: ClassMaps, picture: Map | None) -> ClassMaps:
        """Rescale all that is known of a slice; the parts of its uncertainty keep their shares.

        Args:
            picture: [C, H, W], for a temperature that looks at the image.
        """
        if not self._regions:
            return rescaled_maps(self._calibration, maps, picture)
        structures = self._calibration.apply_probabilities(maps.probabilities[1:], image=picture)
        rescaled = np.concatenate([1 - structures.max(axis=0, keepdims=True), structures])
        parts = same_shares(binary_entropy(structures).max(axis=0), maps.total, maps.aleatoric)
        return ClassMaps(rescaled, parts.total, parts.aleatoric, dict(maps.further))
