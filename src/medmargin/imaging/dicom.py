"""DICOM series in."""

from __future__ import annotations

from pathlib import Path

from medmargin.imaging.volume import Volume


def read_series(folder: Path, *, series: str | None = None) -> Volume:
    raise NotImplementedError


def read_file(path: Path) -> Volume:
    raise NotImplementedError
