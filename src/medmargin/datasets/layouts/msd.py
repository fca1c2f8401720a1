"""Medical Segmentation Decathlon layout: `dataset.json` with a "training" list; channels are the 4th axis of a NIfTI.

Antonelli et al., Nat Commun 13:4128, 2022. Test images have no labels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from medmargin.datasets.case import Case
from medmargin.datasets.faults import Fault
from medmargin.datasets.layouts.description import FILE_NAME, Channels, make_task, read_description
from medmargin.datasets.layouts.listing import Listing
from medmargin.datasets.layouts.tables import Row, patient_of, read_table
from medmargin.errors import DataError


class _Pair(BaseModel):
    model_config = ConfigDict(extra="allow")

    image: str
    label: str | None = None


class _Description(BaseModel):
    """`dataset.json`; further fields are allowed and ignored."""

    model_config = ConfigDict(extra="allow")

    name: str | None = None
    modality: Channels
    labels: dict[str, str] = Field(min_length=1)
    training: list[_Pair]
    test: list[str | _Pair] = []
    spacing_known: bool = True


def matches(description: Mapping[str, Any]) -> bool:
    """Tell whether a `dataset.json` is in the words of the Decathlon."""
    return "training" in description and "modality" in description and "channel_names" not in description


def read(folder: Path) -> Listing:
    """List the cases of a folder.

    Raises:
        DataError: `dataset.json` is missing or wrong, names a file outside the folder, or names a case twice.
    """
    source = folder / FILE_NAME
    description = read_description(source, _Description)
    task = make_task(
        description.name or re.sub(r"^Task\d+_", "", folder.name),
        channels=description.modality,
        labels=_values_by_name(description.labels, source),
        dims=3,
        unit="mm" if description.spacing_known else "px",
        source=source,
    )
    facts = read_table(folder / "attributes.csv")
    test = [_Pair(image=entry) if isinstance(entry, str) else entry for entry in description.test]
    training_cases = tuple(_case(folder, pair, facts) for pair in description.training)
    test_cases = tuple(_case(folder, pair, facts) for pair in test)
    names = [case.name for case in (*training_cases, *test_cases)]
    if repeated := sorted({entry for entry in names if names.count(entry) > 1}):
        raise DataError(f"{source}: case '{repeated[0]}' is listed twice; every image may be listed once")
    return Listing(task, training_cases, test_cases, faults=_misfits(training_cases))


def _values_by_name(labels: Mapping[str, str], source: Path) -> dict[str, int]:
    try:
        return {label: int(value) for value, label in labels.items()}
    except ValueError as error:
        raise DataError(f"{source}: the keys of 'labels' are not label values 0, 1, 2, ...: {error}") from error


def _case(folder: Path, pair: _Pair, facts: Mapping[str, Row]) -> Case:
    image = _inside(folder, pair.image)
    label = None if pair.label is None else _inside(folder, pair.label)
    name = re.sub(r"\.(nii|nii\.gz)$", "", image.name)
    attributes = facts.get(name, {})
    return Case(
        name=name,
        patient=patient_of(name, attributes),
        images=(image,),
        label=label if label is not None and label.is_file() else None,
        attributes=dict(attributes),
    )


def _inside(folder: Path, entry: str) -> Path:
    path = Path(os.path.normpath(folder / entry))
    if not path.is_relative_to(os.path.normpath(folder)):
        raise DataError(f"{folder / FILE_NAME}: '{entry}' lies outside the data set's folder")
    return path


def _misfits(cases: tuple[Case, ...]) -> tuple[Fault, ...]:
    return tuple(
        Fault("W", "image-without-label", case.name, "no label file although it is listed for training; not trained on")
        for case in cases
        if case.label is None
    )
