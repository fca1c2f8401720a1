"""Label maps of further raters, read like the label of their case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medmargin.datasets.case import Case
from medmargin.datasets.loading import load_label
from medmargin.datasets.task import Task
from medmargin.imaging import Volume


def load_rater_labels(case: Case, task: Task, image: Volume) -> list[np.ndarray]:
    """Read the label maps [I, J, K] of the raters beside the case's label, on the grid of `image`.

    Raises:
        DataError, GeometryError: as `load_label`, for any of them.
    """
    return [load_label(replace(case, label=path), task, image=image).voxels[0] for path in case.raters]
