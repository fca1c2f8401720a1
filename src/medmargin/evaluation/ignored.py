"""Voxels that nobody labelled count nowhere.

They are background in truth and answer before overlap and distances are measured, and are left out of all counts of
voxels: calibration, error detection, the band, raters. Volumes are counted outside of them, so that an interval for the
whole image has nothing to be compared with. Changing an answer there changes no figure except the case score, which
needs no truth and looks at the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED_REASON = "some voxels were not labelled, and the predicted interval is of the whole image"


def cleared(
    truths: Sequence[NDArray[Any]], labels: NDArray[Any], ignore: int | None
) -> tuple[list[NDArray[Any]], NDArray[Any], NDArray[np.bool_] | None]:
    """Put background where any of the true label maps was not labelled.

    Args:
        truths: label maps of one shape, one per rater. labels: the answer's. ignore: value of what was not labelled.

    Returns:
        The label maps, the answer, and the voxels that do not count; the same arrays and None where there are none.
    """
    ignored = None if ignore is None else np.any([truth == ignore for truth in truths], axis=0)
    if ignored is None or not ignored.any():
        return list(truths), labels, None
    clean = [np.where(ignored, np.zeros((), array.dtype), array) for array in (*truths, labels)]
    return clean[:-1], clean[-1], ignored
