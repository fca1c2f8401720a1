"""`dataset.json`: channels and structures of a data set, and the `Task` made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, ValidationError

from medmargin.datasets.task import IGNORE, Task
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
    regions_class_order: list[int] | None = None


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
    name: str,
    *,
    channels: Sequence[str],
    labels: Mapping[str, Any],
    dims: int,
    unit: str,
    source: Path,
    regions_class_order: Sequence[int] | None = None,
) -> Task:
    """Put structures into contiguous values 1..K in the order of their values in the files.

    Args:
        channels: channel names; "CT" makes it a CT task.
        labels: structure name -> value in the label files, background included or not. Where one lists several values
            they are regions; "ignore" is the value of voxels that nobody labelled.
        unit: "mm", or "px" where the spacing is unknown.
        source: file that states the labels, for error messages.
        regions_class_order: value that a label map holds in each region, in the order in which they are written: the
            task's order. Without regions it has no meaning.

    Raises:
        DataError: no structure, a value given twice or out of range, regions that a label map in that order cannot
            hold, or an ignore label that is not the highest value.
    """
    lists = {label: _listed(label, value, source) for label, value in labels.items()}
    ignored = lists.pop(IGNORE, None)
    values = {label: listed for label, listed in lists.items() if listed != (0,)}
    if any(len(listed) > 1 for listed in values.values()):
        structures, originals, regions = _regions(values, regions_class_order, source)
    else:
        structures, originals, regions = (*_plain({label: value for label, (value,) in values.items()}, source), {})
    return Task(
        name=name,
        channels=tuple(channels),
        structures=structures,
        dims=dims,
        unit=unit,
        modality="CT" if any(channel.upper() == "CT" for channel in channels) else "other",
        original_values=originals,
        regions=regions,
        ignore=None if ignored is None else len(structures) + 1,
        file_values=(values if regions else {}) | _ignored(ignored, values, source),
    )


def _listed(label: str, value: Any, source: Path) -> tuple[int, ...]:
    """Check the value or values of one label."""
    found = value if isinstance(value, list | tuple) else [value]
    whole = bool(found) and all(isinstance(entry, int) and not isinstance(entry, bool) for entry in found)
    if not whole or len(set(found)) < len(found) or (0 in found and len(found) > 1):
        raise DataError(
            f"{source}: 'labels' gives '{label}' as {value}; expected one whole number, or for a region a list of "
            "different ones without the background's 0"
        )
    return tuple(found)


def _plain(values: Mapping[str, int], source: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Number structures that exclude each other; also gives their values in the files."""
    found = sorted(values.values())
    if not found or len(set(found)) < len(found) or found[0] < 1 or found[-1] > _LARGEST_VALUE:
        raise DataError(
            f"{source}: 'labels' is {dict(values)}; expected at least one structure and a value of its own for each, "
            f"from 1 to {_LARGEST_VALUE}"
        )
    originals = dict(sorted(values.items(), key=lambda item: item[1]))
    return {label: value for value, label in enumerate(originals, start=1)}, originals


def _regions(
    values: Mapping[str, tuple[int, ...]], order: Sequence[int] | None, source: Path
) -> tuple[dict[str, int], dict[str, int], dict[str, tuple[int, ...]]]:
    """Number regions in writing order; also gives the value of each in the files, and which numbers lie in each.

    Written one over the other, a voxel keeps the value of the last region it is in. That loses nothing if this value
    stands for the same regions as the voxel's own.
    """
    if order is None or len(order) != len(values):
        raise DataError(
            f"{source}: 'regions_class_order' is {'missing' if order is None else list(order)}; with regions expected "
            f"one value for each of {', '.join(values)}"
        )
    originals = dict(zip(values, order, strict=True))
    if outside := [label for label, value in originals.items() if value not in values[label]]:
        raise DataError(
            f"{source}: 'regions_class_order' writes '{outside[0]}' as {originals[outside[0]]}, which is not among its "
            f"values {list(values[outside[0]])}"
        )
    _plain(originals, source)
    structures = {label: number for number, label in enumerate(values, start=1)}
    for value in sorted({value for listed in values.values() for value in listed}):
        there, read = _held(value, values), _held(originals[_held(value, values)[-1]], values)
        if not 1 <= value <= _LARGEST_VALUE or there != read:
            raise DataError(
                f"{source}: label value {value} lies in {', '.join(there)}, but written in the order of 'labels' it "
                f"reads as {', '.join(read)}. List inner regions after those around them, and give an overlap of "
                f"regions that do not hold each other a region of its own; values run from 1 to {_LARGEST_VALUE}"
            )
    regions = {
        label: tuple(structures[inner] for inner in values if originals[inner] in listed)
        for label, listed in values.items()
    }
    return structures, originals, regions


def _held(value: int, values: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Name the regions that a value lies in."""
    return [label for label, listed in values.items() if value in listed]


def _ignored(
    ignored: tuple[int, ...] | None, values: Mapping[str, tuple[int, ...]], source: Path
) -> dict[str, tuple[int, ...]]:
    if ignored is None:
        return {}
    highest = max(value for listed in values.values() for value in listed)
    if len(ignored) > 1 or not highest < ignored[0] <= _LARGEST_VALUE:
        raise DataError(
            f"{source}: '{IGNORE}' is {list(ignored)}; expected one value above that of every structure ({highest}), "
            f"up to {_LARGEST_VALUE}"
        )
    return {IGNORE: ignored}
