"""Names and colours of labels for viewers: ITK-SNAP label description and 3D Slicer colour table."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from pathlib import Path

from medmargin.storage import atomic_path

_GOLDEN_ANGLE = 0.381966  # share of the colour circle; neighbouring labels get distant hues


def write_tables(labels: Path, names: Mapping[int, str]) -> list[Path]:
    """Write `<stem>_labels.txt` (ITK-SNAP) and `<stem>.ctbl` (Slicer) beside a label map.

    Args:
        labels: path of the label map, `<stem>.nii.gz` or the like.
        names: label value -> structure name, without background.
    """
    stem = labels.name.removesuffix(".gz").rpartition(".")[0]
    snap, slicer = labels.with_name(f"{stem}_labels.txt"), labels.with_name(f"{stem}.ctbl")
    rows = sorted(names.items())
    _write(snap, [_snap_row(0, "Clear Label", visible=False), *(_snap_row(value, name) for value, name in rows)])
    _write(slicer, [_slicer_row(0, "background", 0), *(_slicer_row(value, name, 255) for value, name in rows)])
    return [snap, slicer]


def colour(value: int) -> tuple[int, int, int]:
    """Give label `value` its colour (R, G, B in 0..255), the same in every file; background is black."""
    if value == 0:
        return 0, 0, 0
    red, green, blue = colorsys.hsv_to_rgb((value - 1) * _GOLDEN_ANGLE % 1.0, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _snap_row(value: int, name: str, *, visible: bool = True) -> str:
    red, green, blue = colour(value)
    quoted = " ".join(name.replace('"', "'").split())
    shown = int(visible)
    return f'{value:5d} {red:5d} {green:4d} {blue:4d} {shown:8d} {shown:2d} {shown:2d}    "{quoted}"'


def _slicer_row(value: int, name: str, alpha: int) -> str:
    return f"{value} {'_'.join(name.split())} {' '.join(str(part) for part in colour(value))} {alpha}"


def _write(path: Path, rows: list[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(rows) + "\n", encoding="utf-8")
