"""`dataset.json`: channels and structures of a data set, and the `Task` made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, ValidationError

from medmargin.datasets.task import Task
from medmargin.errors import DataError

FILE_NAME = "dataset.json"
_LARGEST_VALUE = 65535
_Model = TypeVar("_Model", bound=BaseModel)


def _in_order(names: Any) -> Any:
    """Turn {"0": "T1", "1": "T2"} into ["T1", "T2"]."""
    if not isinstance(names, dict):
        return names
    if sorted(names) != sorted(str(index) for index in range(len(names))):
        raise ValueError(f"the keys are {', '.join(names)}; expected 0, 1, 2, ... without gaps")
    return [names[str(index)] for index in range(len(names))]


Channels = Annotated[list[str], Field(min_length=1), BeforeValidator(_in_order)]


class Description(BaseModel):
    """`dataset.json` in the words of nnU-Net; further fields are allowed and ignored."""

    model_config = ConfigDict(extra="allow")

    channel_names: Channels
    labels: dict[str, Any] = Field(min_length=1)
    file_ending: str = ".nii.gz"
    name: str | None = None
    spacing_known: bool = True


class Object(RootModel[dict[str, Any]]):
    """Any JSON object: enough to tell the layouts apart."""


def read_description(path: Path, model: type[_Model]) -> _Model:
    """Read a JSON file into a pydantic model.

    Raises:
        DataError: missing, not JSON, or a field is absent or of the wrong type; names the file and the fields.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:3])
        raise DataError(f"{path}: not a data set description ({found})") from error


def make_task(
    name: str, *, channels: Sequence[str], labels: Mapping[str, Any], dims: int, unit: str, source: Path
) -> Task:
    """Put structures into contiguous values 1..K in the order of their values in the files.

    Args:
        channels: channel names; "CT" makes it a CT task.
        labels: structure name -> value in the label files, background included or not.
        unit: "mm", or "px" where the spacing is unknown.
        source: file that states the labels, for error messages.

    Raises:
        DataError: no structure, a value given twice or out of range, or regions and ignore labels (not supported).
    """
    if not all(isinstance(value, int) for value in labels.values()):
        raise DataError(
            f"{source}: 'labels' holds a region or a value that is no whole number; expected one whole number per "
            "structure (overlapping regions are not supported: write one label map without overlap)"
        )
    if "ignore" in labels:
        raise DataError(f"{source}: an 'ignore' label is not supported; leave those cases out or fill the zone")
    values = {label: value for label, value in labels.items() if value != 0}
    found = sorted(values.values())
    if not found or len(set(found)) < len(found) or found[0] < 1 or found[-1] > _LARGEST_VALUE:
        raise DataError(
            f"{source}: 'labels' is {dict(labels)}; expected at least one structure and a value of its own for each, "
            f"from 1 to {_LARGEST_VALUE}"
        )
    originals = dict(sorted(values.items(), key=lambda item: item[1]))
    return Task(
        name=name,
        channels=tuple(channels),
        structures={label: value for value, label in enumerate(originals, start=1)},
        dims=dims,
        unit=unit,
        modality="CT" if any(channel.upper() == "CT" for channel in channels) else "other",
        original_values=originals,
    )
