"""A case with several raters: is a probability as often right as it says, by each rater's label map?

Kahl et al. 2024, arXiv:2401.08501: every rater is the truth in turn. Of all raters together (voxels x raters) a
probability is right where it is the share of raters who agree; against one rater alone nobody else can be right. The
figures are those of `voxels`, and nothing of the size of the image is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.evaluation.voxels import VoxelCounter, count_slabs, voxel_figures
from medmargin.uncertainty.bands import band


def rater_calibration(
    raters: Sequence[NDArray[Any]],
    labels: NDArray[Any],
    structures: Mapping[str, int],
    probabilities: Mapping[str, NDArray[Any]] | None,
    *,
    regions: Mapping[str, int | Sequence[int]] | None = None,
    ignored: NDArray[np.bool_] | None = None,
) -> dict[str, Any]:
    """Measure the ECE of the most probable class against at least two raters.

    Args:
        raters: label maps [I, J, K], the truth first.
        labels: the answer's label map, for the band around the borders of all maps.
        structures: name -> label value. probabilities: name -> [I, J, K] in [0, 1], or None.
        regions: name -> the label values in it, where structures overlap.
        ignored: [I, J, K] voxels that count nowhere; the label maps hold background there. None: all count.

    Returns:
        ece (of voxels x raters), ece_each (one per rater), and both of the `band`; None with its reason where there are
        no probabilities or no voxels.
    """
    counted = None if ignored is None else ~ignored
    near = band(*raters, labels)
    if counted is not None:
        near &= counted
    counters = [(VoxelCounter(), VoxelCounter()) for _ in raters]
    for (whole, at_borders), rater in zip(counters, raters, strict=True):
        count_slabs(
            [(whole, counted), (at_borders, near)],
            truth=rater,
            labels=labels,
            structures=structures,
            probabilities=probabilities,
            uncertainty=None,
            regions=regions,
        )
    whole_figures, band_figures = (_figures(found) for found in zip(*counters, strict=True))
    return {**whole_figures, "band": band_figures}


def _figures(counters: Sequence[VoxelCounter]) -> dict[str, Any]:
    together = VoxelCounter()
    for counter in counters:
        together.add(counter.tally())
    figures = voxel_figures(together.tally())
    each = [voxel_figures(counter.tally())["ece"] for counter in counters]
    if figures["ece"] is None:
        reason = figures["ece_reason"]
        return {"ece": None, "ece_reason": reason, "ece_each": None, "ece_each_reason": reason}
    return {"ece": figures["ece"], "ece_each": each}
