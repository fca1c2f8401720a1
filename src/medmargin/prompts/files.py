"""Boxes and points from files and from the command line, in voxels of the image file's own grid or in RAS+ mm.

| file | holds |
|---|---|
| CSV, boxes | columns `case,structure,x_min,y_min[,z_min],x_max,y_max[,z_max]` |
| CSV, points | columns `case,structure,x,y[,z],label`; label 1 inside, 0 outside the structure |
| JSON | a list of records with the names of the CSV columns, or records grouped by case: `{"case_01": [...]}` |
| NPZ | the challenge's `boxes` [N, 4] or [N, 6]; the case is the file's name, structures "object 1", "object 2" ... |

Each box is a prompt of its own; the points of one case and structure form one prompt.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medmargin.errors import PromptError
from medmargin.imaging import challenge_npz
from medmargin.prompts.types import Box, Point, Prompt

_MINIMUM, _MAXIMUM = ("x_min", "y_min", "z_min"), ("x_max", "y_max", "z_max")
_POSITION = ("x", "y", "z")
_Row = tuple[str, Mapping[str, Any]]  # where it stands ("row 3"), and its fields


def read_prompts(path: Path | str) -> dict[str, list[Prompt]]:
    """Read the prompts of every case of a CSV, JSON or challenge NPZ file.

    Coordinates come back as they are written: `placement.to_voxels` turns millimetres into voxels once the image's grid
    is known, and `placement.check_inside` compares them with the image.

    Raises:
        PromptError: the file cannot be read, or a field is missing or wrong; names the file, the row and the column.
        DataError: a damaged NPZ archive.
    """
    path = Path(path)
    readers = {".csv": _csv_rows, ".json": _json_rows, ".npz": _npz_rows}
    if path.suffix.lower() not in readers:
        raise PromptError(f"{path}: prompts are read from {', '.join(readers)} files, found '{path.suffix}'")
    if not path.is_file():
        raise PromptError(f"{path}: no such file; expected boxes or points as {', '.join(readers)}")
    try:
        prompts = _grouped(path, readers[path.suffix.lower()](path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PromptError(f"{path}: cannot be read as {path.suffix} prompts ({error})") from error
    if not prompts:
        raise PromptError(f"{path}: holds no prompt; expected at least one box or point")
    return prompts


def parse_box(text: str) -> Box:
    """Read a box typed on the command line: "x_min,y_min,x_max,y_max" or "x_min,y_min,z_min,x_max,y_max,z_max".

    Raises:
        PromptError: not 4 or 6 finite numbers, or the corners are swapped.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (4, 6):
        raise PromptError(
            f"box '{text}': expected 4 numbers x_min,y_min,x_max,y_max or 6 numbers x_min,y_min,z_min,x_max,y_max,z_max"
        )
    half = len(numbers) // 2
    return Box(tuple(numbers[:half]), tuple(numbers[half:]))


def _csv_rows(path: Path) -> Iterator[_Row]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        for row in reader:
            if None in row:
                raise PromptError(f"{path}: row {reader.line_num} has more fields than the header names columns")
            yield f"row {reader.line_num}", row


def _json_rows(path: Path) -> Iterator[_Row]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise PromptError(f"{path}: not valid JSON: {error}") from error
    groups = content.items() if isinstance(content, dict) else [(None, content)]
    for case, records in groups:
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise PromptError(f'{path}: expected a list of records, or {{"case": [records]}}, named like CSV columns')
        for number, record in enumerate(records, start=1):
            where = f"record {number}" if case is None else f"case '{case}', record {number}"
            yield where, record if case is None else {"case": case, **record}


def _npz_rows(path: Path) -> Iterator[_Row]:
    boxes = challenge_npz.read(path).boxes
    if boxes is None:
        raise PromptError(f"{path}: holds no 'boxes'; expected an array [N, 4] or [N, 6]")
    half = boxes.shape[1] // 2
    for number, box in enumerate(boxes, start=1):
        corners = {**dict(zip(_MINIMUM, box[:half], strict=False)), **dict(zip(_MAXIMUM, box[half:], strict=False))}
        yield f"box {number}", {"case": path.stem, "structure": f"object {number}", **corners}


def _grouped(path: Path, rows: Iterable[_Row]) -> dict[str, list[Prompt]]:
    """Turn rows into prompts: boxes one by one, points by case and structure."""
    prompts: dict[str, list[Prompt]] = defaultdict(list)
    points: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for where, row in rows:
        place = f"{path}: {where}"
        case, structure = _text(row, "case", place), _text(row, "structure", place)
        if "x_min" in row:
            prompts[case].append(Prompt(structure=structure, box=_box(row, place)))
        elif "x" in row:
            points[case, structure].append(_point(row, place))
        else:
            raise PromptError(f"{place}: no column 'x_min' (boxes) and no column 'x' (points)")
    for (case, structure), clicks in points.items():
        prompts[case].append(Prompt(structure=structure, points=tuple(clicks)))
    return dict(prompts)


def _box(row: Mapping[str, Any], place: str) -> Box:
    length = 3 if _given(row, "z_min") or _given(row, "z_max") else 2
    minimum, maximum = (tuple(_number(row, name, place) for name in names[:length]) for names in (_MINIMUM, _MAXIMUM))
    for low, high, start, end in zip(_MINIMUM, _MAXIMUM, minimum, maximum, strict=False):
        if start > end:
            raise PromptError(f"{place}: {low} = {start:g} is larger than {high} = {end:g}; swap them")
    return Box(minimum, maximum)


def _point(row: Mapping[str, Any], place: str) -> Point:
    position = tuple(_number(row, name, place) for name in _POSITION[: 3 if _given(row, "z") else 2])
    label = _number(row, "label", place)
    if label not in (0, 1):
        raise PromptError(f"{place}: column 'label' is {label:g}; expected 1 (inside the structure) or 0 (outside)")
    return Point(position, positive=label == 1)


def _given(row: Mapping[str, Any], column: str) -> bool:
    return str(row.get(column) if row.get(column) is not None else "").strip() != ""


def _text(row: Mapping[str, Any], column: str, place: str) -> str:
    if not _given(row, column):
        raise PromptError(f"{place}: column '{column}' is missing or empty")
    return str(row[column]).strip()


def _number(row: Mapping[str, Any], column: str, place: str) -> float:
    text = _text(row, column, place)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise PromptError(f"{place}: column '{column}' is '{text}'; expected a finite number")
    return number
