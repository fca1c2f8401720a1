"""Which DICOM image series a folder holds, told from the headers alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError
from medmargin.imaging.content import first_bytes
from medmargin.imaging.decoding import decoding, load_extra

_TAGS = [
    "SOPClassUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality",
    "Rows", "Columns", "NumberOfFrames", "InstanceNumber", "ImagesInAcquisition", "NumberOfSlices",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
]  # fmt: skip
_DERIVED = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.30"}  # SEG, PM


@dataclass(frozen=True, eq=False)
class SliceFacts:
    """What the header of one DICOM file says about its place; None where it says nothing.

    Attributes:
        position: [3] LPS mm, centre of the first pixel.
        orientation: [6] directions of a row and of a column.
        pixel_spacing: [2] mm between rows, and between columns.
        thickness: mm; nominal, never used as the distance of slices.
        instance: instance number; `expected`: number of slices the header announces.
    """

    path: Path
    rows: int
    columns: int
    frames: int
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    pixel_spacing: NDArray[np.float64] | None
    thickness: float | None
    instance: int | None
    expected: int | None


@dataclass(frozen=True, eq=False)
class SeriesInfo:
    """One image series of a folder; no word about the patient.

    Attributes:
        uid: SeriesInstanceUID.
        number: series number, or None.
        description: series description, may be empty.
        modality: "CT", "MR", ...
        folder: folder of its first file.
        slices: facts of every file, in the order of file names, which need not be the order in space.
    """

    uid: str
    number: int | None
    description: str
    modality: str
    folder: Path
    slices: tuple[SliceFacts, ...] = field(repr=False)

    def __str__(self) -> str:
        first = self.slices[0]
        size = f"{len(self.slices)} x {first.rows} x {first.columns}"
        return f"'{self.description or self.folder.name}' ({self.modality}, number {self.number}, {size}, {self.uid})"

    def answers_to(self, name: str) -> bool:
        """Tell whether `name` is this series' UID, number, description or folder name."""
        return name in (self.uid, str(self.number), self.description, self.folder.name)


def list_series(folder: Path | str) -> list[SeriesInfo]:
    """List the image series in a folder and everything below it, by series number.

    Raises:
        DataError: a file with the DICOM mark whose header is damaged.
        MissingExtraError: pydicom is not installed.
    """
    found: dict[str, list[tuple[Any, SliceFacts]]] = defaultdict(list)
    for path in _dicom_files(Path(folder)):
        header = _header(path)
        with decoding(path, "DICOM header"):
            is_image = "Rows" in header and "SeriesInstanceUID" in header and header.get("SOPClassUID") not in _DERIVED
        if is_image:
            found[str(header.SeriesInstanceUID)].append((header, slice_facts(path, header)))
    series = [_series_info(uid, files) for uid, files in found.items()]
    return sorted(series, key=lambda info: (info.number is None, info.number or 0, info.description, info.uid))


def choose_series(folder: Path, name: str | None) -> SeriesInfo:
    """Choose the series called `name`, or the only one.

    Raises:
        DataError: none, or several to choose from; the message lists them.
    """
    present = list_series(folder)
    chosen = [info for info in present if name is None or info.answers_to(name)]
    if len(chosen) == 1:
        return chosen[0]
    if not present:
        raise DataError(
            f"{folder}: holds no DICOM images. Expected an image file, or a folder with the slices of a series."
        )
    listing = "; ".join(str(info) for info in chosen or present)
    problem = f"no series '{name}'" if not chosen else f"{len(chosen)} series" + (f" called '{name}'" if name else "")
    raise DataError(
        f"{folder}: {problem}. Choose one with --series (series=...) by UID, number, description or folder: {listing}"
    )


def slice_facts(path: Path, header: Any) -> SliceFacts:
    """Read the facts of one file out of its data set.

    Raises:
        DataError: a value that is no number.
    """
    with decoding(path, "DICOM header"):
        expected = header.get("ImagesInAcquisition") or header.get("NumberOfSlices")
        return SliceFacts(
            path=path,
            rows=int(header.Rows),
            columns=int(header.Columns),
            frames=int(header.get("NumberOfFrames") or 1),
            position=_numbers(header, "ImagePositionPatient", 3),
            orientation=_numbers(header, "ImageOrientationPatient", 6),
            pixel_spacing=_numbers(header, "PixelSpacing", 2),
            thickness=float(header.SliceThickness) if header.get("SliceThickness") else None,
            instance=int(header.InstanceNumber) if header.get("InstanceNumber") is not None else None,
            expected=int(expected) if expected else None,
        )


def _dicom_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and first_bytes(path, 132)[128:] == b"DICM":
            yield path


def _header(path: Path) -> Any:
    pydicom = load_extra("pydicom", extra="dicom", purpose="reading DICOM")
    with decoding(path, "DICOM file"):
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)


def _series_info(uid: str, files: list[tuple[Any, SliceFacts]]) -> SeriesInfo:
    header, first = files[0]
    with decoding(first.path, "DICOM header"):
        number = header.get("SeriesNumber")
        return SeriesInfo(
            uid=uid,
            number=None if number is None else int(number),
            description=str(header.get("SeriesDescription", "")),
            modality=str(header.get("Modality", "unknown")),
            folder=first.path.parent,
            slices=tuple(facts for _, facts in files),
        )


def _numbers(header: Any, keyword: str, count: int) -> NDArray[np.float64] | None:
    value = header.get(keyword)
    if value is None:
        return None
    numbers = np.array(value, np.float64)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(f"{keyword} is {value}, expected {count} numbers")
    return numbers
