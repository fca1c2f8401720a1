"""Answers rescaled by a run's calibration, slice by slice or object by object, before they are drawn.

The mean answer is rescaled as it was when the calibration was fitted; the labels are taken from the rescaled one, and
every uncertainty map is computed again. The total becomes the entropy of the rescaled probabilities. Its parts keep
their shares: aleatoric' = total' aleatoric / total (all of it where the total was 0), so that total = aleatoric +
epistemic and both stay at least 0. A rescaling of probabilities says how sure to be, and nothing about why.
The answers behind the volume intervals are rescaled one by one, with the same numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medmargin.inference.class_maps import ClassMaps
from medmargin.inference.segmentation import Segmentation, StructureResult
from medmargin.inference.trust import CaseTrust, Trust
from medmargin.uncertainty.calibration import Calibration, EvidentialRescaling, with_background
from medmargin.uncertainty.decomposition import Decomposition, binary_entropy, class_entropy, split

if TYPE_CHECKING:
    from medmargin.inference.stack import SliceStack

Map = NDArray[np.float32]


class SliceRescaling:
    """Rescales the slices of one cut of an image, for networks whose classes exclude each other.

    Args:
        calibration: of the run. stack: the cut, for a temperature that looks at the image.
    """

    def __init__(self, calibration: Calibration, stack: SliceStack) -> None:
        self._calibration, self._stack = calibration, stack
        self._looks = looks_at_image(calibration)

    def probabilities(self, index: int, probabilities: Map, vacuity: Map | None) -> Map:
        """Rescale class probabilities [K, H, W] of slice `index`."""
        return self._calibration.apply_probabilities(probabilities, vacuity, self._picture(index))

    def maps(self, index: int, maps: ClassMaps) -> ClassMaps:
        """Rescale all that is known of slice `index`."""
        return rescaled_maps(self._calibration, maps, self._picture(index))

    def _picture(self, index: int) -> Map | None:
        return slice_image(self._stack, index) if self._looks else None


def rescaled_maps(calibration: Calibration, maps: ClassMaps, picture: Map | None) -> ClassMaps:
    """Rescale all that is known of a slice whose classes exclude each other.

    Args:
        picture: [C, H, W], for a temperature that looks at the image.
    """
    vacuity = maps.further.get("vacuity")
    rescaled = calibration.apply_probabilities(maps.probabilities, vacuity, picture)
    parts = same_shares(class_entropy(rescaled), maps.total, maps.aleatoric)
    further = dict(maps.further)
    if vacuity is not None:
        further["vacuity"] = calibration.apply_vacuity(maps.probabilities, vacuity)
    return ClassMaps(rescaled, parts.total, parts.aleatoric, further)


class ObjectRescaling:
    """Rescales prompted objects, each by the numbers of its structure.

    Args:
        calibration: of the run. structures: names, in the order of the canvas; one the calibration does not know is
            left alone.
    """

    def __init__(self, calibration: Calibration, structures: list[str]) -> None:
        known = dict(zip(calibration.structures, calibration.rescalings, strict=True))
        self._rescalings = [known.get(name) for name in structures]

    def probabilities(self, structure: int, probabilities: NDArray[np.floating]) -> Map:
        """Rescale probabilities of any shape of one structure."""
        rescaling = self._rescalings[structure]
        if rescaling is None:
            return np.asarray(probabilities, np.float32)
        classes = with_background(probabilities[None])
        rescaling.scale(classes)
        return classes[1]

    def parts(self, probabilities: Map, given: Decomposition) -> Decomposition:
        """Split the uncertainty of rescaled probabilities in the shares of the answer as it was given."""
        return same_shares(binary_entropy(probabilities), given.total, given.aleatoric)


def slice_image(stack: SliceStack, index: int) -> Map:
    """Give a slice as a local temperature sees it: [3, H, W]."""
    return np.ascontiguousarray(stack.picture(index).transpose(2, 0, 1), np.float32)


def rescaled_threshold(calibration: Calibration, threshold: float | None) -> float | None:
    """Bring a threshold of the vacuity u to the rescaled vacuity u' = 1 / (1 + s (1 / u - 1)), which rises with u.

    None where evidence is also raised to a power: u' then depends on more than u.
    """
    rescaling = calibration.rescalings[0]
    if threshold is None or not isinstance(rescaling, EvidentialRescaling):
        return threshold
    if rescaling.exponent != 1:
        return None
    return 1 / (1 + rescaling.scale_of_evidence * (1 / max(threshold, 1e-6) - 1))


def concluded(
    answer: Segmentation, calibration: Calibration | None, trust: Trust | None, embedding: NDArray[np.floating] | None
) -> Segmentation:
    """Add what calibration knows about the whole case: trust in it, and volume intervals that hold.

    Features of trust are those of the answer before its intervals are stretched, as they were when it was fitted.

    Args:
        answer: rescaled. embedding: the network's description of the image, see `embedding`.
    """
    found = None if trust is None else trust.assess(answer, embedding)
    voxel_ml = answer.image.grid.voxel_volume_ml
    structures = [_promised(each, calibration, found, voxel_ml) for each in answer.structures]
    return replace(answer, structures=structures, trust=found)


def _promised(
    structure: StructureResult, calibration: Calibration | None, trust: CaseTrust | None, voxel_ml: float | None
) -> StructureResult:
    prediction = None if trust is None else trust.predictions.get(structure.name)
    if prediction is not None:
        structure = replace(structure, predicted_dice=prediction.dice, dice_at_least=prediction.at_least)
    guarantees = None if calibration is None else calibration.guarantees.get(structure.name)
    if calibration is None or guarantees is None or guarantees.volume is None:
        return structure
    low, high = calibration.apply_volume(
        structure.name, structure.low_voxels, float(structure.voxels), structure.high_voxels
    )
    each = None if structure.volume_ml is None else voxel_ml
    return replace(
        structure,
        low_voxels=low,
        high_voxels=high,
        low_ml=None if each is None else low * each,
        high_ml=None if each is None else high * each,
        level=guarantees.volume.level,
        guaranteed=True,
    )


def looks_at_image(calibration: Calibration | None) -> bool:
    """Tell whether rescaling needs the picture of a slice."""
    return calibration is not None and any(each.kind == "local temperature" for each in calibration.rescalings)


def same_shares(total: Map, given: Map, aleatoric: Map) -> Decomposition:
    """Split a rescaled total in the shares of the uncertainty as it was given."""
    share = np.divide(aleatoric, given, out=np.ones_like(given), where=given > 0)
    return split(total, total * share)
