"""Challenge layout: a folder of NPZ files, one per case, with `imgs`, `gts` and, in 3-D, `spacing`; tests in `test/`.

"Segment Anything in Medical Images on Laptop" (CVPR 2024; branch LiteMedSAM of bowang-lab/MedSAM). Files name no
structures: a `dataset.json` in the folder may, else they are called after the values found. Files without `gts` are
unlabelled. `attributes.csv` holds facts per case where it exists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.case import Case
from medmargin.datasets.layouts.description import FILE_NAME, Description, make_task, read_description
from medmargin.datasets.layouts.listing import Listing
from medmargin.datasets.layouts.tables import Row, patient_of, read_table
from medmargin.datasets.layouts.values import labels_found
from medmargin.datasets.task import Task
from medmargin.errors import DataError
from medmargin.imaging import Volume, challenge_npz

TEST_FOLDER = "test"
_CT_WINDOW = (-160.0, 240.0)  # HU: level 40, width 400
_PERCENTILES = (0.5, 99.5)


def matches(folder: Path) -> bool:
    """Tell whether a folder holds challenge files."""
    return any(folder.glob("*.npz"))


def read(folder: Path) -> Listing:
    """List the cases of a folder.

    Raises:
        DataError: no file is readable, or `dataset.json` is wrong.
    """
    facts = read_table(folder / "attributes.csv")
    training, test = (
        tuple(_case(path, facts.get(path.stem, {})) for path in sorted(part.glob("*.npz")))
        for part in (folder, folder / TEST_FOLDER)
    )
    return Listing(_task(folder, training), training, test)


def challenge_intensities(voxels: NDArray[Any], *, is_ct: bool) -> NDArray[np.uint8]:
    """Scale intensities to 0..255 as the challenge prepares its files; uint8 stays as it is.

    CT is cut to the window of level 40 and width 400 HU, anything else to the 0.5 and 99.5 percentiles of its voxels
    other than 0 (Ma et al., Nat Commun 15:654, 2024).

    Args:
        voxels: [C, I, J, K] in the file's own unit, HU for CT.
    """
    if voxels.dtype == np.uint8:
        return voxels
    content = voxels[voxels != 0]
    low, high = _CT_WINDOW if is_ct else np.percentile(content, _PERCENTILES) if content.size else (0.0, 0.0)
    cut = np.clip(voxels.astype(np.float64), low, high)
    span = max(float(np.ptp(cut)), np.finfo(np.float64).tiny)
    return np.rint((cut - cut.min()) / span * 255).astype(np.uint8)


def _case(path: Path, attributes: Row) -> Case:
    return Case(
        name=path.stem,
        patient=patient_of(path.stem, attributes),
        images=(path,),
        label=path if "gts" in challenge_npz.array_names(path) else None,
        attributes=dict(attributes),
    )


def _task(folder: Path, cases: tuple[Case, ...]) -> Task:
    example = _first_readable(folder, cases)
    source = folder / FILE_NAME
    name, unit, order = folder.name, example.grid.unit, None
    if source.is_file():
        known = read_description(source, Description)
        name, channels, labels = known.name or name, known.channel_names, known.labels
        order = known.regions_class_order
    else:
        channels = ["R", "G", "B"] if example.channels == 3 else ["image"]
        labels = labels_found([case.label for case in cases if case.label is not None], source=folder)
    return make_task(
        name, channels=channels, labels=labels, dims=example.dims, unit=unit, source=source, regions_class_order=order
    )


def _first_readable(folder: Path, cases: tuple[Case, ...]) -> Volume:
    for case in cases:
        try:
            return challenge_npz.read_image(case.images[0])
        except DataError:
            continue  # loading or checking this case reports it
    raise DataError(f"{folder}: none of its {len(cases)} NPZ files holds a readable image 'imgs'")
