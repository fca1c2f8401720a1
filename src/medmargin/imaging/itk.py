"""NRRD and MetaImage through SimpleITK (extra `itk`), in ITK's LPS world turned to RAS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medmargin.imaging.volume import Volume


def read(path: Path, *, volume_index: int | None = None, channels: int | None = None) -> Volume:
    raise NotImplementedError


def write(path: Path, values: NDArray[Any], like: Volume, *, description: str) -> None:
    raise NotImplementedError
