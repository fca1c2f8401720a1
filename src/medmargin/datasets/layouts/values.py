"""Names for the structures of data sets that do not name them: the values found in their label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medmargin.errors import DataError
from medmargin.imaging import read_label


def labels_found(paths: Sequence[Path], *, source: Path) -> dict[str, int]:
    """Look through label maps and name each value found: {"label 1": 1, ...}.

    Unreadable label maps are passed over here; loading or checking their case reports them.

    Args:
        paths: label files.
        source: the manifest or folder, for error messages.

    Raises:
        DataError: no label map holds a structure.
    """
    values: set[int] = set()
    for path in paths:
        try:
            values.update(np.unique(read_label(path).voxels).tolist())
        except DataError:
            continue
    values.discard(0)
    if not values:
        raise DataError(
            f"{source}: no structure found in {len(paths)} label maps, and no dataset.json names any; write one "
            'with "channel_names": {"0": "MRI"} and "labels": {"background": 0, "organ": 1}'
        )
    return {f"label {value}": value for value in sorted(values)}
